"""The codec: images <-> .aej streams. `aejax.codec.encode`, `decode`, `read`, `info`; see api.py.

Nothing heavy is imported until one of them is used.
"""

from typing import Any

__all__ = ["CodecError", "CutFile", "Decoded", "TargetMissed", "encode", "decode", "read", "info",
           "use", "verify"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aejax.codec import api

    return getattr(api, name)
