"""The transforms: analysis g_a = f_E and synthesis g_s = f_D.

The networks run at 1/8 and 1/16 of the resolution, after pixel unshuffle, and consist of 1x1
convolutions, depthwise 3x3 convolutions and gates (as DCVC-RT, arXiv 2502.20762), which are fast on
CPUs. Each transform adds a linear path and a network. The linear path is initialised with the KLT
of 16x16 blocks of the training images, the network with small weights: the untrained model is a
block transform codec, like JPEG with a KLT in place of the DCT.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.codec.quality import KNOTS, at_quality
from aejax.nets import ops

STRIDE = 16  # pixels per latent position, in each direction
# Some parameters are stored multiplied by a constant, which makes Adam's steps smaller by that
# factor: the KLT, whose inputs are strongly correlated by the brightness of the image, and the last
# layers, whose inputs are not normalised. Without this, the loss of a run at a learning rate of
# 1e-3 diverged and took 120 steps to recover.
KLT_SCALE = 64.0  # factor of the stored KLT
LAST_SCALE = 8.0  # factor of the stored weights of the last layers


def dense_init(scale: float = 1.0):
    """Normal initialiser of standard deviation scale / sqrt(fan in)."""
    return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")


class Mix(nn.Module):
    """1x1 convolution: [..., c] -> [..., features]; scale: see `dense_init`."""

    features: int
    scale: float = 1.0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        w = self.param("kernel", dense_init(self.scale), (x.shape[-1], self.features))
        y = ops.dense(x, w.astype(x.dtype)).astype(x.dtype)
        if self.use_bias:
            y = ops.add_bias(y, self.param("bias", nn.initializers.zeros, (self.features,)))
        return y


class Block(nn.Module):
    """Two gated residual branches, 6 c^2 multiplications per position.

        x --norm--> 1x1 to 2c --depthwise 3x3--> a * sigmoid(b) --1x1--> + x = x'
        x' --norm--> 1x1 to 2c --> a * sigmoid(b) --1x1--> + x'

    Separate from the gated block of aejax.nets.blocks, because files need this one unchanged.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        c = x.shape[-1]
        ones = nn.initializers.ones

        def depthwise(key, shape):
            return jnp.zeros(shape).at[1, 1].set(1.0) + 0.2 * jax.random.normal(key, shape)

        u = ops.channel_norm(x, self.param("norm1", ones, (c,)).astype(x.dtype), 1e-6)
        u = Mix(2 * c)(u)
        u = ops.depthwise(u, self.param("depthwise", depthwise, (3, 3, 2 * c)).astype(x.dtype))
        u = u[..., :c] * jax.nn.sigmoid(u[..., c:])
        x = x + Mix(c, scale=0.1)(u)
        u = ops.channel_norm(x, self.param("norm2", ones, (c,)).astype(x.dtype), 1e-6)
        u = Mix(2 * c)(u)
        return x + Mix(c, scale=0.1)(u[..., :c] * jax.nn.sigmoid(u[..., c:]))


class Analysis(nn.Module):
    """Analysis transform g_a: x [b, H, W, c] in [0, 1], H and W multiples of 16 -> h [b, H/16,
    W/16, latent].

        x --unshuffle 16, KLT---------------------------------------------------> + --> h
        x --unshuffle 8, 1x1--> blocks at 1/8 --unshuffle 2, 1x1--> blocks at 1/16 --1x1--^

    The input of each stage of blocks is multiplied by exp of a table by quality (quality0,
    quality1).

    Attributes:
      latent: channels of h.
      width, blocks: channels and number of blocks at 1/8 and at 1/16.
    """

    latent: int = 320
    width: Sequence[int] = (192, 256)
    blocks: Sequence[int] = (5, 3)
    dtype: DTypeLike = jnp.float32  # of the networks; the linear paths are float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], cond: dict, train: bool = False):
        x = x - 0.5
        shape = (STRIDE**2 * x.shape[-1], self.latent)
        klt = self.param("klt", dense_init(KLT_SCALE), shape)
        linear = ops.dense(ops.unshuffle(x, STRIDE), klt * (1.0 / KLT_SCALE))
        quality, zeros = cond["quality"], nn.initializers.zeros
        u = Mix(self.width[0], scale=2.0)(ops.unshuffle(x, 8).astype(self.dtype))
        for i, (width, blocks) in enumerate(zip(self.width, self.blocks, strict=True)):
            if i:
                u = Mix(width)(ops.unshuffle(u, 2))
            gain = self.param(f"quality{i}", zeros, (KNOTS, width))
            u = u * jnp.exp(at_quality(gain, quality)).astype(u.dtype)
            for _ in range(blocks):
                u = Block()(u)
        return linear + Mix(self.latent, scale=0.1)(u).astype(jnp.float32) * (1.0 / LAST_SCALE)


class Synthesis(nn.Module):
    """Synthesis transform g_s: h_hat [b, h, w, latent] -> x_hat [b, 16 h, 16 w, c], about in [0,
    1], not clipped.

        h_hat --KLT, shuffle 16------------------------------------------------------> + --> x_hat
        h_hat --weigh, 1x1--> blocks at 1/16 --1x1, shuffle 2--> blocks at 1/8 --1x1, shuffle 8--^

    Attributes as of `Analysis`; channels: of x_hat.
    """

    latent: int = 320
    width: Sequence[int] = (192, 256)
    blocks: Sequence[int] = (3, 2)
    channels: int = 3
    dtype: DTypeLike = jnp.float32  # of the networks; the linear paths are float32

    @nn.compact
    def __call__(self, h_hat: Float[Array, "b h w k"], cond: dict, train: bool = False):
        shape = (self.latent, STRIDE**2 * self.channels)
        klt = self.param("klt", dense_init(KLT_SCALE), shape)
        linear = ops.dense(h_hat, klt * (1.0 / KLT_SCALE))
        quality, zeros = cond["quality"], nn.initializers.zeros
        # Standard deviations of the channels differ by a factor of 1,000: `weigh` is initialised
        # with their inverses (klt_start).
        weigh = self.param("weigh", nn.initializers.ones, (self.latent,))
        u = (h_hat * weigh).astype(self.dtype)
        for i, (width, blocks) in reversed(
            list(enumerate(zip(self.width, self.blocks, strict=True)))
        ):
            is_first = i == len(self.width) - 1
            u = Mix(width)(u) if is_first else ops.shuffle(Mix(4 * width)(u), 2)
            gain = self.param(f"quality{i}", zeros, (KNOTS, width))
            u = u * jnp.exp(at_quality(gain, quality)).astype(u.dtype)
            for _ in range(blocks):
                u = Block()(u)
        residual = Mix(64 * self.channels, scale=0.1)(u).astype(jnp.float32) * (1.0 / LAST_SCALE)
        return ops.shuffle(linear, STRIDE) + ops.shuffle(residual, 8) + 0.5
