"""Weights small enough to ship: large kernels in 8 bits with a scale per output channel, the
rest in half precision. `aejax eval-denoise SET --model auto runs/NAME` shows what that costs."""

from typing import Any

import numpy as np

from aejax.types import Variables

LARGE = 1 << 14  # kernels with more entries than this are quantised


def packed(variables: Variables) -> Variables:
    """Float32 variables -> float16, and {"q": int8, "scale": float16} for large kernels."""

    def pack(node: Any) -> Any:
        if isinstance(node, dict) or hasattr(node, "items"):
            return {k: pack(v) for k, v in node.items()}
        w = np.asarray(node, np.float32)
        if w.size <= LARGE or w.ndim < 2:
            return w.astype(np.float16)
        scale = np.abs(w).max(tuple(range(w.ndim - 1))) / 127
        scale = np.maximum(scale, 1e-7).astype(np.float16)
        q = np.clip(np.round(w / scale.astype(np.float32)), -127, 127).astype(np.int8)
        return {"q": q, "scale": scale}

    return pack(variables)


def unpacked(variables: Variables) -> Variables:
    """The inverse, float32 everywhere; what was never packed comes back as float32."""

    def unpack(node: Any) -> Any:
        if isinstance(node, dict):
            if set(node) == {"q", "scale"}:
                return np.asarray(node["q"], np.float32) * np.asarray(node["scale"], np.float32)
            return {k: unpack(v) for k, v in node.items()}
        return np.asarray(node, np.float32)

    return unpack(variables)
