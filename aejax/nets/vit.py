"""Vision transformers as f_E and f_D, with a grid of tokens or a few tokens for the whole image.

    x -> patches -> blocks -> h [b, H/p, W/p, latent]
    x -> patches and `tokens` queries -> blocks -> h [b, tokens, latent]

The first is ViT (Dosovitskiy et al. 2021, arXiv 2010.11929), as a tokenizer ViT-VQGAN (Yu et al.
2022, arXiv 2110.04627); the second is TiTok (Yu et al. 2024, arXiv 2406.07550). Registers are
additional tokens whose outputs are discarded (Darcet et al. 2024, arXiv 2309.16588). Position
embeddings are learned, or rotations of queries and keys by row and column (RoPE, Su et al. 2021,
arXiv 2104.09864; with two axes: Heo et al. 2024, arXiv 2403.13298). Norms are RMSNorm; the last
layer of each residual branch is initialised with zeros. On TPUs use widths that are multiples of
128.
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
    """Rotation angles of RoPE in radians, [extra + rows * columns, width / 2].

    Half of the pairs rotate with the row, half with the column.

    Args:
      width: of a head, a multiple of 4.
      extra: number of tokens before the grid; their angles are zero.

    >>> angles(2, 3, 8, extra=1).shape
    (7, 4)
    """
    quarter = width // 4
    frequency = 100.0 ** (-jnp.arange(quarter) / quarter)  # base 100: grids have few rows
    i, j = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    grid = jnp.concatenate([i[..., None] * frequency, j[..., None] * frequency], -1)
    grid = grid.reshape(rows * columns, 2 * quarter)
    return jnp.concatenate([jnp.zeros((extra, 2 * quarter)), grid])


def rotate(x: Float[Array, "b n t w"], angle: Float[Array, "n w/2"]) -> Float[Array, "b n t w"]:
    """Rotates pairs of features of x [batch, tokens, heads, width] by the angles of their
    tokens."""
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head softmax attention over all tokens, [b, n, c] -> [b, n, c] (Vaswani et al. 2017,
    arXiv 1706.03762); RoPE if `angle` is given, see `angles`."""

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
    """A transformer block with pre-normalisation, [b, n, c] -> [b, n, c].

            ┌──────┐  ┌───────────┐           ┌──────┐  ┌───────┐  ┌──────┐  ┌───────┐
        x─┬►│ norm ├─►│ attention ├─►(+)─x'─┬►│ norm ├─►│ dense ├─►│ gelu ├─►│ dense ├─►(+)─►
          │ └──────┘  └───────────┘   ▲     │ └──────┘  └───────┘  └──────┘  └───────┘   ▲
          └───────────────────────────┘     └────────────────────────────────────────────┘

    Attributes:
      expand: hidden width of the MLP by c.
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
    """The transformer: position embedding, registers and `depth` blocks.

    x [b, extra + rows * columns, width] -> the same shape.

    Attributes:
      extra: tokens before the grid.
      registers: additional tokens, which are removed from the result.
      position: "rope" or "learned".
      remat: store only the input of each block for the backward pass and recompute the others.

    Raises:
      UserError: a width that is not a multiple of 4 * heads, or an unknown `position`.
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
        _, n, c = x.shape
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
            x = jnp.concatenate([_learned_tokens(self, "registers", self.registers, x), x], 1)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            x = block(self.heads, self.expand, self.dtype, name=f"block{i}")(x, angle)
        return blocks.LayerNorm(dtype=self.dtype, name="norm")(x[:, self.registers :])


def _learned_tokens(
    module: nn.Module, name: str, count: int, x: Float[Array, "b n c"]
) -> Float[Array, "b t c"]:
    """`count` learned tokens, the same for each example of x."""
    b, _, c = x.shape
    tokens = module.param(name, nn.initializers.normal(0.02), (count, c), jnp.float32)
    return jnp.broadcast_to(tokens.astype(x.dtype), (b, count, c))


class _ViT(nn.Module):
    """The attributes of ViTEncoder and ViTDecoder.

    Attributes:
      patch: side of a patch in pixels; the sides of images must be multiples of it.
      width, depth, heads, expand, registers, position, remat: of the transformer, see Trunk.
      tokens: number of latent tokens; 0 = one per patch.
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
        """The transformer applied to `tokens` tokens and a grid of rows x columns."""
        return Trunk(
            self.depth, self.heads, rows, columns, self.tokens, self.registers, self.position,
            self.expand, self.remat, self.dtype, name="trunk",
        )(x)  # fmt: skip


class ViTEncoder(_ViT, kw_only=True):
    """x [b, H, W, c] -> h [b, H/patch, W/patch, latent], or [b, tokens, latent] if `tokens` is set.

           ┌─────────┐  ┌───────┐         ┌───────┐  ┌───────┐
        x─►│ patches ├─►│ dense ├─►(cat)─►│ trunk ├─►│ dense ├─►h
           └─────────┘  └───────┘    ▲    └───────┘  └───────┘
                     queries (if `tokens`), from which h is computed then

    Attributes:
      latent: features per token of h.
      patch, width, depth, heads, tokens, registers, position, expand, remat, dtype: see _ViT.

    Raises:
      UserError: sides that are not multiples of `patch`, or a width that is not a multiple of
        4 * heads.
    """

    latent: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b *h k"]:
        x = ops.unshuffle(2.0 * x - 1.0, self.patch)  # checks the sides of x
        b, rows, columns, _ = x.shape
        x = blocks.Dense(self.width, dtype=self.dtype, name="patches")(x)
        x = x.reshape(b, rows * columns, self.width)
        if self.tokens:
            x = jnp.concatenate([_learned_tokens(self, "queries", self.tokens, x), x], 1)
        x = self.trunk(x, rows, columns)
        x = x[:, : self.tokens] if self.tokens else x.reshape(b, rows, columns, self.width)
        return blocks.Dense(self.latent, name="latent")(x)


class ViTDecoder(_ViT, kw_only=True):
    """h [b, H/patch, W/patch, latent] or [b, tokens, latent] -> y [b, H, W, c].

           ┌───────┐         ┌───────┐  ┌───────┐  ┌────────┐
        h─►│ dense ├─►(cat)─►│ trunk ├─►│ dense ├─►│ pixels ├─►y
           └───────┘    ▲    └───────┘  └───────┘  └────────┘
                mask tokens (if `tokens`), from which y is computed then

    With `tokens` the transformer predicts all patches from one learned mask token per patch; the
    mask tokens differ by their positions only (TiTok).

    Attributes:
      shape: (H, W, c) of the images.
      patch, width, depth, heads, tokens, registers, position, expand, remat, dtype: see _ViT.

    Raises:
      UserError: as ViTEncoder.
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
            x = x + _learned_tokens(self, "marks", self.tokens, x)
            mask = _learned_tokens(self, "mask", 1, x)
            x = jnp.concatenate([x, jnp.repeat(mask, rows * columns, 1)], 1)
        x = self.trunk(x, rows, columns)
        x = x[:, self.tokens :].reshape(b, rows, columns, self.width)
        y = blocks.Dense(self.patch**2 * c, dtype=self.dtype, name="patches")(x)
        return 0.5 + 0.5 * ops.shuffle(y.astype(jnp.float32), self.patch)
