"""Speed of matrix products on this CPU in float32 and bfloat16, for the choice of forms in
nets/ops.

Importing this module does not import jax.
"""

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aejax import files
from aejax.machine import cpu
from aejax.machine.cache import cache_folder


def bf16_gain() -> float:
    """The speed of bfloat16 products relative to float32; 1 on a CPU without bfloat16 instructions.

    It is measured in a quarter of a second, once per CPU model and version of jax, and stored in
    `cache_folder()`.
    """
    gflops = measured()
    return gflops["bf16"] / gflops["f32"]


def measurement_file() -> pathlib.Path:
    """The JSON file with the measurement of this CPU model and version of jax."""
    import jax

    return cache_folder() / f"speed-{cpu.identifier()}-jax{jax.__version__}.json"


def measured() -> dict[str, float]:
    """{"f32": GFLOP/s, "bf16": GFLOP/s} of a matrix product, see `measure`; 1 and 1, without a
    measurement, on a CPU without bfloat16 instructions."""
    return timed_once(measurement_file(), cpu.features())


def measure(n: int = 1024, repeats: int = 7) -> dict[str, float]:
    """{"f32": GFLOP/s, "bf16": GFLOP/s} of a product of n x n matrices, best of `repeats`.

    It runs in its own thread, so it may be called while jax traces a function.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_measure, n, repeats).result()


def _measure(n: int, repeats: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    gflops = {}
    with jax.default_device(jax.devices("cpu")[0]):
        for name, dtype in (("f32", jnp.float32), ("bf16", jnp.bfloat16)):
            x = jnp.ones((n, n), dtype)
            f = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32))
            f(x, x).block_until_ready()
            best = float("inf")
            for _ in range(repeats):
                start = time.perf_counter()
                f(x, x).block_until_ready()
                best = min(best, time.perf_counter() - start)
            gflops[name] = round(2 * n**3 / best / 1e9, 1)
    return gflops


@functools.cache
def timed_once(
    path: pathlib.Path,
    features: frozenset[str],
    measure: Callable[[], dict[str, float]] = measure,
) -> dict[str, float]:
    """The measurement in the file `path`; if it does not exist, the result of `measure`, stored
    there.

    Args:
      path: see `measurement_file`.
      features: CPU flags; nothing is measured without one of cpu.BF16_FLAGS.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        pass
    if not features & set(cpu.BF16_FLAGS) or sys.platform != "linux":
        return {"f32": 1.0, "bf16": 1.0}
    gflops = measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, json.dumps(gflops))
    except OSError:
        pass
    return gflops
