"""The platform that a program is compiled for, which may differ from the one that compiles it.

The forms of operations (nets/ops) and the unrolling of loops depend on it. It is that of the
default backend unless `compiling_for` is active, as in `Sharding.lower`.
"""

import contextlib
from collections.abc import Generator

import jax

# A user context is part of jit's cache key: the same function for two targets is traced twice.
_platform = jax.make_user_context("")


def platform() -> str:
    """The platform that the function being traced will run on: "cpu", "gpu" or "tpu".

    >>> with compiling_for("tpu"):
    ...     print(platform())
    tpu
    """
    if _platform.value:
        return _platform.value
    # pyrefly: ignore [missing-attribute]
    device = jax.config.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Generator[None]:
    """Within this context functions are traced for `platform`, such as "tpu" in a process without
    TPU."""
    with _platform(platform):
        yield
