"""The codec: images <-> .aej files. `aejax.codec.encode`, `decode`, `read`, `info`; see api.py.

JAX and NumPy are imported when one of them is first used.
"""

from typing import Any

__all__ = ["CodecError", "CutFile", "Decoded", "TargetMissed", "encode", "decode", "read", "info",
           "use", "verify"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aejax.codec import api

    return getattr(api, name)
