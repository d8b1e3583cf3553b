"""The transforms: analysis g_a = f_E and synthesis g_s = f_D.

All work is done at 1/8 and 1/16 of the image's side, after pixel unshuffle, by blocks of 1x1
products, a depthwise 3x3 and a gate (DCVC-RT, arXiv 2502.20762): on a CPU nothing else comes near
in decibels per second. Both transforms have a linear path, which starts as the KLT of 16x16 blocks
of the training images, and a network beside it that starts at zero: before its first step the model
is a JPEG without tables.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.codec.quality import KNOTS, at_quality
from aejax.nets import ops

STRIDE = 16  # pixels per side of one latent
# Adam changes every stored weight by about the same amount. These two keep its steps small where
# they matter most: in the KLT, whose inputs all swing together with the picture's brightness, and
# in the last layers, whose input is not normalised. Without them a run at 1e-3 diverged for a
# hundred steps.
KLT_SCALE = 64.0  # of the stored KLT
LAST_SCALE = 8.0  # of the last layers' stored weights


def dense_init(scale: float = 1.0):
    """Normal of standard deviation scale / sqrt(fan in)."""
    return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")


class Mix(nn.Module):
    """1x1 convolution: [..., c] -> [..., features]. scale: of the initial weights."""

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
    """Two residual branches with gates: 6 c^2 products per position.

        x --norm--> 1x1 to 2c --depthwise 3x3--> a * sigmoid(b) --1x1--> + x = x'
        x' --norm--> 1x1 to 2c --> a * sigmoid(b) --1x1--> + x'

    A copy of aejax.nets.blocks' gated block, as shipped weights pin every detail of this one.
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
    """g_a: x [b, H, W, c] in [0, 1], H and W multiples of 16 -> h [b, H/16, W/16, latent].

        x --unshuffle 16, KLT---------------------------------------------------> + --> h
        x --unshuffle 8, 1x1--> blocks at 1/8 --unshuffle 2, 1x1--> blocks at 1/16 --1x1--^

    Attributes:
      latent: channels of h.
      width, blocks: channels and number of blocks at 1/8 and at 1/16.
    """

    latent: int = 320
    width: Sequence[int] = (192, 256)  # at 1/8, at 1/16
    blocks: Sequence[int] = (5, 3)
    dtype: DTypeLike = jnp.float32

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
            tune = self.param(f"quality{i}", zeros, (KNOTS, width))
            u = u * jnp.exp(at_quality(tune, quality)).astype(u.dtype)
            for _ in range(blocks):
                u = Block()(u)
        return linear + Mix(self.latent, scale=0.1)(u).astype(jnp.float32) * (1.0 / LAST_SCALE)


class Synthesis(nn.Module):
    """g_s: h_hat [b, h, w, latent] -> x_hat [b, 16 h, 16 w, c], about [0, 1], not clipped.

        h_hat --KLT, shuffle 16------------------------------------------------------> + --> x_hat
        h_hat --weigh, 1x1--> blocks at 1/16 --1x1, shuffle 2--> blocks at 1/8 --1x1, shuffle 8--^

    Attributes: as of `Analysis`; channels: of x_hat.
    """

    latent: int = 320
    width: Sequence[int] = (192, 256)  # at 1/8, at 1/16
    blocks: Sequence[int] = (3, 2)
    channels: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h_hat: Float[Array, "b h w k"], cond: dict, train: bool = False):
        shape = (self.latent, STRIDE**2 * self.channels)
        klt = self.param("klt", dense_init(KLT_SCALE), shape)
        linear = ops.dense(h_hat, klt * (1.0 / KLT_SCALE))
        quality, zeros = cond["quality"], nn.initializers.zeros
        # The latents' own sizes differ by a thousand; `weigh` starts as one over the deviations.
        weigh = self.param("weigh", nn.initializers.ones, (self.latent,))
        u = (h_hat * weigh).astype(self.dtype)
        for i, (width, blocks) in reversed(
            list(enumerate(zip(self.width, self.blocks, strict=True)))
        ):
            top = i == len(self.width) - 1
            u = Mix(width)(u) if top else ops.shuffle(Mix(4 * width)(u), 2)
            tune = self.param(f"quality{i}", zeros, (KNOTS, width))
            u = u * jnp.exp(at_quality(tune, quality)).astype(u.dtype)
            for _ in range(blocks):
                u = Block()(u)
        net = Mix(64 * self.channels, scale=0.1)(u).astype(jnp.float32) * (1.0 / LAST_SCALE)
        return ops.shuffle(linear, STRIDE) + ops.shuffle(net, 8) + 0.5
