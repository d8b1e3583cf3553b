"""Vector quantisation with learned code books: VQ, ResidualVQ."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from aejax.errors import UserError
from aejax.nets.bottleneck.base import Terms, per_example, perplexity, straight_through


class CodeBook(nn.Module):
    """`size` code vectors of `dim` numbers, each the exponential moving average of the vectors that
    are assigned to it (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1).

    Counts and sums are averaged, and a code vector is sum / count, so that the mean of both over
    devices is a valid code book too. A code whose count falls below `restart` times that of a
    uniform distribution is set to a random vector of the batch (Dhariwal et al. 2020, arXiv
    2005.00341). Counts start at zero, so the first step sets all codes to vectors of the data.

    Attributes:
      decay: of the averages, per training step.
      ema: False makes the vectors parameters that are trained by gradient.
    """

    size: int
    dim: int
    decay: float = 0.99
    restart: float = 0.03
    ema: bool = True

    def setup(self):
        def start():
            return 0.1 * jax.random.normal(self.make_rng("params"), (self.size, self.dim))

        if self.ema:
            self.counts = self.variable("bottleneck", "counts", lambda: jnp.zeros(self.size))
            self.sums = self.variable("bottleneck", "sums", start)
        else:
            normal = nn.initializers.normal(0.1)
            self.book = self.param("book", normal, (self.size, self.dim))

    def vectors(self) -> Float[Array, "size dim"]:
        """The code vectors."""
        if not self.ema:
            return self.book
        counts = self.counts.value[:, None]
        return jnp.where(counts > 0, self.sums.value / jnp.maximum(counts, 1e-5), self.sums.value)

    def nearest(self, v: Float[Array, "n dim"]) -> Int[Array, " n"]:
        """Index of the nearest code vector to each vector (Euclidean distance)."""
        book = self.vectors()
        d2 = jnp.sum(jnp.square(book), -1) - 2.0 * v.astype(jnp.float32) @ book.T
        return jnp.argmin(d2, axis=-1)

    def update(self, v: Float[Array, "n dim"], codes: Int[Array, " n"]) -> None:
        """Updates the averages with the vectors `v` and their codes, and restarts dead codes."""
        if not self.ema or self.is_initializing() or not self.is_mutable_collection("bottleneck"):
            return
        v = jax.lax.stop_gradient(v).astype(jnp.float32)
        uniform = v.shape[0] / self.size
        chosen = jax.nn.one_hot(codes, self.size)
        keep, add = self.decay, 1.0 - self.decay
        counts = keep * self.counts.value + add * jnp.sum(chosen, axis=0)
        sums = keep * self.sums.value + add * (chosen.T @ v)
        # The stored counts are equal on all devices, so all restart the same codes.
        dead = self.counts.value < self.restart * uniform
        pick = jax.random.randint(self.make_rng("bottleneck"), (self.size,), 0, v.shape[0])
        self.counts.value = jnp.where(dead, uniform, counts)
        self.sums.value = jnp.where(dead[:, None], uniform * v[pick], sums)


class VQ(nn.Module):
    """Vector quantisation (van den Oord et al. 2017, arXiv 1711.00937): h is divided into groups of
    `dim` numbers, and each group is replaced by the nearest code vector.

           ┌───────┐  v [..., g, dim]  ┌──────────────┐       ┌───────┐
        h─►│ dense ├──────────────────►│ nearest code ├─┬────►│ dense ├─►h_hat
           └───────┘                   └──────────────┘ │     └───────┘
                                                        └──►codes [..., g]

    The gradient of h_hat passes straight through to v. There are dense layers only if `dim` is set.

    Attributes:
      latent: k, channels of h and h_hat.
      codes_per_book: K, the number of code vectors.
      groups: g, codes per position (a vector h needs several).
      dim: numbers per code vector; 0 = latent / groups, without dense layers.
      decay, restart, ema: see CodeBook.
      depth: code books per group, see ResidualVQ.

    Terms: "commit" = sum |v - sg(code)|^2 and, if ema=False, "codebook" = sum |sg(v) - code|^2,
    with the stop-gradient sg; "bits" = log2(K) * number of codes; "perplexity", the effective
    number of codes in use in this batch.

    Raises:
      UserError: `latent` is not a multiple of `groups` and `dim` is not set.
    """

    latent: int
    codes_per_book: int = 512
    groups: int = 1
    dim: int = 0
    decay: float = 0.99
    restart: float = 0.03
    ema: bool = True
    depth: int = 1

    @property
    def vocabulary(self) -> int:
        """Number of values that one code can take."""
        return self.codes_per_book

    def setup(self):
        width = self.dim or self.latent // self.groups
        if not self.dim and self.latent % self.groups:
            raise UserError(
                f"latent {self.latent} is not a multiple of groups {self.groups}; set "
                "bottleneck.dim"
            )
        self.books = [
            CodeBook(self.codes_per_book, width, self.decay, self.restart, self.ema)
            for _ in range(self.depth)
        ]
        self.width = width
        if self.dim:
            self.down, self.up = nn.Dense(self.groups * width), nn.Dense(self.latent)

    def _vectors(self, h):
        v = self.down(h) if self.dim else h
        return v.astype(jnp.float32).reshape(-1, self.width)

    def _latent(self, v, shape):
        v = v.reshape(*shape[:-1], self.groups * self.width)
        return self.up(v) if self.dim else v

    def _quantise(self, v, train):
        """v [n, dim] -> (sum of the code vectors [n, dim], codes [n, depth], commit [n], codebook
        [n])."""
        total, chosen = jnp.zeros_like(v), []
        commit: Any = 0.0
        codebook: Any = 0.0
        for book in self.books:
            residual = v - jax.lax.stop_gradient(total)
            codes = book.nearest(jax.lax.stop_gradient(residual))
            vectors = book.vectors()[codes]
            commit += jnp.sum(jnp.square(residual - jax.lax.stop_gradient(vectors)), axis=-1)
            codebook += jnp.sum(jnp.square(jax.lax.stop_gradient(residual) - vectors), axis=-1)
            if train:
                book.update(residual, codes)
            total = total + vectors
            chosen.append(codes)
        return total, jnp.stack(chosen, axis=-1), commit, codebook

    def codes(self, h: Float[Array, "b *s k"]) -> Int[Array, "b *s g"]:
        """Codes of h, integers in [0, vocabulary): groups * depth at each position."""
        chosen = self._quantise(self._vectors(h), train=False)[1]
        return chosen.reshape(*h.shape[:-1], self.groups * self.depth)

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]:
        """h_hat of the given codes."""
        by_book = codes.reshape(-1, self.depth)
        v = sum(book.vectors()[by_book[:, i]] for i, book in enumerate(self.books))
        return self._latent(v, codes.shape)

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h_hat of its codes, with a straight-through gradient; terms)."""
        v = self._vectors(h)
        total, chosen, commit, codebook = self._quantise(v, train)
        if not self.ema:  # the code vectors are trained by "codebook" alone
            total = jax.lax.stop_gradient(total)
        b, n = h.shape[0], chosen.shape[0]
        terms = {
            "commit": per_example(commit.reshape(b, -1)),
            "bits": jnp.full(b, n // b * self.depth * math.log2(self.codes_per_book)),
            "perplexity": perplexity(chosen[:, 0].reshape(b, -1), self.codes_per_book),
        }
        if not self.ema:
            terms["codebook"] = per_example(codebook.reshape(b, -1))
        return self._latent(straight_through(total, v), h.shape).astype(h.dtype), terms


class ResidualVQ(VQ):
    """VQ with `depth` code books, each for the residual of the previous ones (Zeghidour et al.
    2021, arXiv 2107.03312).

        v -> code 1;  v - code 1 -> code 2;  ...;  h_hat = code 1 + code 2 + ...

    The codes of a group are adjacent in the last axis, coarsest first.
    """

    depth: int = 4
    codes_per_book: int = 64
