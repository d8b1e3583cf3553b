"""The process environment that decides the speed of JAX on a CPU. Imports no jax."""

import functools


@functools.cache
def cpu_features() -> frozenset[str]:
    """The CPU's flags as /proc/cpuinfo spells them ("avx512f", "amx_bf16"); empty if unknown."""
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("flags"):
                    return frozenset(line.split(":")[1].split())
    except OSError:
        pass
    return frozenset()


@functools.cache
def has_amx() -> bool:
    """Whether bfloat16 matrix units are there and worth using."""
    return "amx_bf16" in cpu_features()
