"""Batches as a function of (seed, step), however the images are kept and on however many hosts.

A step's global batch is drawn first, then each process takes its slice, so that neither the number
of processes nor where a run was resumed changes what is trained on. Three ways to keep images:

    device   all of them on the device as uint8; a dispatch carries only row numbers
    memmap   decoded once into a file; a thread cuts the crops of the next steps out of it
    stream   decoded anew for every batch by Grain, in processes that never see an accelerator
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from aejax.data.ahead import Arrays, begin_worker, made_ahead, without_accelerator
from aejax.data.cache import cache_dir
from aejax.data.decoded import Decoded, decoded, verify
from aejax.data.draws import Batches, Draws, Reader, read_rows
from aejax.data.source import Source
from aejax.data.splits import Splits, open_splits
from aejax.errors import UserError

if TYPE_CHECKING:  # the processes that read never import JAX
    from jaxtyping import PRNGKeyArray

    from aejax.types import Batch, Shape

DEVICE_BYTES = 1 << 30  # "auto": equal shapes up to here live on the device,
MEMMAP_BYTES = 64 << 30  # others up to here, and up to a quarter of the free disk, in a memory map


class Pipeline:
    """Batches of one split for one process. Made by `make_pipeline`.

    Attributes:
      source: what is read; n: how many examples it has.
      example_shape: (h, w, c) of the images that reach the model; None if whole images differ.
      n_train_batch: steps in which every example has come once.
      resident: uint8 arrays to be put on the device once and given to `images`, or None.
      wait_seconds: how long `prefetch` kept its reader waiting, in all.
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
        cache = _choose(source) if cache == "auto" else cache
        if cache == "device" and source.shape is None:
            raise UserError(
                f"data.cache = device: the images of {source.name} differ in size; "
                "set data.size, or data.cache=memmap"
            )
        kept = None
        if cache == "stream":
            self.source = verify(source, on_bad)
            self.reader: Reader = self.source
        else:
            self.reader = kept = _decoded(source, on_bad, cache)
            self.source = kept.source
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
        self.resident = self._resident(kept) if kept and cache == "device" else None
        self.wait_seconds = 0.0
        self._open: list[Generator[Arrays]] = []  # iterators that are being read

    @property
    def image_shape(self) -> "Shape":
        """`example_shape`, which every training pipeline has.

        Raises:
          UserError: whole images that differ in size.
        """
        if self.example_shape is None:
            raise UserError(
                f"the images of {self.source.name} differ in size; set data.crop or data.size"
            )
        return self.example_shape

    def _resident(self, kept: Decoded) -> Arrays:
        arrays = {
            "image": np.asarray(kept.data).reshape(
                self.n, *kept.source.sizes[0], kept.source.channels
            )
        }
        if self.batches.labels:
            arrays["label"] = kept.labels
        return arrays

    def dispatch(self, step: int, k: int) -> Arrays:
        """The local batches of steps step .. step + k - 1: arrays [k, local batch, ...].

        For resident sets "row" and, where they apply, "corner" (int32); else "image" (uint8, cut
        already) and "label" (int32). "code" says how each image is to be turned.
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
        """What the model sees of a batch, inside jit: {"image": float32 [b, h, w, c] in [0, 1],
        "label": int32 [b] if there are labels}.

        Args:
          resident: `Pipeline.resident` on the device, or None.
          batch: one step of a dispatch, or a batch of `eval_batches`.
          key: not used: what is random was drawn on the host with the batch, so that it depends on
            no device.
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
        """The dispatches from step `start` up to `stop`, made ahead; the last may be shorter."""
        if self.cache == "stream" and self.workers:
            made = self._grain(start, k, stop)
        else:
            steps = range(start, stop, k)
            made = made_ahead(self.dispatch(s, min(k, stop - s)) for s in steps)
        self._open.append(made)
        try:
            while True:
                begun = time.perf_counter()
                try:
                    dispatch = next(made)
                except StopIteration:
                    return
                finally:
                    self.wait_seconds += time.perf_counter() - begun
                yield dispatch
        finally:
            made.close()
            self._open.remove(made)

    def _grain(self, start: int, k: int, stop: int) -> Generator[Arrays]:
        """Steps from Grain's worker processes, in order, gathered into dispatches."""
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain reads its own; nobody else here has any
            flags.FLAGS.mark_as_parsed()
        steps = grain.MapDataset.source(dataclasses.replace(self.batches, start=start, stop=stop))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        several = grain.MultiprocessingOptions(self.workers, per_worker_buffer_size=2)
        by_pipe = grain.experimental.DatasetOptions(min_shm_size=1 << 62)
        # not by /dev/shm: containers have little of it, and a killed run would leave it full
        steps = grain.experimental.WithOptionsIterDataset(steps.to_iter_dataset(options), by_pipe)
        with without_accelerator():  # until each worker has answered once: all are started then
            made = iter(steps.mp_prefetch(several, begin_worker))
            parts = [next(made) for _ in range(min(self.workers, stop - start))]
        try:
            for s in range(start, stop, k):
                count = min(k, stop - s)
                while len(parts) < count:
                    parts.append(next(made))
                yield _stack(parts[:count])
                parts = parts[count:]
        finally:
            made.close()

    def eval_batches(self, batch: int) -> Generator[Arrays]:
        """The whole split in order, each example on one process only, images of a size together.

        Args:
          batch: examples at once on this process (fewer for sizes that few images have).

        Yields:
          "row" for resident sets, else "image" (uint8 [b, h, w, c]) and "label"; "index" int32 [b]
          into the split; "mask" float32 [b], 0 for what only fills the last batch. All processes
          yield equally many batches of equal shapes.
        """
        made = made_ahead(self._eval_batches(batch))
        self._open.append(made)
        try:
            yield from made
        finally:
            made.close()
            self._open.remove(made)

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
        """Ends the threads and processes of iterators that were not read to their end."""
        for made in list(self._open):
            with contextlib.suppress(ValueError):  # being read just now, by another thread
                made.close()


