"""Multiply-accumulates of a denoiser."""

from typing import Any

import jax
import jax.numpy as jnp

from aejax.metrics.cost import macs


def macs_per_pixel(model: Any, channels: int, side: int = 256) -> float:
    """Multiply-accumulates of convolutions and dense layers per pixel of a square image."""
    x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    cond = {"sigma": jax.ShapeDtypeStruct((1,), jnp.float32)}
    variables = jax.eval_shape(lambda x, c: model.init(jax.random.key(0), x, c), x, cond)
    return macs(lambda v, x, c: model.apply(v, x, c).y, variables, x, cond) / side**2
