"""Fixed grids in place of a code book: rounding to levels (FSQ), signs (LFQ)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from aejax.nets.bottleneck.base import Terms, per_example, perplexity, straight_through


class Grid(nn.Module):
    """What FSQ and LFQ share: a Dense layer to the grid, and one back.

        h [.., k] -> Dense -> u [.., g, width] -> nearest grid point -> Dense -> h_hat [.., k]

    A subclass defines `width`, the numbers per code.
    """

    latent: int
    groups: int = 1

    def setup(self):
        self.down = nn.Dense(self.groups * self.width)
        self.up = nn.Dense(self.latent)

    def _numbers(self, h):
        u = self.down(h).astype(jnp.float32)
        return u.reshape(*h.shape[:-1], self.groups, self.width)

    def _latent(self, grid):
        return self.up(grid.reshape(*grid.shape[:-2], -1))


class FSQ(Grid):
    """Finite scalar quantisation: each number bounded by tanh and rounded to one of its levels
    (Mentzer et al. 2024, arXiv 2309.15505). There is no code book that could collapse.

        h -> Dense -> u -> tanh, scaled to the levels -> round -> integers -> code
                                                           |
                    h_hat <- Dense <- scaled to [-1, 1] <--+

    Two differences from the paper: the bound reaches half a step beyond the outer levels, so that
    all levels are equally wide; and an even number of levels lies symmetrically about u = 0, so
    that no level is at zero, but two levels work too.

    Attributes:
      levels: of each number, integers >= 2; their product is the vocabulary.
      groups: codes per position.

    Terms: "bits", "perplexity".
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
        """u -> values whose rounding gives exactly levels[d] integers, half of them below zero."""
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
        """Codes of h: integers in [0, vocabulary), mixed radix, the first level varies fastest."""
        return self._index(self._round(self._numbers(h)))

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]:
        """h_hat of the given codes."""
        levels = jnp.asarray(self.levels, jnp.int32)
        digits = codes[..., None] // self._steps % levels
        return self._latent(self._scaled((digits - levels // 2).astype(jnp.float32)))

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h_hat of its grid point with a straight-through gradient, terms)."""
        rounded = self._round(self._numbers(h))
        codes, b = self._index(jax.lax.stop_gradient(rounded)), h.shape[0]
        terms = {
            "bits": jnp.full(b, codes.size // b * math.log2(self.vocabulary)),
            "perplexity": perplexity(codes, self.vocabulary),
        }
        return self._latent(self._scaled(rounded)).astype(h.dtype), terms


class LFQ(Grid):
    """Lookup-free quantisation: the signs of `bits` numbers (Yu et al. 2024, arXiv 2310.05737).

        h -> Dense -> u [.., g, bits] -> signs -> Dense -> h_hat
                                           |
                                           +-> code: the number that the bits write

    The entropy penalty is factorised over the bits, as in BSQ (Zhao et al. 2024, arXiv 2406.07548):
    exact for one position, an upper bound for the code book's entropy.

    Attributes:
      bits: numbers per code; the vocabulary is 2^bits.
      groups: codes per position.
      temperature: of the soft assignment sigmoid(4 u / temperature) in the entropies.

    Terms: "entropy" (nats) = sum of H(bit | position) - H(bit over the batch), weight about 0.1;
    "commit" = sum |u - sign(u)|^2, "bits", "perplexity".
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
        """Codes of h: integers in [0, vocabulary); the first bit is the lowest."""
        return self._index(self._numbers(h))

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]:
        """h_hat of the given codes."""
        bit = codes[..., None] // 2 ** jnp.arange(self.bits) % 2
        return self._latent(2.0 * bit - 1.0)

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h_hat of its signs with a straight-through gradient, terms)."""
        u, b = self._numbers(h), h.shape[0]
        signs = jnp.where(u > 0, 1.0, -1.0)
        logit = 4.0 * u / self.temperature

        def entropy(
            p,
        ):  # of one bit, in nats; p is clipped because the gradient is infinite at 0 and 1
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
