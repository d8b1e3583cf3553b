"""Arithmetic whose result is the same bits on every machine, at the full speed of float units.

A decoder must choose its probability tables exactly as the encoder did, or everything after the
first wrong symbol is garbage (Balle, Johnston, Minnen, ICLR 2019). Integer convolutions are slow
everywhere; but a float32 sum of integers is exact, in any order, as long as it stays below 2^24,
and so are products of integers up to 256 in bf16 and TF32. So everything here is an integer times
a power of two::

  activation   n * 2^-4, |n| <= 127
  weight       n * 2^e,  |n| <= 127, e per output channel
  bias         n * 2^-8
  sum          up to 1,040 products, exact; then rounded to the next activation by adding a half
               and taking the floor, which is exact too.

In training the roundings pass the gradient and the forward values are the very ones of the decoder,
so nothing is approximated when a model is frozen.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.nets import ops

UNIT = 2.0**-4  # of activations
TOP = 127 * UNIT
BIAS_UNIT = 2.0**-8
MAX_TERMS = 1040  # 1040 * 127 * 127 < 2^24
EXPONENTS = (-12, -1)  # of weight units


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rounded(x: Float[Array, "..."], unit: float = 1.0) -> Float[Array, "..."]:
    """The multiple of `unit` (a power of two) next to x, halves upwards; gradient of the identity.

    Not written as x + stop_gradient(...): that sum itself would round.
    """
    return jnp.floor(x * (1.0 / unit) + 0.5) * unit


rounded.defvjp(lambda x, unit: (rounded(x, unit), None), lambda unit, _, g: (g,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def bounded(x: Float[Array, "..."], low: float, high: float) -> Float[Array, "..."]:
    """clip(x, low, high), whose gradient is lost only where it would push x further out."""
    return jnp.clip(x, low, high)


def _bounded_bwd(low, high, x, g):
    out = ((x < low) & (g > 0)) | ((x > high) & (g < 0))
    return (jnp.where(out, 0.0, g),)


bounded.defvjp(lambda x, low, high: (jnp.clip(x, low, high), x), _bounded_bwd)


def activation(x: Float[Array, "..."], low: float = -TOP) -> Float[Array, "..."]:
    """Rounds to activations in [low, TOP]; low = 0 is the rectifier of this arithmetic.

    A rectifier that is off passes no gradient. (With `bounded`'s, which brings back what is
    out of bounds, every unit that is off is pushed up and never down: lossless training stood still
    at 3.755 bits per sample; 600 steps with this one gave 3.672, with that one 3.743.)
    """
    if low == 0.0:
        return jnp.clip(rounded(x, UNIT), 0.0, TOP)
    return bounded(rounded(x, UNIT), low, TOP)


def companded(v: Float[Array, "..."]) -> Float[Array, "..."]:
    """Latents (multiples of 1/16, any size) as activations: |v| <= 4 as it is, then an eighth of
    the slope, up to 35."""
    size = jnp.abs(v)
    size = jnp.where(size <= 4.0, size, 4.0 + (size - 4.0) * 0.125)
    return jnp.sign(v) * jnp.minimum(jnp.floor(size * 16.0) * UNIT, TOP)


def weight_unit(w: Float[Array, "... o"]) -> Float[Array, " o"]:
    """2^e per output channel: the smallest unit in which every weight fits into 127."""
    top = jnp.max(jnp.abs(w), axis=tuple(range(w.ndim - 1)))
    # The margin keeps weights of exactly 127 units, already quantised ones, at 127 units.
    e = jnp.ceil(jnp.log2(jnp.maximum(top, 1e-9) / 127.0) - 1e-3)
    return jnp.ldexp(1.0, jnp.clip(e, *EXPONENTS).astype(jnp.int32))


@jax.custom_vjp
def quantised(w: Float[Array, "... o"]) -> Float[Array, "... o"]:
    """Weights as integers times 2^e; gradient of the identity."""
    unit = weight_unit(w)
    return jnp.clip(jnp.round(w / unit), -127, 127) * unit


quantised.defvjp(lambda w: (quantised(w), None), lambda _, g: (g,))


class Exact(nn.Module):
    """Base of the exact layers. `frozen` takes the stored weights as they are, which are then
    already integers times powers of two: re-deriving the units would be one more thing that two
    machines could disagree about."""

    frozen: bool = False

    def weight(self, name, init, shape):
        """A parameter as exact weights."""
        w = self.param(name, init, shape)
        return w if self.frozen else quantised(w)

    def bias(self, name, shape, init=nn.initializers.zeros):
        """A parameter as exact bias."""
        b = self.param(name, init, shape)
        return b if self.frozen else rounded(b, BIAS_UNIT)


class ExactDense(Exact):
    """[..., c] -> [..., features]: an exact sum, not yet rounded to an activation."""

    features: int = 0
    scale: float = 1.0  # of the initial weights
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... o"]:
        """x: activations."""
        if x.shape[-1] > MAX_TERMS:
            raise ValueError(f"{x.shape[-1]} terms in one sum: at most {MAX_TERMS} are exact")
        init = nn.initializers.variance_scaling(self.scale**2, "fan_in", "normal")
        y = ops.dense(x, self.weight("kernel", init, (x.shape[-1], self.features)))
        return ops.add_bias(y, self.bias("bias", (self.features,))) if self.use_bias else y


class ExactDepthwise(Exact):
    """3x3 per channel: an exact sum, not yet rounded."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """x: activations."""

        def init(key, shape, dtype=jnp.float32):
            return jnp.zeros(shape, dtype).at[1, 1].set(1.0) + 0.1 * jax.random.normal(key, shape)

        c = x.shape[-1]
        y = ops.depthwise(x, self.weight("kernel", init, (3, 3, c)))
        return ops.add_bias(y, self.bias("bias", (c,)))
