"""Linen modules made of `ops`: what encoders, decoders and denoisers are built from.

Every module computes in `dtype` with float32 parameters. `bias_free=True` leaves out everything
that is added, so that the module is positively homogeneous, f(a x) = a f(x) for a > 0, which makes
blind denoisers hold beyond the noise they were trained on (Mohan et al., 2020, arXiv:1906.05478):
exactly for Dense, Conv, DepthwiseConv, Upsample, Downsample, and with relu PlainBlock and ResBlock;
up to the norm's eps for GatedBlock, which gives each pixel its scale back after the gate; never for
LayerNorm.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.nets import ops

Init = Callable[..., Array]
# Variance 1/fan_in: with residual branches that start at zero no gain is needed.
default_init = nn.initializers.lecun_normal()
zeros = nn.initializers.zeros_init()


def _with_bias(module: nn.Module, y: Array, use: bool) -> Array:
    if not use:
        return y
    return ops.add_bias(y, module.param("bias", zeros, (y.shape[-1],), jnp.float32))


def recomputed(module: type[nn.Module]) -> type[nn.Module]:
    """The class of an f_E or f_D that keeps only its inputs for the backward pass, and computes
    what is inside again then (Chen et al. 2016, arXiv:1604.06174). Parameters keep their names.

    It pays on TPUs and GPUs; XLA for CPUs finds what is computed twice and keeps it after all.
    """
    return nn.remat(module, static_argnums=(3,))  # (self, x, cond, train)


class Dense(nn.Module):
    """[..., c] -> [..., features]: fully connected, or a 1x1 convolution."""

    features: int
    use_bias: bool = True
    bias_free: bool = False
    dtype: DTypeLike = jnp.float32
    init: Init = default_init  # pyrefly: ignore

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... o"]:
        w = self.param("kernel", self.init, (x.shape[-1], self.features), jnp.float32)
        y = ops.dense(x.astype(self.dtype), w)
        return _with_bias(self, y, self.use_bias and not self.bias_free)


class LowRankDense(nn.Module):
    """[..., c] -> [..., features] by a matrix of rank at most `rank`, kept as two: (c + features)
    rank multiplications instead of c features. `aejax shrink --rank` starts it from one by SVD."""

    features: int
    rank: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... o"]:
        u = Dense(self.rank, use_bias=False, dtype=self.dtype, name="u")(x)
        return Dense(self.features, dtype=self.dtype, name="v")(u)


def dense_of_rank(features: int, rank: int, dtype: DTypeLike) -> nn.Module:
    """A Dense, or with a rank above 0 a LowRankDense."""
    return LowRankDense(features, rank, dtype) if rank else Dense(features, dtype=dtype)


class Conv(nn.Module):
    """[b, h, w, c] -> [b, h/stride, w/stride, features], zeros around the picture."""

    features: int
    kernel: int = 3
    stride: int = 1
    use_bias: bool = True
    bias_free: bool = False
    dtype: DTypeLike = jnp.float32
    init: Init = default_init  # pyrefly: ignore

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        w = self.param("kernel", self.init, shape, jnp.float32)
        y = ops.conv(x.astype(self.dtype), w, self.stride)
        return _with_bias(self, y, self.use_bias and not self.bias_free)


class DepthwiseConv(nn.Module):
    """Each channel with its own kernel, [b, h, w, c] -> [b, h, w, c]."""

    kernel: int = 3
    use_bias: bool = True
    bias_free: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        k = self.kernel
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1))
        w = self.param("kernel", lambda key, s, d: init(key, (*s[:2], 1, s[2]), d)[:, :, 0],
                       (k, k, x.shape[-1]), jnp.float32)  # fmt: skip
        y = ops.depthwise(x.astype(self.dtype), w)
        return _with_bias(self, y, self.use_bias and not self.bias_free)


class LayerNorm(nn.Module):
    """Each pixel divided by the root mean square of its channels, with a learned scale."""

    eps: float = 1e-6
    dtype: DTypeLike = jnp.float32
    bias_free: bool = False  # it adds nothing in either case; the norm forgets scale by design

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
        return ops.channel_norm(x.astype(self.dtype), scale, self.eps)


class Downsample(nn.Module):
    """[b, h, w, c] -> [b, h/factor, w/factor, features]: pixels to channels, then a convolution."""

    features: int
    factor: int = 2
    kernel: int = 1
    use_bias: bool = True
    bias_free: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h/f w/f o"]:
        x = ops.unshuffle(x.astype(self.dtype), self.factor)
        return Conv(self.features, self.kernel, 1, self.use_bias, self.bias_free, self.dtype)(x)


class Upsample(nn.Module):
    """[b, h, w, c] -> [b, h*factor, w*factor, features]: a convolution, then channels to pixels."""

    features: int
    factor: int = 2
    kernel: int = 1
    use_bias: bool = True
    bias_free: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h*f w*f o"]:
        n = self.features * self.factor**2
        x = Conv(n, self.kernel, 1, self.use_bias, self.bias_free, self.dtype)(x)
        return ops.shuffle(x, self.factor)


class ResBlock(nn.Module):
    """x + conv(act(conv(x))), the last convolution zero at the start: the identity.

        x --conv, act--> conv --> + x (through 1x1 if the channels differ)

    `features` other than x's channels puts a 1x1 convolution on the skip. With `bias_free` and
    relu it is exactly homogeneous; with gelu it is not.
    """

    features: int | None = None
    kernel: int = 3
    activation: Callable = jax.nn.relu
    bias_free: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        kw = {"bias_free": self.bias_free, "dtype": self.dtype}
        x = x.astype(self.dtype)
        n = self.features or x.shape[-1]
        y = self.activation(Conv(n, self.kernel, **kw)(x))
        y = Conv(n, self.kernel, init=zeros, **kw)(y)
        return (x if n == x.shape[-1] else Dense(n, use_bias=False, dtype=self.dtype)(x)) + y


class PlainBlock(nn.Module):
    """x + conv(act(x)), zero at the start: the identity.

    One activation for each convolution instead of one for two (`ResBlock`), which networks of few
    layers make use of. With `bias_free` and relu it is exactly homogeneous.
    """

    kernel: int = 3
    activation: Callable = jax.nn.relu
    bias_free: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = x.astype(self.dtype)
        kw = {"bias_free": self.bias_free, "dtype": self.dtype}
        return x + Conv(x.shape[-1], self.kernel, init=zeros, **kw)(self.activation(x))


def gate(x: Float[Array, "... 2*c"]) -> Float[Array, "... c"]:
    """The product of the two halves of the channels (SimpleGate of NAFNet)."""
    a, b = jnp.split(x, 2, -1)
    return a * b


class GatedBlock(nn.Module):
    """Two residual branches with gates.

        x --norm, 1x1, depthwise--> gate --1x1--> + x = x'
        x' --norm, 1x1--> gate --1x1--> + x'

    NAFNet's block (Chen et al., 2022, arXiv:2204.04676) without its global pooling. Both branches
    are zero at the start. With expand e: 3 e c^2 + k^2 e c multiply-adds per pixel.
    `bias_free` has no biases and multiplies each branch by the scale that the norm took from the
    pixel: f(a x) = a f(x) wherever the pixel's mean square is well above `eps`.
    """

    expand: int = 2
    kernel: int = 3
    bias_free: bool = False
    eps: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        c = x.shape[-1]
        kw = {"bias_free": self.bias_free, "dtype": self.dtype}
        x = x.astype(self.dtype)
        for mix in (True, False):
            y = ops.channel_norm(x, eps=self.eps)
            # A bias before the depthwise convolution's own would be told apart only at the border.
            y = Dense(self.expand * c, use_bias=not mix, **kw)(y)
            if mix:
                y = DepthwiseConv(self.kernel, **kw)(y)
            y = Dense(c, init=zeros, **kw)(gate(y))
            if self.bias_free:
                ms = jnp.mean(jnp.square(x.astype(jnp.float32)), -1, keepdims=True)
                y = y * jnp.sqrt(ms + self.eps).astype(self.dtype)
            x = x + y
        return x
