"""Transformers as f_E and f_D: tokens on a grid, or a few tokens for the whole picture.

    x -> patches -> blocks -> h [b, h/p, w/p, latent]
    x -> patches and `tokens` queries -> blocks -> h [b, tokens, latent]

The first is ViT (Dosovitskiy et al. 2021, arXiv 2010.11929), as a tokenizer ViT-VQGAN (Yu et al.
2022, arXiv 2110.04627); the second TiTok (Yu et al. 2024, arXiv 2406.07550).
Registers are tokens that nothing is read from (Darcet et al. 2024, arXiv 2309.16588). Positions are
learned, or rotations of queries and keys by row and column (RoPE, Su et al. 2021, arXiv 2104.09864;
of two axes: Heo et al. 2024, arXiv 2403.13298). Norms divide by the root mean square; the last
matrix of each branch starts at zero. On TPUs widths that are multiples of 128 waste nothing.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.nets import blocks, ops
from aejax.types import Cond

zeros = nn.initializers.zeros_init()
POSITIONS = ("rope", "learned")


def angles(rows: int, columns: int, width: int, extra: int) -> Float[Array, "n w/2"]:
    """RoPE's angles of each token: half of the pairs turn with the row, half with the column.

    Args:
      width: numbers of a head, a multiple of 4. extra: tokens before the grid; they do not turn.
    """
    quarter = width // 4
    frequency = 100.0 ** (-jnp.arange(quarter) / quarter)  # pictures are short: 1 to 1/100
    i, j = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    grid = jnp.concatenate([i[..., None] * frequency, j[..., None] * frequency], -1)
    grid = grid.reshape(rows * columns, 2 * quarter)
    return jnp.concatenate([jnp.zeros((extra, 2 * quarter)), grid])


def rotate(x: Float[Array, "b n t w"], angle: Float[Array, "n w/2"]) -> Float[Array, "b n t w"]:
    """Each pair of numbers of x turned by its token's angle."""
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)


