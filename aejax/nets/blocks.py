"""Layers and blocks of encoders, decoders and denoisers, as Linen modules that use `nets.ops`.

Every module computes in `dtype` with float32 parameters.

`bias_free=True` removes all additive constants, which makes a module positively homogeneous:
f(a x) = a f(x) for a > 0. Blind denoisers then generalise to noise levels outside the training
range (Mohan et al., 2020, arXiv:1906.05478). It holds exactly for Dense, Conv, DepthwiseConv,
Upsample, Downsample and, with relu, PlainBlock and ResBlock; up to the eps of the norm for
GatedBlock, which multiplies by the scale of each pixel after the gate; not for LayerNorm.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.nets import ops

Init = Callable[..., Array]
# Variance 1/fan_in. Residual branches start at zero, so no gain is needed.
default_init = nn.initializers.lecun_normal()
zeros = nn.initializers.zeros_init()


def _with_bias(module: nn.Module, y: Array, use: bool) -> Array:
    if not use:
        return y
    return ops.add_bias(y, module.param("bias", zeros, (y.shape[-1],), jnp.float32))


def recomputed(module: type[nn.Module]) -> type[nn.Module]:
    """A class of f_E or f_D that stores only its inputs for the backward pass and recomputes its
    activations there (Chen et al. 2016, arXiv:1604.06174). Parameters keep their names.

    It saves memory on TPUs and GPUs, but not on CPUs, where XLA merges the two computations.
    """
    return nn.remat(module, static_argnums=(3,))  # (self, x, cond, train)


class Dense(nn.Module):
    """[..., c] -> [..., features]: a fully connected layer, or a 1x1 convolution."""

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
    """[..., c] -> [..., features] by a matrix of rank `rank`, stored as two factors.

    It has (c + features) * rank weights instead of c * features. `aejax shrink --rank` computes
    them from a trained Dense by SVD.
    """

    features: int
    rank: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... o"]:
        u = Dense(self.rank, use_bias=False, dtype=self.dtype, name="u")(x)
        return Dense(self.features, dtype=self.dtype, name="v")(u)


def dense_of_rank(features: int, rank: int, dtype: DTypeLike) -> nn.Module:
    """A LowRankDense if `rank` is above 0, else a Dense."""
    return LowRankDense(features, rank, dtype) if rank else Dense(features, dtype=dtype)


class Conv(nn.Module):
    """[b, h, w, c] -> [b, h/stride, w/stride, features]: a convolution with zero padding
    ("SAME")."""

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
    """[b, h, w, c] -> [b, h, w, c]: each channel is convolved with its own kernel, zero padding."""

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
    """RMSNorm: divides each pixel by the root mean square of its channels, times a learned scale.

    Zhang and Sennrich (2019, arXiv:1910.07467). `bias_free` has no effect: it is here because all
    blocks pass it.
    """

    eps: float = 1e-6
    dtype: DTypeLike = jnp.float32
    bias_free: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
        return ops.channel_norm(x.astype(self.dtype), scale, self.eps)


class Downsample(nn.Module):
    """[b, h, w, c] -> [b, h/factor, w/factor, features]: pixel unshuffle, then a convolution."""

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
    """[b, h, w, c] -> [b, h*factor, w*factor, features]: a convolution, then pixel shuffle."""

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
    """x + conv(act(conv(x))); the second convolution is initialised with zeros.

            ┌──────┐  ┌─────┐  ┌──────┐
        x─┬►│ conv ├─►│ act ├─►│ conv ├─►(+)─►
          │ └──────┘  └─────┘  └──────┘   ▲
          └───────────────────────────────┘

    If the channels differ, a 1x1 convolution is on the skip connection.

    Attributes:
      features: output channels; None = as x.
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
    """x + conv(act(x)); the convolution is initialised with zeros.

    It has one activation per convolution, `ResBlock` one for two: better in networks of few layers.
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
    """The product of the two halves of the channels (SimpleGate of NAFNet, arXiv:2204.04676)."""
    a, b = jnp.split(x, 2, -1)
    return a * b


class GatedBlock(nn.Module):
    """NAFNet's block (Chen et al., 2022, arXiv:2204.04676) without its global pooling.

            ┌──────┐  ┌─────┐  ┌───────────┐  ┌──────┐  ┌─────┐
        x─┬►│ norm ├─►│ 1x1 ├─►│ depthwise ├─►│ gate ├─►│ 1x1 ├─►(+)─►x'
          │ └──────┘  └─────┘  └───────────┘  └──────┘  └─────┘   ▲
          └───────────────────────────────────────────────────────┘
             ┌──────┐  ┌─────┐  ┌──────┐  ┌─────┐
        x'─┬►│ norm ├─►│ 1x1 ├─►│ gate ├─►│ 1x1 ├─►(+)─►
           │ └──────┘  └─────┘  └──────┘  └─────┘   ▲
           └────────────────────────────────────────┘

    The last convolution of both branches is initialised with zeros. With c channels, expansion e
    and kernel k it takes 3 e c^2 + k^2 e c multiply-adds per pixel.

    With `bias_free` each branch is multiplied by the root mean square that its norm divided by, so
    that f(a x) = a f(x) where the mean square of a pixel is well above `eps`.

    Attributes:
      expand: e, width of the first 1x1 convolution by that of x.
      kernel: side of the depthwise kernel, odd.
      eps: of the norm.
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
            # The depthwise convolution has a bias; one before it would differ at the border only.
            y = Dense(self.expand * c, use_bias=not mix, **kw)(y)
            if mix:
                y = DepthwiseConv(self.kernel, **kw)(y)
            y = Dense(c, init=zeros, **kw)(gate(y))
            if self.bias_free:
                ms = jnp.mean(jnp.square(x.astype(jnp.float32)), -1, keepdims=True)
                y = y * jnp.sqrt(ms + self.eps).astype(self.dtype)
            x = x + y
        return x
