"""Operations per channel: sums, biases, scales, normalisation."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from aejax.nets.ops.choice import form


def _sum_plain(x: Array) -> Array:
    return x.sum(tuple(range(x.ndim - 1)))


def _sum_cpu(x: Array) -> Array:
    # XLA:CPU reduces to c values in one thread: sum each image first, in parallel.
    if x.ndim < 3:
        return _sum_plain(x)
    return lax.optimization_barrier(x.sum(tuple(range(1, x.ndim - 1)))).sum(0)


def channel_sum(x: Float[Array, "b ... c"]) -> Float[Array, " c"]:
    """The sum of each channel over the batch and all positions.

    >>> channel_sum(jnp.ones((2, 4, 4, 3))).tolist()
    [32.0, 32.0, 32.0]
    """
    return (_sum_plain if form("channel_sum", x) == "plain" else _sum_cpu)(x)


@jax.custom_vjp
def _bias_cpu(x: Array, b: Array) -> Array:
    return x + b


def _bias_fwd(x, b):
    return x + b, None


def _bias_bwd(_, g):
    return g, _sum_cpu(g)


_bias_cpu.defvjp(_bias_fwd, _bias_bwd)


def add_bias(x: Float[Array, "b ... c"], b: Float[Array, " c"]) -> Float[Array, "b ... c"]:
    """x + b, where the gradient of b is computed by `channel_sum`."""
    b = b.astype(x.dtype)
    return x + b if form("channel_sum", x) == "plain" else _bias_cpu(x, b)


@jax.custom_vjp
def _scale_cpu(x: Array, s: Array) -> Array:
    return x * s


def _scale_fwd(x, s):
    return x * s, (x, s)


def _scale_bwd(saved, g):
    x, s = saved
    return g * s, _sum_cpu(g * x)


_scale_cpu.defvjp(_scale_fwd, _scale_bwd)


def channel_norm(
    x: Float[Array, "b ... c"], scale: Float[Array, " c"] | None = None, eps: float = 1e-6
) -> Float[Array, "b ... c"]:
    """RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467): each pixel divided by the root mean
    square of its channels, times `scale` if given.

    A dense layer after it can represent a `scale` itself. The gradient is that of XLA, as custom
    ones were slower inside a block.

    Args:
      eps: added to the mean square.
    """
    x32 = x.astype(jnp.float32)
    y = x32 * lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + eps)
    if scale is not None:
        plain = form("channel_sum", x) == "plain"
        y = y * scale if plain else _scale_cpu(y, scale.astype(jnp.float32))
    return y.astype(x.dtype)
