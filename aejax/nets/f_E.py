"""Encoders, h = f_E(x).

    linear  one matrix: reaches PCA's subspace (Baldi and Hornik, 1989)
    dense   matrices with a nonlinearity between them (Hinton and Salakhutdinov, 2006)
    conv    levels of 3x3 residual blocks, each half the size of the one before
    vqgan   the same with norms, and attention at the lowest level: today's tokenizers
    vit     a transformer over patches, to a grid of codes or to a few for the whole picture

Every encoder takes images of any size whose shape was fixed at `init`; `conv` with spatial latents
takes any size at any time. f_D.py mirrors this file name by name.
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
    """[b, H, W, c] -> [b, latent] through layers of `hidden` units; `rank`: of every matrix, 0 =
    full."""

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
    """One matrix: of the whole image, or with `patch` of each patch x patch block (a stride).

    x --flattened, or patches--> rows --matrix--> h [b, latent] or [b, H/patch, W/patch, latent]
    """

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
    """Levels of `depth` residual blocks with `widths` channels, halved in size between them.

        x --halved--> blocks --halved--> blocks --> ... --flattened and dense, or 1x1--> h

    Returns [b, latent], or with `spatial` [b, H / 2^levels, W / 2^levels, latent]; sizes that are
    no multiple of 2^levels are padded by repeating the border.
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
    """linear(x) + scale * net(x), scale from zero: a network that starts as the linear optimum.

        x --linear---------> + --> h
        x --net, * scale-----^

    nets/init.py fills `linear` with PCA (vector latents) or the KLT of patches (spatial ones).
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
    """Repeats the last row and column until both sides are multiples of `multiple`."""
    down, right = (-x.shape[1]) % multiple, (-x.shape[2]) % multiple
    if not down and not right:
        return x
    return jnp.pad(x, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")


def stride_of(part: nn.Module) -> int:
    """Pixels of x to one position of a spatial h; 0 for vector latents."""
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
