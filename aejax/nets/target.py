"""The platform that a program is compiled *for*, which need not be where it is compiled.

Forms of operations and the unrolling of loops depend on it. It is the default backend's, unless
`compiling_for` says otherwise, as `Sharding.lower` does for the devices of its mesh.
"""

import contextlib
from collections.abc import Generator

import jax

# A user context is part of jit's cache key: the same function for two targets is traced twice.
_platform = jax.make_user_context("")


def platform() -> str:
    """The platform that what is traced now will run on: "cpu", "gpu" or "tpu"."""
    if _platform.value:
        return _platform.value
    # pyrefly: ignore [missing-attribute]
    device = jax.config.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Generator[None]:
    """Within it everything is traced for that platform, such as "tpu" in a process without one."""
    with _platform(platform):
        yield
