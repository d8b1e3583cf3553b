"""Evaluates a model on a whole split: every example once, on any number of processes."""

import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aejax.contracts import Encodes, Objective
from aejax.data.pipeline import Pipeline
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.metrics.image import metric_functions
from aejax.nets import ops
from aejax.objective import evaluated
from aejax.pictures import common_crop, contact_sheet, save
from aejax.registry import did_you_mean
from aejax.result import Metric
from aejax.training.sharding import AXIS
from aejax.types import Shape, Variables

# The metric that ranks examples from best to worst: the first of these that is measured.
RANKS = (Metric("psnr"), Metric("mse", False), Metric("loss", False))
CODES = 4096  # positions of h whose statistics are reported


@dataclasses.dataclass
class Evaluation:
    """Mean metrics, the metrics of each example, and pictures of the first, best and worst ones.

    Attributes:
      metrics: name -> mean over all examples of all processes.
      count: the number of these examples.
      per_example: name -> [n] of this process, with "index" into the split.
      pictures: {"first", "best", "worst"} -> list of {"x", "y", ...} uint8 [h, w, c].
      latent: statistics of the coordinates of h, see `_latent_statistics`.
    """

    metrics: dict[str, float]
    count: int
    per_example: dict[str, np.ndarray]
    pictures: dict[str, list[dict[str, np.ndarray]]]
    latent: JsonObject

    def sheets(self) -> dict[str, np.ndarray]:
        """Contact sheets, uint8, originals above reconstructions, by the names of `pictures`."""
        return {name: contact_sheet(rows) for name, rows in self.pictures.items() if rows}

    def write_pictures(self, workdir: pathlib.Path) -> None:
        """pictures/first.png, best.png, worst.png; the first examples (of photos, crops) as arrays.

        Only process 0 writes. A failure to write is a warning and does not stop the run.
        """
        if jax.process_index():
            return
        folder = workdir / "pictures"
        try:
            folder.mkdir(exist_ok=True)
            for name, sheet in self.sheets().items():
                save(folder / f"{name}.png", sheet)
            first = self.pictures["first"]
            if first:
                arrays = {n: common_crop([p[n] for p in first]) for n in first[0]}
                np.savez_compressed(folder / "examples.npz", allow_pickle=False, **arrays)
        except OSError as e:
            warnings.warn(f"pictures cannot be written ({e}); the run goes on", stacklevel=2)


class Evaluator:
    """Evaluates one model, as often as it is called; compiled once per image shape.

    Args:
      objective, model: those of the train step.
      pipeline: the evaluation pipeline (data/pipeline.py).
      metrics: names of metrics.image.METRICS, between x and y clipped to [0, 1].
      batch: examples at once on this process.
      pictures: how many examples to keep as pictures.
      devices: of this process; () = all.
      forms: of nets.ops, as config.ops has them.
    """

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        pipeline: Pipeline,
        metrics: Iterable[str],
        batch: int,
        pictures: int = 16,
        devices: Sequence[jax.Device] = (),
        forms: Mapping[str, str] | None = None,
    ):
        self.pipeline, self.batch, self.keep = pipeline, batch, pictures
        self.model = model
        self.functions = metric_functions(metrics)
        self.resident = None

        def measure(variables, batch, resident, key):
            batch = pipeline.images(resident, batch, key, False)
            _, aux = evaluated(objective, model, variables, batch, key, False)
            x, y = aux.pictures["x"], jnp.clip(aux.pictures["y"], 0, 1)
            values = dict(aux.metrics) | {name: f(x, y) for name, f in self.functions.items()}
            shown = {name: _to_uint8(v) for name, v in aux.pictures.items()}
            if not isinstance(model, Encodes):
                return values, shown, None
            # compiled here and not apart: where the model saw the same x, f_E is compiled once
            return values, shown, model.apply(variables, batch["image"], method="encode")

        measure = ops.traced_with(forms or {}, measure)
        # The fast forms of nets/ops loop over the batch: it is split here, not by the compiler.
        mesh = Mesh(np.array(devices or jax.local_devices()), (AXIS,))
        self.device_count = mesh.size
        self.everywhere = NamedSharding(mesh, P())
        specs = (P(), P(AXIS), P(), P())
        self.sharded = jax.jit(
            jax.shard_map(measure, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)
        )
        self.single = jax.jit(measure)

    def check(self, variables: Variables, trained_on: Shape, best: str = "") -> None:
        """Raises the errors of a first evaluation before anything is computed.

        Args:
          variables: of the model, or their shapes and types.
          trained_on: (h, w, c) of the images that the model was made for.
          best: config.eval.best, a metric's name, perhaps with "-" before it.

        Raises:
          UserError: no examples; images of a size, or of channels, that the model cannot take; a
            `best` that is not measured.
        """
        pipeline = self.pipeline
        if not pipeline.n:
            raise UserError("the evaluation split has no examples; set data.eval_split")
        resident = jax.eval_shape(lambda v: v, pipeline.resident)
        values = {}
        for shape, batch in _extreme_batches(pipeline, self.batch):
            run = self._program(batch["index"].shape[0])
            try:
                values, *_ = jax.eval_shape(run, variables, batch, resident, jax.random.key(0))
            except (ScopeParamShapeError, TypeError, ValueError) as e:
                if shape == tuple(trained_on):  # then the shape is not the cause
                    raise
                raise UserError(_wrong_shape(shape, trained_on, pipeline.source.name)) from e
        name = Metric.parse(best).name
        if best and name not in values:
            raise UserError(f'eval.best = "{best}": no such metric{did_you_mean(name, values)}')

    def __call__(self, variables: Variables, seed: int = 0, examples: int = 0) -> Evaluation:
        """Evaluates `variables` on the split, or its first `examples`.

        Corruptions and bottlenecks draw random numbers from `seed` and the number of the batch.
        """
        if self.resident is None and self.pipeline.resident is not None:
            self.resident = jax.device_put(self.pipeline.resident, self.everywhere)
        variables = jax.device_put(variables, self.everywhere)
        sums, rows, codes = {}, [], []
        chosen = {"first": [], "best": [], "worst": []}
        key, seen = jax.random.key(seed), 0
        for number, batch in enumerate(self.pipeline.eval_batches(self.batch)):
            mask, index = batch.pop("mask"), np.asarray(batch["index"])
            if examples:
                mask = mask * (index < examples)
                if not mask.any():
                    continue
            count = len(mask)
            step_key = jax.random.fold_in(key, number)
            values, shown, h = self._program(count)(variables, batch, self.resident, step_key)
            if h is not None and sum(map(len, codes)) < CODES:
                h = np.asarray(h)[mask > 0]
                codes.append(h.reshape(-1, h.shape[-1])[:CODES])
            values = {name: np.asarray(v, np.float64) for name, v in values.items()}
            rank = next(metric for metric in RANKS if metric.name in values)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float((value * mask).sum())
            keep = mask > 0
            rows.append({name: v[keep] for name, v in values.items()} | {"index": index[keep]})
            self._choose(chosen, rank.score(values[rank.name]), keep, index, shown)
            seen += int(keep.sum())
        if not seen and jax.process_count() == 1:
            raise UserError("the evaluation split has no examples; set data.eval_split")
        names = sorted(sums)
        totals = _over_processes(np.array([sums[n] for n in names] + [seen], np.float64))
        total = int(totals[-1])
        return Evaluation(
            metrics={name: float(t / total) for name, t in zip(names, totals, strict=False)},
            count=total,
            per_example={n: np.concatenate([r[n] for r in rows]) for n in (*names, "index")},
            pictures={k: [p for *_, p in v] for k, v in chosen.items()},
            latent=_latent_statistics(np.concatenate(codes)) if codes else {},
        )

    def _program(self, count: int) -> Callable:
        """The compiled function for `count` examples."""
        return self.sharded if count % self.device_count == 0 else self.single

    def _choose(self, chosen, scores, keep, index, shown) -> None:
        """Keeps the pictures of the first, the best and the worst examples."""
        host = functools.cache(lambda: {name: np.asarray(v) for name, v in shown.items()})
        for i in np.flatnonzero(keep):
            score = float(scores[i])
            for name, limit, value in (
                ("first", self.keep, -float(index[i])),
                ("best", 4, score),
                ("worst", 4, -score),
            ):
                kept = chosen[name]
                if limit and (len(kept) < limit or value > kept[-1][0]):
                    kept.append((value, {n: v[i] for n, v in host().items()}))
                    kept.sort(key=lambda item: -item[0])
                    del kept[limit:]


