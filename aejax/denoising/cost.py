"""Number of multiply-accumulates (MACs) of a denoiser."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax.metrics.cost import macs
from aejax.nets.applied import applied


def macs_per_pixel(model: nn.Module, channels: int, side: int = 256) -> float:
    """MACs of convolutions and dense layers per pixel of a square image.

    Args:
      channels: of the image.
      side: of the image in pixels; a multiple of the model's stride, or the padding is counted.
    """
    x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    cond = {"sigma": jax.ShapeDtypeStruct((1,), jnp.float32)}
    variables = jax.eval_shape(lambda x, c: model.init(jax.random.key(0), x, c), x, cond)
    return macs(lambda v, x, c: applied(model, v, x, c).y, variables, x, cond) / side**2
