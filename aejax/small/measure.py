"""The cost of a model: bytes on disk, parameters, multiply-accumulates, latency, throughput."""

import pathlib
import tempfile
import time

import jax
import numpy as np

from aejax.files import JsonObject
from aejax.metrics.cost import macs
from aejax.nets.applied import applied
from aejax.study.definition import TrainedRun
from aejax.trained import Trained
from aejax.training.build import count_parameters
from aejax.training.prune import sparsity_of


def bytes_on_disk(trained: Trained, storage: str = "float32", sparse: bool = False) -> int:
    """Size of its .safetensors file in bytes; the arguments are those of `Trained.save`."""
    with tempfile.TemporaryDirectory() as folder:
        path = trained.save(pathlib.Path(folder) / "model", storage, sparse=sparse)
        return path.stat().st_size


def kmac_per_pixel(trained: Trained) -> float:
    """Thousands of multiply-accumulates per pixel, for an image of the training size."""
    h, w, c = trained.known_shape
    x = jax.ShapeDtypeStruct((1, h, w, c), np.float32)
    total = macs(lambda v, x: applied(trained.model, v, x).y, trained.variables, x)
    return total / 1e3 / (h * w)


def speed(trained: Trained, batch: int = 256, seconds: float = 2.0) -> dict[str, float]:
    """Latency and throughput of the compiled model on random images of the training size.

    Args:
      batch: images per call, for the throughput.
      seconds: duration of each of the two measurements.

    Returns:
      {"latency p50, ms", "latency p99, ms": of one image; "images/s": of batches}.
    """
    x = np.random.default_rng(0).random((batch, *trained.known_shape), np.float32)
    single, batched = _times(trained, x[:1], seconds), _times(trained, x, seconds)
    return {
        "latency p50, ms": 1e3 * float(np.percentile(single, 50)),
        "latency p99, ms": 1e3 * float(np.percentile(single, 99)),
        "images/s": batch / float(np.median(batched)),
    }


def _times(trained: Trained, x: np.ndarray, seconds: float) -> list[float]:
    """Seconds of each call, of at least 20 calls."""
    variables = jax.device_put(trained.variables)
    run = jax.jit(lambda v, x: applied(trained.model, v, x).y)
    jax.block_until_ready(run(variables, x))
    times: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 20:
        call_start = time.perf_counter()
        jax.block_until_ready(run(variables, x))
        times.append(time.perf_counter() - call_start)
    return times


def cost(run: TrainedRun) -> JsonObject:
    """`Study.measure` for studies of small models.

    Returns:
      columns of the table: size in the storage type that fits the run (quantised, sparse or
        float32),
      cost, speed, and the error of the weights stored in float16.
    """
    trained, config = run.model, run.config
    quantise = dict(config.model.quantise)
    is_pruned = config.optim.name.endswith(":pruned")
    storage = quantise.get("weights", "int8") if quantise else "float32"
    with tempfile.TemporaryDirectory() as folder:
        from aejax.loading import load

        half = load(trained.save(pathlib.Path(folder) / "half", "float16"))
        as_half = half.evaluate(metrics=("mse",), data_dir=run.data_dir).metrics["mse"]
    return {
        "bytes": bytes_on_disk(trained, storage, is_pruned),
        "stored as": storage + " without zeros" * is_pruned,
        "weights that are not zero": round(
            count_parameters(trained.variables["params"])
            * (1.0 - sparsity_of(trained.variables["params"]))
        ),
        "kMAC/pixel": kmac_per_pixel(trained),
        "test/mse in float16": as_half,
        **speed(trained, seconds=0.2 if run.result["steps"] < 10 else 2.0),
    }