class Attention(nn.Module):
    """Softmax attention of `heads` heads over all tokens; `angle` turns queries and keys.

    x [b, n, c] --dense--> q, k, v --softmax(q k^T) v--> dense --> [b, n, c]
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], angle: Float[Array, "n a"] | None = None
    ) -> Float[Array, "b n c"]:
        b, n, c = x.shape
        qkv = blocks.Dense(3 * c, use_bias=False, dtype=self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.heads, c // self.heads), 2, 0)
        if angle is not None:
            q, k = rotate(q, angle), rotate(k, angle)
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(b, n, c)
        return blocks.Dense(c, init=zeros, dtype=self.dtype, name="out")(mixed)


class Block(nn.Module):
    """Attention, then two layers with gelu between them; both added to x, from zero.

    x --norm, attention--> + x = x' --norm, dense, gelu, dense--> + x'
    """

    heads: int
    expand: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], angle: Float[Array, "n a"] | None = None
    ) -> Float[Array, "b n c"]:
        c, dtype = x.shape[-1], self.dtype
        y = blocks.LayerNorm(dtype=dtype, name="norm1")(x)
        x = x + Attention(self.heads, dtype, name="attention")(y, angle)
        y = blocks.LayerNorm(dtype=dtype, name="norm2")(x)
        y = nn.gelu(blocks.Dense(self.expand * c, dtype=dtype, name="up")(y))
        return x + blocks.Dense(c, init=zeros, dtype=dtype, name="down")(y)


class Trunk(nn.Module):
    """Positions, registers and `depth` blocks: [b, extra + rows * columns, width] -> the same.

    Attributes:
      registers: tokens added here and left out of the result.
      remat: keep only each block's input for the backward pass and compute the rest again.
    """

    depth: int
    heads: int
    rows: int
    columns: int
    extra: int = 0
    registers: int = 0
    position: str = "rope"
    expand: int = 4
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        b, n, c = x.shape
        if c % (4 * self.heads):
            raise UserError(f"width {c} does not divide into {self.heads} heads of a multiple of 4")
        if self.position not in POSITIONS:
            raise UserError(f'position "{self.position}": {" or ".join(POSITIONS)}')
        normal, angle = nn.initializers.normal(0.02), None
        if self.position == "learned":
            x = x + self.param("positions", normal, (n, c), jnp.float32).astype(self.dtype)
        else:
            extra = self.registers + self.extra
            angle = angles(self.rows, self.columns, c // self.heads, extra)
        if self.registers:
            tokens = self.param("registers", normal, (self.registers, c), jnp.float32)
            tokens = jnp.broadcast_to(tokens.astype(self.dtype), (b, self.registers, c))
            x = jnp.concatenate([tokens, x], 1)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            x = block(self.heads, self.expand, self.dtype, name=f"block{i}")(x, angle)
        return blocks.LayerNorm(dtype=self.dtype, name="norm")(x[:, self.registers :])


def _learned_tokens(module: nn.Module, name: str, count: int, b: int, width: int) -> Array:
    tokens = module.param(name, nn.initializers.normal(0.02), (count, width), jnp.float32)
    return jnp.broadcast_to(tokens, (b, count, width))


class _ViT(nn.Module):
    """What both directions share.

    Attributes:
      patch: pixels of a token's side; the picture's sides must be multiples of it.
      width, depth, heads, expand, registers, position, remat: of the trunk.
      tokens: latent queries that h is read from; 0 = the grid of patches.
      dtype: of the computation; h and y are float32.
    """

    patch: int = 16
    width: int = 512
    depth: int = 8
    heads: int = 8
    tokens: int = 0
    registers: int = 0
    position: str = "rope"
    expand: int = 4
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    def trunk(self, x: Float[Array, "b n c"], rows: int, columns: int) -> Float[Array, "b n c"]:
        """`tokens` and a grid of rows x columns through the transformer."""
        return Trunk(
            self.depth, self.heads, rows, columns, self.tokens, self.registers, self.position,
            self.expand, self.remat, self.dtype, name="trunk",
        )(x)  # fmt: skip


class ViTEncoder(_ViT, kw_only=True):
    """[b, H, W, c] -> [b, H/patch, W/patch, latent], or [b, tokens, latent] where `tokens` is set.

        x --patches, dense--> [tokens,] grid [b, n, width] --trunk--> tokens or grid --dense--> h

    Attributes: as of _ViT; latent: numbers of each token of h.

    Raises:
      UserError: a picture that does not divide into patches, heads that do not divide the width.
    """

    latent: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b *h k"]:
        x = ops.unshuffle(2.0 * x - 1.0, self.patch)  # raises where the sides do not divide
        b, rows, columns, _ = x.shape
        x = blocks.Dense(self.width, dtype=self.dtype, name="patches")(x)
        x = x.reshape(b, rows * columns, self.width)
        if self.tokens:
            queries = _learned_tokens(self, "queries", self.tokens, b, self.width)
            x = jnp.concatenate([queries.astype(self.dtype), x], 1)
        x = self.trunk(x, rows, columns)
        x = x[:, : self.tokens] if self.tokens else x.reshape(b, rows, columns, self.width)
        return blocks.Dense(self.latent, name="latent")(x)


class ViTDecoder(_ViT, kw_only=True):
    """The mirror: [b, H/patch, W/patch, latent] or [b, tokens, latent] -> [b, H, W, c].

        h --dense--> grid, or tokens and a mask for each patch --trunk--> grid --dense, patches--> y

    From `tokens` every patch is predicted: one learned token stands for each of them, and only its
    position differs (the mask token of TiTok). Attributes: as of _ViT; shape: (H, W, c) of x.
    """

    shape: Sequence[int]

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *h k"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        height, width, c = self.shape
        if self.tokens and height % self.patch + width % self.patch:
            raise UserError(f"a picture of {height}x{width} does not divide into {self.patch}x"
                            f"{self.patch} patches")  # fmt: skip
        b = h.shape[0]
        rows, columns = height // self.patch, width // self.patch
        if not self.tokens:
            rows, columns = h.shape[1:3]
        x = blocks.Dense(self.width, dtype=self.dtype, name="latent")(h)
        x = x.reshape(b, math.prod(x.shape[1:-1]), self.width)
        if self.tokens:
            marks = self.param("marks", nn.initializers.normal(0.02), (self.tokens, self.width))
            masks = _learned_tokens(self, "mask", 1, b, self.width)
            masks = jnp.broadcast_to(masks, (b, rows * columns, self.width))
            x = jnp.concatenate([x + marks.astype(self.dtype), masks.astype(self.dtype)], 1)
        x = self.trunk(x, rows, columns)
        x = x[:, self.tokens :].reshape(b, rows, columns, self.width)
        y = blocks.Dense(self.patch**2 * c, dtype=self.dtype, name="patches")(x)
        return 0.5 + 0.5 * ops.shuffle(y.astype(jnp.float32), self.patch)
