"""Networks of the priors: a residual MLP for vectors, one transformer for everything else."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from aejax.nets.blocks import Dense

zeros = nn.initializers.zeros_init()
Cache = list[tuple[Array, Array]]


def sinusoids(t: Float[Array, "b"], width: int, fastest: float = 1000.0) -> Float[Array, "b w"]:
    """Sines and cosines of t in [0, 1] at geometric frequencies from 1 to `fastest`."""
    frequency = jnp.exp(jnp.linspace(0.0, jnp.log(fastest), width // 2))
    angle = t[:, None] * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Condition(nn.Module):
    """Time and class as one vector; class number `classes` means "any"."""

    width: int
    classes: int = 0

    @nn.compact
    def __call__(self, n: int, t: Float[Array, "b"] | None, label: Any) -> Float[Array, "b w"]:
        c = jnp.zeros((n, self.width))
        if t is not None:
            c = Dense(self.width)(jax.nn.silu(Dense(self.width)(sinusoids(t, 64))))
        if self.classes:
            label = jnp.full(n, self.classes) if label is None else label
            c = c + nn.Embed(self.classes + 1, self.width)(label)
        return c


def modulate(x, shift, scale):
    """x (1 + scale) + shift, with [b, w] shift and scale over any positions of x."""
    extra = (slice(None),) + (None,) * (x.ndim - 2)
    return x * (1.0 + scale[extra]) + shift[extra]


class Block(nn.Module):
    """Attention and a two-layer network, both modulated by c and from zero (adaLN-Zero, Peebles
    and Xie 2023, arXiv 2212.09748). With a cache: one position, which is added to the cache."""

    heads: int
    expand: int = 4

    @nn.compact
    def __call__(self, x, c, causal=False, cache=None, position=None):
        b, length, width = x.shape
        norm = nn.LayerNorm(use_bias=False, use_scale=False)
        parts = jnp.split(Dense(6 * width, init=zeros)(jax.nn.silu(c)), 6, axis=-1)
        qkv = Dense(3 * width)(modulate(norm(x), parts[0], parts[1]))
        q, k, v = (
            a.reshape(b, length, self.heads, width // self.heads)
            for a in jnp.split(qkv, 3, axis=-1)
        )
        mask = jnp.tril(jnp.ones((length, length), bool)) if causal else None
        if cache is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cache[0], k, position, axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(cache[1], v, position, axis=1)
            mask, cache = jnp.arange(k.shape[1])[None] <= position, (k, v)
        logits = jnp.einsum("bihd,bjhd->bhij", q, k) * (width // self.heads) ** -0.5
        if mask is not None:
            logits = jnp.where(mask[None, None], logits, -1e9)
        mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(logits, axis=-1), v)
        x = x + parts[2][:, None] * Dense(width)(mixed.reshape(b, length, width))
        y = modulate(norm(x), parts[3], parts[4])
        y = Dense(width)(jax.nn.gelu(Dense(self.expand * width)(y)))
        return x + parts[5][:, None] * y, cache


class Transformer(nn.Module):
    """[b, l, w] -> [b, l, outputs] with learned positions; causal or not, with a cache or not."""

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
        cache: Cache | None = None,
        position: Any = None,
    ) -> Any:
        """All positions; or with a cache the one at `position` -> (its output [b, 1, o], cache)."""
        if cache is None:
            x = x + self.positions[: x.shape[1]]
        else:
            x = x + jax.lax.dynamic_slice_in_dim(self.positions, position, 1)
        after = []
        for i, block in enumerate(self.blocks):
            x, kept = block(x, c, causal, None if cache is None else cache[i], position)
            after.append(kept)
        shift, scale = jnp.split(self.modulation(jax.nn.silu(c)), 2, axis=-1)
        out = self.head(modulate(self.norm(x), shift, scale))
        return out if cache is None else (out, after)

    def empty_cache(self, b: int) -> Cache:
        """Keys and values of no position yet."""
        shape = (b, self.length, self.heads, self.width // self.heads)
        return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(self.depth)]


class MLP(nn.Module):
    """[b, d] -> [b, d]: residual layers modulated by c, from zero."""

    width: int
    depth: int
    expand: int = 2

    @nn.compact
    def __call__(self, z: Float[Array, "b d"], c: Float[Array, "b w"]) -> Float[Array, "b d"]:
        norm = nn.LayerNorm(use_bias=False, use_scale=False)
        c, x = jax.nn.silu(c), Dense(self.width)(z)
        for _ in range(self.depth):
            parts = jnp.split(Dense(3 * self.width, init=zeros)(c), 3, axis=-1)
            y = jax.nn.silu(Dense(self.expand * self.width)(modulate(norm(x), *parts[:2])))
            x = x + parts[2] * Dense(self.width)(y)
        shift, scale = jnp.split(Dense(2 * self.width, init=zeros)(c), 2, axis=-1)
        return Dense(z.shape[-1], init=zeros)(modulate(norm(x), shift, scale))
