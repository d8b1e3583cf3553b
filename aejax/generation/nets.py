"""Networks of the priors: a residual MLP for vectors, a transformer for sequences and maps."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from aejax.nets.blocks import Dense
from aejax.types import Label

zeros = nn.initializers.zeros_init()
Cache = list[tuple[Array, Array]]


def sinusoids(t: Float[Array, " b"], width: int, fastest: float = 1000.0) -> Float[Array, "b w"]:
    """Sines and cosines of t in [0, 1] at `width` / 2 frequencies, a geometric series from 1 to
    `fastest`."""
    frequency = jnp.exp(jnp.linspace(0.0, jnp.log(fastest), width // 2))
    angle = t[:, None] * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Condition(nn.Module):
    """Embeds time t and class in one vector; class number `classes` stands for "any class".

    t -> sinusoids -> Dense, silu, Dense --+--> c [b, width]
    label -> embedding --------------------+
    """

    width: int
    classes: int = 0

    @nn.compact
    def __call__(self, n: int, t: Float[Array, " b"] | None, label: Label) -> Float[Array, "b w"]:
        c = jnp.zeros((n, self.width))
        if t is not None:
            c = Dense(self.width)(jax.nn.silu(Dense(self.width)(sinusoids(t, 64))))
        if self.classes:
            label = jnp.full(n, self.classes) if label is None else label
            c = c + nn.Embed(self.classes + 1, self.width)(label)
        return c


def modulate(x, shift, scale):
    """x (1 + scale) + shift, with shift and scale [b, w] and x [b, ..., w]."""
    extra = (slice(None),) + (None,) * (x.ndim - 2)
    return x * (1.0 + scale[extra]) + shift[extra]


class Block(nn.Module):
    """A transformer block with adaptive layer norm, the identity at initialisation (adaLN-Zero,
    Peebles and Xie 2023, arXiv 2212.09748).

        x -> norm, modulate -> attention -> * gate -> + x -> norm, modulate -> MLP -> * gate -> + x
        c -> silu, Dense -> two shifts, two scales, two gates

    Attributes:
      heads: of the attention.
      expand: hidden channels of the MLP, as a multiple of w.

    Returns x and (keys, values). With a `cache` of the keys and values of all positions, x is the
    single `position`, and its keys and values are written to the cache.
    """

    heads: int
    expand: int = 4

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l w"],
        c: Float[Array, "b w"],
        causal: bool = False,
        cache: tuple[Array, Array] | None = None,
        position: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "b l w"], tuple[Array, Array]]:
        b, length, width = x.shape
        norm = nn.LayerNorm(use_bias=False, use_scale=False)
        modulation = Dense(6 * width, init=zeros)(jax.nn.silu(c))
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(modulation, 6, axis=-1)
        qkv = Dense(3 * width)(modulate(norm(x), shift_1, scale_1))
        q, k, v = (
            a.reshape(b, length, self.heads, width // self.heads)
            for a in jnp.split(qkv, 3, axis=-1)
        )
        mask = jnp.tril(jnp.ones((length, length), bool)) if causal else None
        if cache is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cache[0], k, position, axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(cache[1], v, position, axis=1)
            mask = jnp.arange(k.shape[1])[None] <= position
        logits = jnp.einsum("bihd,bjhd->bhij", q, k) * (width // self.heads) ** -0.5
        if mask is not None:
            logits = jnp.where(mask[None, None], logits, -1e9)
        mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(logits, axis=-1), v)
        x = x + gate_1[:, None] * Dense(width)(mixed.reshape(b, length, width))
        y = modulate(norm(x), shift_2, scale_2)
        y = Dense(width)(jax.nn.gelu(Dense(self.expand * width)(y)))
        return x + gate_2[:, None] * y, (k, v)


class Transformer(nn.Module):
    """A transformer with learned positions.

        x [b, l, w] + positions -> `depth` blocks -> norm, modulate -> Dense -> [b, l, outputs]

    Attributes:
      width: channels w.
      depth: number of blocks.
      heads: of the attention.
      length: maximum l.
      outputs: channels of the output.
    """

    width: int
    depth: int
    heads: int
    length: int
    outputs: int

    def setup(self):
        init = nn.initializers.normal(0.02)
        self.positions = self.param("positions", init, (self.length, self.width))
        self.blocks = [Block(self.heads) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(use_bias=False, use_scale=False)
        self.modulation, self.head = Dense(2 * self.width), Dense(self.outputs, init=zeros)

    def __call__(
        self,
        x: Float[Array, "b l w"],
        c: Float[Array, "b w"],
        causal: bool = False,
    ) -> Float[Array, "b l o"]:
        """The outputs of all positions.

        Args:
          c: condition, see `Condition`.
          causal: each position attends only to itself and those before it.
        """
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x, _ = block(x, c, causal)
        return self._output(x, c)

    def step(
        self,
        x: Float[Array, "b 1 w"],
        c: Float[Array, "b w"],
        cache: Cache,
        position: Int[Array, ""],
    ) -> tuple[Float[Array, "b 1 o"], Cache]:
        """The output of one position, given the cache of those before it; and the new cache."""
        x = x + jax.lax.dynamic_slice_in_dim(self.positions, position, 1)
        new_cache = []
        for block, block_cache in zip(self.blocks, cache, strict=True):
            x, keys_values = block(x, c, False, block_cache, position)
            new_cache.append(keys_values)
        return self._output(x, c), new_cache

    def _output(self, x: Array, c: Array) -> Array:
        shift, scale = jnp.split(self.modulation(jax.nn.silu(c)), 2, axis=-1)
        return self.head(modulate(self.norm(x), shift, scale))

    def empty_cache(self, b: int) -> Cache:
        """The cache for b sequences before the first position."""
        shape = (b, self.length, self.heads, self.width // self.heads)
        return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(self.depth)]


class MLP(nn.Module):
    """A residual MLP [b, d] -> [b, d] with adaptive layer norm, zero at initialisation.

    z -> Dense -> `depth` residual blocks -> norm, modulate -> Dense
    block: x + gate * Dense(silu(Dense(modulate(norm(x)))))
    c -> silu, Dense -> shift, scale, gate of each block
    """

    width: int
    depth: int
    expand: int = 2

    @nn.compact
    def __call__(self, z: Float[Array, "b d"], c: Float[Array, "b w"]) -> Float[Array, "b d"]:
        norm = nn.LayerNorm(use_bias=False, use_scale=False)
        c, x = jax.nn.silu(c), Dense(self.width)(z)
        for _ in range(self.depth):
            shift, scale, gate = jnp.split(Dense(3 * self.width, init=zeros)(c), 3, axis=-1)
            y = jax.nn.silu(Dense(self.expand * self.width)(modulate(norm(x), shift, scale)))
            x = x + gate * Dense(self.width)(y)
        shift, scale = jnp.split(Dense(2 * self.width, init=zeros)(c), 2, axis=-1)
        return Dense(z.shape[-1], init=zeros)(modulate(norm(x), shift, scale))
