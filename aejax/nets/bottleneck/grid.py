"""Quantisation to fixed grids, without a learned code book: levels (FSQ), signs (LFQ)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from aejax.nets.bottleneck.base import Terms, per_example, perplexity, straight_through


class Grid(nn.Module):
    """The base class of FSQ and LFQ: a dense layer to the grid, and one back to h_hat.

        h [..., k] -> dense -> u [..., g, width] -> nearest grid point -> dense -> h_hat [..., k]

    A subclass defines `width`, the numbers per code.

    Attributes:
      latent: k, channels of h_hat.
      groups: g, codes per position.
    """

    latent: int
    groups: int = 1

    def setup(self):
        self.down = nn.Dense(self.groups * self.width)
        self.up = nn.Dense(self.latent)

    def _numbers(self, h):  # [..., k] -> [..., g, width]
        u = self.down(h).astype(jnp.float32)
        return u.reshape(*h.shape[:-1], self.groups, self.width)

    def _latent(self, grid):  # [..., g, width] -> [..., k]
        return self.up(grid.reshape(*grid.shape[:-2], -1))


class FSQ(Grid):
    """Finite scalar quantisation (Mentzer et al. 2024, arXiv 2309.15505): every number is bounded
    by tanh and rounded to one of its levels.

           ┌───────┐  ┌──────┐  ┌───────┐       ┌──────────────────┐  ┌───────┐
        h─►│ dense ├─►│ tanh ├─►│ round ├─┬────►│ scale to [-1, 1] ├─►│ dense ├─►h_hat
           └───────┘  └──────┘  └───────┘ │     └──────────────────┘  └───────┘
                                          └──►codes

    Two differences from the paper: tanh is scaled to reach half a step beyond the outer levels, so
    that all levels are equally wide; and an even number of levels is symmetric about u = 0, so no
    level is at 0, and two levels are possible.

    Attributes:
      levels: number of levels of each number of a code, at least 2; their product is `vocabulary`.
      groups: codes per position.

    Terms: "bits" per example; "perplexity", the effective number of codes in use in this batch.

    >>> FSQ(latent=4, levels=(8, 5, 5, 5)).vocabulary
    1000
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)

    @property
    def width(self) -> int:
        """Numbers per code."""
        return len(self.levels)

    @property
    def vocabulary(self) -> int:
        """Number of values that one code can take."""
        return math.prod(self.levels)

    def bound(self, u: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Values between which rounding yields exactly levels[d] integers in dimension d, half of
        them negative."""
        levels = jnp.asarray(self.levels, jnp.float32)
        return jnp.tanh(u) * levels / 2.0 * (1.0 - 1e-3) - self._offset

    @property
    def _offset(self):
        return jnp.where(jnp.asarray(self.levels) % 2 == 0, 0.5, 0.0)

    def _round(self, u):
        bounded = self.bound(u)
        return straight_through(jnp.round(bounded), bounded)

    @property
    def _steps(self):
        return jnp.asarray([math.prod(self.levels[:i]) for i in range(self.width)], jnp.int32)

    def _index(self, rounded):
        digits = rounded.astype(jnp.int32) + jnp.asarray(self.levels, jnp.int32) // 2
        return jnp.sum(digits * self._steps, axis=-1)

    def _scaled(self, rounded):
        return (rounded + self._offset) / (jnp.asarray(self.levels) - 1.0) * 2.0  # in [-1, 1]

    def codes(self, h: Float[Array, "b *s k"]) -> Int[Array, "b *s g"]:
        """Codes of h, integers in [0, vocabulary): mixed radix, the first number varies fastest."""
        return self._index(self._round(self._numbers(h)))

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]:
        """h_hat of the given codes."""
        levels = jnp.asarray(self.levels, jnp.int32)
        digits = codes[..., None] // self._steps % levels
        return self._latent(self._scaled((digits - levels // 2).astype(jnp.float32)))

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h_hat of the nearest grid point, with a straight-through gradient;
        terms)."""
        rounded = self._round(self._numbers(h))
        codes, b = self._index(jax.lax.stop_gradient(rounded)), h.shape[0]
        terms = {
            "bits": jnp.full(b, codes.size // b * math.log2(self.vocabulary)),
            "perplexity": perplexity(codes, self.vocabulary),
        }
        return self._latent(self._scaled(rounded)).astype(h.dtype), terms


class LFQ(Grid):
    """Lookup-free quantisation (Yu et al. 2024, arXiv 2310.05737): the signs of `bits` numbers.

           ┌───────┐  ┌───────┐       ┌───────┐
        h─►│ dense ├─►│ signs ├─┬────►│ dense ├─►h_hat
           └───────┘  └───────┘ │     └───────┘
                                └──►codes: the signs as binary digits

    The entropy penalty is factorised over the bits, as in BSQ (Zhao et al. 2024, arXiv 2406.07548):
    exact for the entropy of one position, an upper bound for that of the code book.

    Attributes:
      bits: numbers per code; the vocabulary is 2^bits.
      groups: codes per position.
      temperature: of the soft assignment sigmoid(4 u / temperature) in the entropies.

    Terms: "entropy" = sum of H(bit | position) - H(bit over the batch) in nats, with a weight of
    about 0.1; "commit" = sum |u - sign(u)|^2; "bits" per example; "perplexity", the effective
    number of codes in use in this batch.
    """

    bits: int = 10
    temperature: float = 1.0

    @property
    def width(self) -> int:
        """Numbers per code."""
        return self.bits

    @property
    def vocabulary(self) -> int:
        """Number of values that one code can take."""
        return 2**self.bits

    def _index(self, signs):
        return jnp.sum((signs > 0).astype(jnp.int32) * 2 ** jnp.arange(self.bits), axis=-1)

    def codes(self, h: Float[Array, "b *s k"]) -> Int[Array, "b *s g"]:
        """Codes of h, integers in [0, vocabulary); the first number is the least significant
        bit."""
        return self._index(self._numbers(h))

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]:
        """h_hat of the given codes."""
        bit = codes[..., None] // 2 ** jnp.arange(self.bits) % 2
        return self._latent(2.0 * bit - 1.0)

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h_hat of the signs, with a straight-through gradient; terms)."""
        u, b = self._numbers(h), h.shape[0]
        signs = jnp.where(u > 0, 1.0, -1.0)
        logit = 4.0 * u / self.temperature

        def entropy(p):  # of one bit, in nats; clipped: the gradient is infinite at 0 and 1
            p = jnp.clip(p, 1e-6, 1.0 - 1e-6)
            return -p * jnp.log(p) - (1.0 - p) * jnp.log1p(-p)

        soft = jax.nn.sigmoid(logit)
        mean = jnp.mean(soft.reshape(-1, self.groups, self.bits), axis=0)
        codes = self._index(signs)
        terms = {
            "entropy": per_example(entropy(soft) - entropy(mean)),
            "commit": per_example(jnp.square(u - signs)),
            "bits": jnp.full(b, float(codes.size // b * self.bits)),
            "perplexity": perplexity(codes, self.vocabulary),
        }
        return self._latent(straight_through(signs, u)).astype(h.dtype), terms