def _extreme_batches(
    pipeline: Pipeline, batch: int
) -> Iterator[tuple[Shape, dict[str, jax.ShapeDtypeStruct]]]:
    """(h, w, c) of the smallest and the largest evaluation images (one where all are equal), with
    shapes and types of the batch that `pipeline.eval_batches` makes of them."""
    sizes = np.full((pipeline.n, 2), pipeline.crop) if pipeline.crop else pipeline.source.sizes
    sizes, counts = np.unique(sizes, axis=0, return_counts=True)
    areas = sizes.prod(1, dtype=np.int64)
    for i in dict.fromkeys((int(areas.argmin()), int(areas.argmax()))):
        h, w = map(int, sizes[i])
        shape = h, w, pipeline.source.channels
        n = min(batch, -(-int(counts[i]) // pipeline.process_count))
        rows = jax.ShapeDtypeStruct((n,), jnp.int32)
        batch_shapes = {"index": rows}
        if pipeline.resident and not pipeline.crop:
            batch_shapes["row"] = rows
        else:
            batch_shapes["image"] = jax.ShapeDtypeStruct((n, *shape), jnp.uint8)
            if pipeline.batches.labels:
                batch_shapes["label"] = rows
        yield shape, batch_shapes


def _wrong_shape(shape: Sequence[int], trained_on: Sequence[int], source: str) -> str:
    """The error message for images that a model of a fixed size cannot take."""
    (h, w, c), (height, width, channels) = shape, trained_on
    text = f"the model is made for {height}x{width}x{channels} images and cannot be evaluated on "
    text += f"the {h}x{w}x{c} ones of {source}; set "
    if c != channels:
        return text + f"data.channels={channels}"
    text += f"eval.crop={height}" if height == width else f"data.size=({height},{width})"
    return text + ", or take a model of any size, such as experiments/quickstart.py:photos"


def _to_uint8(images):
    return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)


def _over_processes(values: np.ndarray) -> np.ndarray:
    """Sum over processes, in float64 (as two float32 halves: devices may lack float64)."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    high = values.astype(np.float32)
    low = (values - high).astype(np.float32)
    both = np.asarray(multihost_utils.process_allgather(np.stack([high, low])), np.float64)
    return both.sum((0, 1))


def _latent_statistics(h: np.ndarray) -> JsonObject:
    """Mean and standard deviation of each coordinate of h (of the first 64), the number of active
    ones, and the effective number of dimensions."""
    std = h.std(0)
    variance = np.sort(std**2)[::-1]
    share = variance / max(variance.sum(), 1e-12)
    return {
        "mean": [round(float(v), 5) for v in h.mean(0)[:64]],
        "std": [round(float(v), 5) for v in std[:64]],
        "active": int((std > 1e-2 * max(std.max(), 1e-12)).sum()),
        # exp(entropy) of the shares of variance
        "effective_dimensions": round(float(np.exp(-(share * np.log(share + 1e-12)).sum())), 2),
    }
