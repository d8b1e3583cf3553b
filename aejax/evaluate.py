"""Measuring a model on a whole split: every example once, on any number of processes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aejax.errors import UserError
from aejax.metrics.image import metric_functions
from aejax.training.sharding import AXIS
from aejax.types import Variables

CODES = 4096  # positions of h whose statistics are reported


@dataclasses.dataclass
class Evaluation:
    """Means over the examples, each example's own numbers, and pictures worth a look.

    Attributes:
      metrics: name -> mean over all examples of all processes.
      count: how many those were.
      per_example: name -> [n] of this process, with "index" into the split.
      pictures: {"first", "best", "worst"} -> list of {"x", "y", ...} uint8 [h, w, c].
      latent: mean, std, and the share of variance of each of the first coordinates of h.
    """

    metrics: dict[str, float]
    count: int
    per_example: dict[str, np.ndarray]
    pictures: dict[str, list[dict[str, np.ndarray]]]
    latent: dict[str, Any]


class Evaluator:
    """Evaluates one model again and again; compiled once per image shape.

    Args:
      objective, model: as the train step's.
      pipeline: the evaluation pipeline (data/pipeline.py).
      metrics: names of metrics.image.METRICS, between x and y clipped to [0, 1].
      batch: examples at once on this process.
      pictures: how many examples to keep as pictures.
      devices: of this process; () = all.
      rank: the metric that tells the best from the worst.
    """

    def __init__(
        self, objective, model: nn.Module, pipeline, metrics, batch, pictures=16, devices=()
    ):
        self.pipeline, self.batch, self.keep = pipeline, batch, pictures
        self.model = model
        self.functions = metric_functions(metrics)
        self.rank = "psnr" if "psnr" in self.functions else "mse"
        self.resident = None

        def measure(variables, batch, resident, key):
            batch = pipeline.images(resident, batch, key, False)
            _, aux = objective(model, variables, batch, key, False)
            x, y = aux.pictures["x"], jnp.clip(aux.pictures["y"], 0, 1)
            values = dict(aux.metrics) | {name: f(x, y) for name, f in self.functions.items()}
            shown = {name: _to_uint8(v) for name, v in aux.pictures.items()}
            if not hasattr(model, "encode"):
                return values, shown, None
            # compiled here and not apart: where the model saw the same x, f_E is compiled once
            return values, shown, model.apply(variables, batch["image"], method="encode")

        # The fast forms of nets/ops.py loop over the batch: it is split here, not by the compiler.
        mesh = Mesh(np.array(devices or jax.local_devices()), (AXIS,))
        self.device_count = mesh.size
        self.everywhere = NamedSharding(mesh, P())
        specs = (P(), P(AXIS), P(), P())
        self.sharded = jax.jit(
            jax.shard_map(measure, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)
        )
        self.single = jax.jit(measure)

    def __call__(self, variables: Variables, seed: int = 0, examples: int = 0) -> Evaluation:
        """Evaluates `variables` on the split, or its first `examples`.

        The randomness of a corruption or bottleneck follows from `seed` and the batch's place.
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
            run = self.sharded if count % self.device_count == 0 else self.single
            step_key = jax.random.fold_in(key, number)
            values, shown, h = run(variables, batch, self.resident, step_key)
            if h is not None and sum(map(len, codes)) < CODES:
                h = np.asarray(h)[mask > 0]
                codes.append(h.reshape(-1, h.shape[-1])[:CODES])
            values = {name: np.asarray(v, np.float64) for name, v in values.items()}
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float((value * mask).sum())
            keep = mask > 0
            rows.append({name: v[keep] for name, v in values.items()} | {"index": index[keep]})
            self._choose(chosen, values[self.rank], keep, index, shown)
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

    def _choose(self, chosen, rank, keep, index, shown) -> None:
        """Keeps the pictures of the first, the best and the worst examples."""
        sign = -1.0 if self.rank == "mse" else 1.0
        host = functools.cache(lambda: {name: np.asarray(v) for name, v in shown.items()})
        for i in np.flatnonzero(keep):
            score = sign * float(rank[i])
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


def _latent_statistics(h: np.ndarray) -> Mapping[str, Any]:
    """How h is spread: of each coordinate the mean and standard deviation (at most 64 listed)."""
    std = h.std(0)
    variance = np.sort(std**2)[::-1]
    share = variance / max(variance.sum(), 1e-12)
    return {
        "mean": [round(float(v), 5) for v in h.mean(0)[:64]],
        "std": [round(float(v), 5) for v in std[:64]],
        "active": int((std > 1e-2 * max(std.max(), 1e-12)).sum()),
        # 2^entropy of the variance shares: how many coordinates are in effect used
        "effective_dimensions": round(float(np.exp(-(share * np.log(share + 1e-12)).sum())), 2),
    }