def _stack(parts: list[Arrays]) -> Arrays:
    return {name: np.stack([p[name] for p in parts]) for name in parts[0]}


def _centre(x: np.ndarray, side: int) -> np.ndarray:
    if not side:
        return x
    top, left = (x.shape[0] - side) // 2, (x.shape[1] - side) // 2
    return x[top : top + side, left : left + side]


def _choose(source: Source) -> str:
    """What cache = "auto" means for a source."""
    if source.shape is not None and source.bytes < DEVICE_BYTES:
        return "device"
    folder = next(p for p in (cache_dir(), *cache_dir().parents) if p.exists())
    room = min(MEMMAP_BYTES, shutil.disk_usage(folder).free // 4)
    return "memmap" if source.bytes < room else "stream"


def _decoded(source: Source, on_bad: str, cache: str) -> Decoded:
    if cache == "memmap" or source.bytes > DEVICE_BYTES:
        return decoded(source, on_bad)
    try:
        return decoded(source, on_bad)
    except UserError:
        return decoded(source, on_bad, on_disk=False)  # raises again what is not about the disk


def make_pipeline(
    config: ConfigDict,
    *,
    training: bool,
    process_index: int = 0,
    process_count: int = 1,
    data_dir: str | None = None,
    splits: Splits | None = None,
) -> Pipeline:
    """The training or the evaluation batches of a whole config (its `data`, `eval` and `seed`).

    In evaluation images are whole; config.eval.crop, if there is one, takes squares of their
    centres instead. With data.folds both are parts of data.split; see folds.py.

    Args:
      splits: what `open_splits` gave for this config, if that is at hand already.

    Raises:
      UserError: values that cannot be; a source, split or image that cannot be used.

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
