"""Encoder and decoder of VQGAN (Esser et al. 2021, arXiv 2012.09841) and of latent diffusion
(Rombach et al. 2022, arXiv 2112.10752, f4 to f16).

Differences: RMSNorm of each pixel instead of group norm, pixel unshuffle instead of strided
convolutions, and residual branches whose last convolution is initialised with zeros. `widths` are
the channels of the levels, from full resolution down; n levels have a stride of 2^(n-1).
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
    """A residual block, [b, h, w, c] -> [b, h, w, features].

            ┌──────┐  ┌──────┐  ┌──────┐  ┌──────┐  ┌──────┐  ┌──────┐
        x─┬►│ norm ├─►│ silu ├─►│ conv ├─►│ norm ├─►│ silu ├─►│ conv ├─►(+)─►
          │ └──────┘  └──────┘  └──────┘  └──────┘  └──────┘  └──────┘   ▲
          └──────────────────────────────────────────────────────────────┘

    If the channels differ, a 1x1 convolution is on the skip connection.
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
    """Residual block, attention over all positions, residual block: [b, h, w, c] -> the same
    shape."""

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
    """x [b, H, W, c] -> h [b, H/s, W/s, latent], s = 2^(len(widths) - 1).

           ┌──────┐  ┌───────────────────────────────┐  ┌────────┐  ┌────────────┐  ┌─────┐
        x─►│ conv ├─►│ for each level: downsample    ├─►│ middle ├─►│ norm, silu ├─►│ 1x1 ├─►h
           └──────┘  │ (but the first), residual * n │  └────────┘  └────────────┘  └─────┘
                     └───────────────────────────────┘

    Attributes:
      widths: channels of the levels.
      depth: n, residual blocks per level.
      heads: of the attention in the middle block.
      remat: store only the input of each residual block for the backward pass.

    Raises:
      UserError: sides that are not multiples of s.
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
    """h [b, H/s, W/s, latent] -> y [b, H, W, c]; the levels of VQGANEncoder in reverse.

           ┌─────┐  ┌────────┐  ┌──────────────────────────────┐  ┌────────────┐  ┌──────┐
        h─►│ 1x1 ├─►│ middle ├─►│ for each level:              ├─►│ norm, silu ├─►│ conv ├─►y
           └─────┘  └────────┘  │ residual * (n + 1), upsample │  └────────────┘  └──────┘
                                │ (but the last)               │
                                └──────────────────────────────┘

    Attributes:
      shape: (H, W, c) of the images.
      widths, depth, heads, remat: as in VQGANEncoder; `widths` in the same order.
    """

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
