"""The input pipeline: batches as a function of (seed, step).

The global batch of a step is drawn first, then each process takes its slice, so that the examples
of a step depend neither on the number of processes nor on where a run was resumed. `data.cache`
chooses where the images are:

    device   all of them on the device as uint8; the host sends row numbers only
    memmap   decoded once into a file; a thread cuts the crops of the next steps from it
    stream   decoded again for every batch, by Grain's worker processes
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from aejax.data.decoded import Decoded, decoded, verify
from aejax.data.draws import Batches, Draws, Reader, read_rows
from aejax.data.prefetch import Arrays, cpu_only, prefetched, start_worker
from aejax.data.source import Source
from aejax.data.splits import Splits, open_splits
from aejax.errors import UserError
from aejax.machine.cache import cache_folder

if TYPE_CHECKING:  # worker processes do not import JAX
    from jaxtyping import PRNGKeyArray

    from aejax.types import Batch, Shape

# Limits of data.cache = "auto", in bytes of decoded images: images of one shape go to the device up
# to the first; others to a memory map up to the second and up to a quarter of the free disk space.
DEVICE_BYTES = 1 << 30
MEMMAP_BYTES = 64 << 30


class Pipeline:
    """The batches of one split for one process; see `make_pipeline`.

    Attributes:
      source: the images that are read.
      n: number of examples.
      example_shape: (h, w, c) of the model's input; None if whole images differ in size.
      n_train_batch: steps per epoch, rounded up.
      resident: arrays that the caller places on the device once and passes to `images`; None unless
        data.cache is "device".
      wait_seconds: total time that the consumer of `prefetch` has waited for batches.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch: int,
        seed: int = 0,
        training: bool = True,
        crop: int = 0,
        flip: bool = False,
        rotate: bool = False,
        cache: str = "auto",
        on_bad: str = "error",
        workers: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ):
        cache = _automatic_cache(source) if cache == "auto" else cache
        if cache == "device" and source.shape is None:
            raise UserError(
                f"data.cache = device: the images of {source.name} differ in size; "
                "set data.size, or data.cache=memmap"
            )
        in_file = None
        if cache == "stream":
            self.source = verify(source, on_bad)
            self.reader: Reader = self.source
        else:
            self.reader = in_file = _decoded(source, on_bad, cache)
            self.source = in_file.source
        self.cache, self.training, self.crop, self.workers = cache, training, crop, workers
        self.process_index, self.process_count = process_index, process_count
        self.n = len(self.source)
        self.n_train_batch = -(-self.n // batch)
        self.example_shape = (crop, crop, self.source.channels) if crop else self.source.shape
        if training:
            h, w, _ = self.image_shape
            if rotate and h != w:
                raise UserError(f"data.rotate needs square images, not {h} x {w}; set data.crop")
        if training and batch % process_count:
            raise UserError(f"data.batch = {batch} does not divide over {process_count} processes")
        local, whole = batch // process_count, self.source.shape == self.example_shape
        self.batches = Batches(
            self.reader,
            Draws(self.n, seed, 0 if whole else crop, flip, rotate),
            batch,
            process_index * local,
            (process_index + 1) * local,
            labels=bool(self.source.class_names),
        )
        self.resident = self._resident(in_file) if in_file and cache == "device" else None
        self.wait_seconds = 0.0
        self._open: list[Generator[Arrays]] = []  # unfinished iterators

    @property
    def image_shape(self) -> "Shape":
        """`example_shape`, if it is known.

        Raises:
          UserError: the pipeline yields whole images that differ in size.
        """
        if self.example_shape is None:
            raise UserError(
                f"the images of {self.source.name} differ in size; set data.crop or data.size"
            )
        return self.example_shape

    def _resident(self, images: Decoded) -> Arrays:
        arrays = {
            "image": np.asarray(images.data).reshape(
                self.n, *images.source.sizes[0], images.source.channels
            )
        }
        if self.batches.labels:
            arrays["label"] = images.labels
        return arrays

    def dispatch(self, step: int, k: int) -> Arrays:
        """The local batches of steps step .. step + k - 1: arrays [k, local batch, ...].

        Sets on the device: "row" and, with crops, "corner" (int32). Others: "image" (uint8, already
        cropped) and "label" (int32). "code" is the orientation, see `augment.orient`.
        """
        parts = [self._rows(s) if self.resident else self.batches[s] for s in range(step, step + k)]
        return _stack(parts)

    def _rows(self, step: int) -> Arrays:
        b, draws = self.batches, self.batches.draws
        first, count = step * b.batch + b.low, b.high - b.low
        rows = draws.rows(first, count)
        out = {"row": rows.astype(np.int32)}
        if draws.crop:
            out["corner"] = draws.corners(first, self.source.sizes[rows])
        if draws.flip or draws.rotate:
            out["code"] = draws.codes(first, count)
        return out

    def images(
        self,
        resident: "Batch | None",
        batch: "Batch",
        key: "PRNGKeyArray | None" = None,
        training: bool = True,
    ) -> "Batch":
        """The model's input, to be called inside jit.

        Args:
          resident: `Pipeline.resident` on the device, or None.
          batch: one step of a dispatch, or a batch of `eval_batches`.
          key: not used: all random choices are made on the host, with the batch.
          training: False leaves out flips and rotations.

        Returns:
          {"image": float32 [b, h, w, c] in [0, 1], "label": int32 [b] if there are labels}.
        """
        import jax.numpy as jnp

        from aejax.data import augment

        out, resident = {}, resident or {}
        if "image" in batch:
            x = batch["image"]
        elif "corner" in batch:
            x = augment.gather_crops(resident["image"], batch["row"], batch["corner"], self.crop)
        else:
            x = augment.gather(resident["image"], batch["row"])
        if "label" in batch:
            out["label"] = batch["label"]
        elif "label" in resident:
            out["label"] = jnp.take(resident["label"], batch["row"], mode="clip")
        if training and "code" in batch:
            turn = augment.orient if self.batches.draws.rotate else augment.mirror
            x = turn(x, batch["code"])
        return {"image": x.astype(jnp.float32) / 255, **out}

    def prefetch(self, start: int, k: int, stop: int) -> Generator[Arrays]:
        """The dispatches of k steps from step `start` to `stop`, computed ahead by a thread or by
        Grain's workers. The last may have fewer steps."""
        if self.cache == "stream" and self.workers:
            dispatches = self._grain(start, k, stop)
        else:
            steps = range(start, stop, k)
            dispatches = prefetched(self.dispatch(s, min(k, stop - s)) for s in steps)
        self._open.append(dispatches)
        try:
            while True:
                started = time.perf_counter()
                try:
                    dispatch = next(dispatches)
                except StopIteration:
                    return
                finally:
                    self.wait_seconds += time.perf_counter() - started
                yield dispatch
        finally:
            dispatches.close()
            self._open.remove(dispatches)

    def _grain(self, start: int, k: int, stop: int) -> Generator[Arrays]:
        """Dispatches of batches from Grain's worker processes, in order."""
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which nothing here parses
            flags.FLAGS.mark_as_parsed()
        steps = grain.MapDataset.source(dataclasses.replace(self.batches, start=start, stop=stop))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        workers = grain.MultiprocessingOptions(self.workers, per_worker_buffer_size=2)
        # Pipes instead of /dev/shm: it is small in containers, and a killed run would not free it.
        use_pipes = grain.experimental.DatasetOptions(min_shm_size=1 << 62)
        steps = steps.to_iter_dataset(options)
        steps = grain.experimental.WithOptionsIterDataset(steps, use_pipes)
        with cpu_only():  # until every worker has sent a batch, and so has started
            batches = iter(steps.mp_prefetch(workers, start_worker))
            parts = [next(batches) for _ in range(min(self.workers, stop - start))]
        try:
            for s in range(start, stop, k):
                count = min(k, stop - s)
                while len(parts) < count:
                    parts.append(next(batches))
                yield _stack(parts[:count])
                parts = parts[count:]
        finally:
            batches.close()

    def eval_batches(self, batch: int) -> Generator[Arrays]:
        """The whole split in order, grouped by image size; each example on one process only.

        Args:
          batch: examples per batch of this process (fewer for image sizes that are rare).

        Yields:
          "row" for sets on the device, else "image" (uint8 [b, h, w, c]) and "label"; "index" int32
          [b] into the split; "mask" float32 [b], 0 for padding of the last batch. All processes
          yield the same number of batches of the same shapes.
        """
        batches = prefetched(self._eval_batches(batch))
        self._open.append(batches)
        try:
            yield from batches
        finally:
            batches.close()
            self._open.remove(batches)

    def _eval_batches(self, batch: int) -> Generator[Arrays]:
        sizes = self.source.sizes if not self.crop else np.zeros((self.n, 2), np.int32)
        _, group = np.unique(sizes, axis=0, return_inverse=True)
        for g in range(group.max() + 1):
            members = np.flatnonzero(group.ravel() == g)
            local = min(batch, -(-len(members) // self.process_count))
            for first in range(0, len(members), local * self.process_count):
                low = first + self.process_index * local
                index = members[low : low + local]
                mask = (np.arange(local) < len(index)).astype(np.float32)
                index = np.concatenate([index, np.repeat(members[-1:], local - len(index))])
                out = {"index": index.astype(np.int32), "mask": mask}
                if self.resident and not self.crop:
                    yield out | {"row": out["index"]}
                    continue
                examples = read_rows(self.reader, index)
                out["image"] = np.stack([_centre(x, self.crop) for x, _ in examples])
                if self.batches.labels:
                    out["label"] = np.array([label for _, label in examples], np.int32)
                yield out

    def close(self) -> None:
        """Ends the threads and processes of unfinished iterators."""
        for iterator in list(self._open):
            with contextlib.suppress(ValueError):  # another thread is inside it
                iterator.close()


def _stack(parts: list[Arrays]) -> Arrays:
    return {name: np.stack([p[name] for p in parts]) for name in parts[0]}


def _centre(x: np.ndarray, side: int) -> np.ndarray:
    if not side:
        return x
    top, left = (x.shape[0] - side) // 2, (x.shape[1] - side) // 2
    return x[top : top + side, left : left + side]


def _automatic_cache(source: Source) -> str:
    """The cache that data.cache = "auto" stands for."""
    if source.shape is not None and source.bytes < DEVICE_BYTES:
        return "device"
    folder = next(p for p in (cache_folder(), *cache_folder().parents) if p.exists())
    room = min(MEMMAP_BYTES, shutil.disk_usage(folder).free // 4)
    return "memmap" if source.bytes < room else "stream"


def _decoded(source: Source, on_bad: str, cache: str) -> Decoded:
    if cache == "memmap" or source.bytes > DEVICE_BYTES:
        return decoded(source, on_bad)
    try:
        return decoded(source, on_bad)
    except UserError:
        return decoded(source, on_bad, on_disk=False)  # bad images raise again


def make_pipeline(
    config: ConfigDict,
    *,
    training: bool,
    process_index: int = 0,
    process_count: int = 1,
    data_dir: str | None = None,
    splits: Splits | None = None,
) -> Pipeline:
    """The training or evaluation pipeline of a config (its `data`, `eval` and `seed`).

    Evaluation uses whole images, or centre crops if config.eval.crop is set. With data.folds both
    splits are parts of data.split; see folds.py.

    Args:
      config: the whole config of a run.
      training: the training split, with random crops and flips, or the evaluation split.
      splits: the result of `open_splits` for this config, if the caller has it.

    Raises:
      UserError: invalid values in config.data; a source, split or image that cannot be used.

    >>> pipeline = make_pipeline(config, training=False)
    >>> pipeline.n, pipeline.example_shape
    (179, (8, 8, 1))
    >>> len(list(pipeline.eval_batches(32)))
    6
    >>> pipeline.close()
    """
    data = config.data
    crop = data.crop if training else config.eval.get("crop", 0)
    if data.cache not in ("auto", "device", "memmap", "stream"):
        raise UserError(f'data.cache = "{data.cache}"; it is auto, device, memmap or stream')
    if data.batch < 1 or crop < 0 or data.workers < 0:
        raise UserError("data.batch is at least 1, data.crop and data.workers at least 0")
    splits = splits or open_splits(config, data_dir)
    return Pipeline(
        splits[training],
        batch=data.batch,
        seed=config.seed,
        training=training,
        crop=crop,
        flip=data.flip and training,
        rotate=data.rotate and training,
        cache=data.cache,
        on_bad=data.on_bad,
        workers=data.workers,
        process_index=process_index,
        process_count=process_count,
    )
