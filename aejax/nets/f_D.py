"""Decoders y = f_D(h), the counterparts of the encoders in f_E.py.

`shape` is (H, W, c) of the images. The output of a decoder of spatial latents has multiples of the
stride as sides; AutoEncoder crops it to the size of x.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.nets import blocks, ops
from aejax.nets.f_E import ACTIVATIONS
from aejax.nets.vit import ViTDecoder
from aejax.nets.vqgan import VQGANDecoder
from aejax.types import Cond


class DenseDecoder(nn.Module):
    """An MLP: h [b, k] -> y [b, H, W, c].

           ┌───────┐  ┌─────┐       ┌───────┐  ┌─────────┐
        h─►│ dense ├─►│ act ├─►...─►│ dense ├─►│ reshape ├─►y
           └───────┘  └─────┘       └───────┘  └─────────┘

    Attributes:
      hidden: widths of the hidden layers.
      activation, output_activation: names in f_E.ACTIVATIONS.
      rank: of all matrices; 0 = full rank.
    """

    shape: Sequence[int]
    hidden: Sequence[int] = (512, 1024)
    activation: str = "gelu"
    output_activation: str = "identity"
    rank: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b k"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        act = ACTIVATIONS[self.activation]
        for width in self.hidden:
            h = act(blocks.dense_of_rank(width, self.rank, self.dtype)(h))
        y = blocks.dense_of_rank(math.prod(self.shape), self.rank, self.dtype)(h)
        return ACTIVATIONS[self.output_activation](y).reshape(-1, *self.shape)


class LinearDecoder(nn.Module):
    """One affine map to the whole image, or with `patch` to each block of patch x patch pixels:
    h [b, k] or [b, H/patch, W/patch, k] -> y [b, H, W, c]."""

    shape: Sequence[int]
    patch: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *h k"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        if self.patch:
            width = self.patch**2 * self.shape[-1]
            return ops.shuffle(blocks.Dense(width, dtype=self.dtype, name="linear")(h), self.patch)
        y = blocks.Dense(math.prod(self.shape), dtype=self.dtype, name="linear")(h)
        return y.reshape(-1, *self.shape)


class ConvDecoder(nn.Module):
    """The levels of ConvEncoder in reverse: h [b, k] or [b, H/s, W/s, k] -> y [b, H, W, c].

           ┌───────┐  ┌─────────────────┐  ┌──────────┐
        h─►│ dense ├─►│ residual blocks ├─►│ upsample ├─►... (for each level) ─►y
           └───────┘  └─────────────────┘  └──────────┘

    Attributes:
      widths: channels of the levels, in the order of the encoder; s = 2^len(widths).
      depth: residual blocks per level.
      spatial: whether h is a map.
      output_activation: name in f_E.ACTIVATIONS.
    """

    shape: Sequence[int]
    widths: Sequence[int] = (32, 64)
    depth: int = 1
    spatial: bool = False
    output_activation: str = "identity"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *h k"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        stride = 2 ** len(self.widths)
        deepest = self.widths[-1]
        if self.spatial:
            x = blocks.Dense(deepest, dtype=self.dtype)(h)
        else:
            rows, columns = math.ceil(self.shape[0] / stride), math.ceil(self.shape[1] / stride)
            x = blocks.Dense(rows * columns * deepest, dtype=self.dtype)(h)
            x = x.reshape(-1, rows, columns, deepest)
        outputs = (self.shape[-1], *self.widths[:-1])
        for width, output in zip(self.widths[::-1], outputs[::-1], strict=True):
            for _ in range(self.depth):
                x = blocks.ResBlock(width, dtype=self.dtype)(x)
            x = blocks.Upsample(output, dtype=self.dtype)(x)
        if not self.spatial:
            x = x[:, : self.shape[0], : self.shape[1]]
        return ACTIVATIONS[self.output_activation](x)


class ResidualDecoder(nn.Module):
    """y = linear(h) + scale * net(h), where scale [c] starts at zero; see ResidualEncoder."""

    linear: nn.Module
    net: nn.Module

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *h k"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        y = self.linear(h, cond, train)
        scale = self.param("scale", nn.initializers.zeros, y.shape[-1:])
        return y + scale * self.net(h, cond, train)


F_D = {
    "linear": LinearDecoder,
    "dense": DenseDecoder,
    "conv": ConvDecoder,
    "vit": ViTDecoder,
    "vqgan": VQGANDecoder,
}
