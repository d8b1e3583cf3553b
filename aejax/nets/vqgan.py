"""The convolutional pair of today's tokenizers: residual blocks, attention at the lowest level.

As VQGAN (Esser et al. 2021, arXiv 2012.09841) and latent diffusion (Rombach et al. 2022, arXiv
2112.10752, f4 to f16) have it, with norms that divide each pixel by the root mean square of its
channels in place of group norms, pixels to channels in place of strides, and branches that start at
zero. `widths` are those of the levels, from full size down: n of them make a stride of 2^(n-1).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.nets import blocks
from aejax.nets.vit import Attention
from aejax.types import Cond


class Residual(nn.Module):
    """A residual branch, zero at the start: [b, h, w, c] -> [b, h, w, features].

    x --norm, silu, 3x3--> norm, silu, 3x3 --> + x (through 1x1 if the channels differ)
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        n, dtype = self.features, self.dtype
        y = nn.silu(blocks.LayerNorm(dtype=dtype, name="norm1")(x))
        y = blocks.Conv(n, dtype=dtype, name="conv1")(y)
        y = nn.silu(blocks.LayerNorm(dtype=dtype, name="norm2")(y))
        y = blocks.Conv(n, dtype=dtype, init=blocks.zeros, name="conv2")(y)
        if n != x.shape[-1]:
            x = blocks.Dense(n, use_bias=False, dtype=dtype, name="skip")(x)
        return x + y


class Middle(nn.Module):
    """x -> Residual -> attention over all positions -> Residual, of one shape."""

    heads: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        x = Residual(c, self.dtype, name="residual1")(x)
        y = blocks.LayerNorm(dtype=self.dtype, name="norm")(x).reshape(b, h * w, c)
        x = x + Attention(self.heads, self.dtype, name="attention")(y).reshape(x.shape)
        return Residual(c, self.dtype, name="residual2")(x)


class VQGANEncoder(nn.Module):
    """[b, H, W, c] -> [b, H/s, W/s, latent], s = 2^(len(widths) - 1).

    Attributes:
      depth: residual blocks of a level. heads: of the attention.
      remat: keep only each level's input for the backward pass.

    Raises:
      UserError: sides that are no multiples of the stride.
    """

    latent: int
    widths: Sequence[int] = (128, 256, 512, 512)
    depth: int = 2
    heads: int = 1
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b h w k"]:
        stride = 2 ** (len(self.widths) - 1)
        if x.shape[1] % stride or x.shape[2] % stride:
            raise UserError(f"a picture of {x.shape[1]}x{x.shape[2]} does not divide by {stride}; "
                            "set data.crop or data.size")  # fmt: skip
        block = nn.remat(Residual) if self.remat else Residual
        x = blocks.Conv(self.widths[0], dtype=self.dtype, name="head")(2.0 * x - 1.0)
        for i, width in enumerate(self.widths):
            if i:
                x = blocks.Downsample(width, dtype=self.dtype, name=f"down{i}")(x)
            for j in range(self.depth):
                x = block(width, self.dtype, name=f"level{i}_{j}")(x)
        x = Middle(self.heads, self.dtype, name="middle")(x)
        x = nn.silu(blocks.LayerNorm(dtype=self.dtype, name="norm")(x))
        return blocks.Dense(self.latent, name="latent")(x)


class VQGANDecoder(nn.Module):
    """The mirror, one block more in each level: h [b, H/s, W/s, latent] -> y [b, H, W, c];
    `widths` in the encoder's order."""

    shape: Sequence[int]
    widths: Sequence[int] = (128, 256, 512, 512)
    depth: int = 2
    heads: int = 1
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b h w k"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b H W c"]:
        block = nn.remat(Residual) if self.remat else Residual
        x = blocks.Dense(self.widths[-1], dtype=self.dtype, name="latent")(h)
        x = Middle(self.heads, self.dtype, name="middle")(x)
        for i, width in reversed(list(enumerate(self.widths))):
            for j in range(self.depth + 1):
                x = block(width, self.dtype, name=f"level{i}_{j}")(x)
            if i:
                x = blocks.Upsample(self.widths[i - 1], dtype=self.dtype, name=f"up{i}")(x)
        x = nn.silu(blocks.LayerNorm(dtype=self.dtype, name="norm")(x))
        y = blocks.Conv(self.shape[-1], dtype=self.dtype, name="pixels")(x)
        return 0.5 + 0.5 * y.astype(jnp.float32)
