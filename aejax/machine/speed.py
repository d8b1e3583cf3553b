"""How fast this CPU multiplies, in float32 and in bfloat16: it decides the forms of nets/ops.

Importing this module imports no jax.
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
    """How many times faster a product is in bfloat16 than in float32: 1 on a CPU without the
    instructions, else timed.

    The timing takes a quarter of a second, once per kind of CPU and version of jax: it is kept in
    `cache_folder()`.
    """
    gflops = measured()
    return gflops["bf16"] / gflops["f32"]


def measurement_file() -> pathlib.Path:
    """Where the timing of this CPU with this version of jax is kept, as JSON."""
    import jax

    return cache_folder() / f"speed-{cpu.identifier()}-jax{jax.__version__}.json"


def measured() -> dict[str, float]:
    """GFLOP/s of a matrix product in float32 and bfloat16: {"f32": 1, "bf16": 1}, not timed, on a
    CPU without instructions for bfloat16."""
    return timed_once(measurement_file(), cpu.features())


def measure(n: int = 1024, repeats: int = 7) -> dict[str, float]:
    """{"f32": GFLOP/s, "bf16": GFLOP/s} of an n x n product on the CPU, the best of `repeats`.

    Safe to call while jax traces: a trace belongs to its thread, so this works in one of its own.
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
    """What `path` holds; else what `measure` returns, kept there.

    Args:
      path: a `measurement_file()`, or none yet.
      features: the CPU's flags; without one of cpu.BF16_FLAGS nothing is timed.
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
