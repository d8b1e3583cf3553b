"""Encoders h = f_E(x). f_D.py has a decoder of the same name for each.

    linear  one affine map; the optimum spans the subspace of PCA (Baldi and Hornik, 1989)
    dense   an MLP (Hinton and Salakhutdinov, 2006)
    conv    levels of 3x3 residual blocks, each at half the resolution of the one before
    vqgan   the same with norms, and attention at the lowest resolution (vqgan.py)
    vit     a transformer over patches, to a grid of codes or to a few for the whole image (vit.py)

Encoders with vector latents take images of the size that they were initialised with. Encoders with
spatial latents take other sizes too, except `vit` with learned positions; `linear` and `conv` pad
to multiples of their stride, `vit` and `vqgan` require them.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.nets import blocks, ops
from aejax.nets.vit import ViTEncoder
from aejax.nets.vqgan import VQGANEncoder
from aejax.types import Cond

ACTIVATIONS: dict[str, Callable] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "identity": lambda x: x,
}


class DenseEncoder(nn.Module):
    """An MLP: x [b, H, W, c] -> h [b, latent].

           ┌─────────┐  ┌───────┐  ┌─────┐       ┌───────┐
        x─►│ flatten ├─►│ dense ├─►│ act ├─►...─►│ dense ├─►h
           └─────────┘  └───────┘  └─────┘       └───────┘

    Attributes:
      hidden: widths of the hidden layers.
      activation, code_activation: of the hidden layers and of h; names in ACTIVATIONS.
      rank: of all matrices; 0 = full rank.
    """

    latent: int
    hidden: Sequence[int] = (1024, 512)
    activation: str = "gelu"
    code_activation: str = "identity"
    rank: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b k"]:
        act = ACTIVATIONS[self.activation]
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = act(blocks.dense_of_rank(width, self.rank, self.dtype)(x))
        h = blocks.dense_of_rank(self.latent, self.rank, self.dtype)(x)
        return ACTIVATIONS[self.code_activation](h)


class LinearEncoder(nn.Module):
    """One affine map of the whole image, or with `patch` of each block of patch x patch pixels:
    x [b, H, W, c] -> h [b, latent] or [b, H/patch, W/patch, latent]."""

    latent: int
    patch: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b *h k"]:
        if self.patch:
            x = ops.unshuffle(pad_to_multiple(x, self.patch), self.patch)
        else:
            x = x.reshape(x.shape[0], -1)
        return blocks.Dense(self.latent, dtype=self.dtype, name="linear")(x)


class ConvEncoder(nn.Module):
    """A convolutional encoder: x [b, H, W, c] -> h [b, latent] or [b, H/s, W/s, latent].

           ┌────────────┐  ┌─────────────────┐                          ┌───────┐
        x─►│ downsample ├─►│ residual blocks ├─►... (for each level) ──►│ dense ├─►h
           └────────────┘  └─────────────────┘                          └───────┘

    Sides that are not multiples of s are padded by repeating the border.

    Attributes:
      widths: channels of the levels; s = 2^len(widths).
      depth: residual blocks per level.
      spatial: h is a map, by a 1x1 convolution; otherwise a vector, by a dense layer.
    """

    latent: int
    widths: Sequence[int] = (32, 64)
    depth: int = 1
    spatial: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b *h k"]:
        x = pad_to_multiple(x, 2 ** len(self.widths))
        for width in self.widths:
            x = blocks.Downsample(width, dtype=self.dtype)(x)
            for _ in range(self.depth):
                x = blocks.ResBlock(width, dtype=self.dtype)(x)
        if not self.spatial:
            x = x.reshape(x.shape[0], -1)
        return blocks.Dense(self.latent, dtype=self.dtype)(x)


class ResidualEncoder(nn.Module):
    """h = linear(x) + scale * net(x), where scale [k] starts at zero.

            ┌────────┐
        x─┬►│ linear ├──────────►(+)─►h
          │ └────────┘            ▲
          │ ┌─────┐  ┌─────────┐  │
          └►│ net ├─►│ * scale ├──┘
            └─────┘  └─────────┘

    nets/init.py sets `linear` to PCA (vector latents) or to the KLT of patches (spatial latents),
    so that training starts at the best linear autoencoder.
    """

    linear: nn.Module
    net: nn.Module

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b *h k"]:
        h = self.linear(x, cond, train)
        scale = self.param("scale", nn.initializers.zeros, h.shape[-1:])
        return h + scale * self.net(x, cond, train)


def pad_to_multiple(x: Float[Array, "b h w c"], multiple: int) -> Float[Array, "b h2 w2 c"]:
    """Pads x at the bottom and right, by repeating the border, to multiples of `multiple` pixels.

    >>> pad_to_multiple(jax.numpy.zeros((1, 5, 8, 3)), 4).shape
    (1, 8, 8, 3)
    """
    down, right = (-x.shape[1]) % multiple, (-x.shape[2]) % multiple
    if not down and not right:
        return x
    return jnp.pad(x, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")


def stride_of(part: nn.Module) -> int:
    """The stride of an encoder with spatial latents, in pixels; 0 for vector latents and tokens."""
    if isinstance(part, LinearEncoder):
        return part.patch
    if isinstance(part, ConvEncoder) and part.spatial:
        return 2 ** len(part.widths)
    if isinstance(part, VQGANEncoder):
        return 2 ** (len(part.widths) - 1)
    if isinstance(part, ViTEncoder) and not part.tokens:
        return part.patch
    return 0


F_E = {
    "linear": LinearEncoder,
    "dense": DenseEncoder,
    "conv": ConvEncoder,
    "vit": ViTEncoder,
    "vqgan": VQGANEncoder,
}
