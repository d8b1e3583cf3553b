"""Vector quantisation: code books learned by moving averages."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from aejax.errors import UserError
from aejax.nets.bottleneck.base import Terms, per_example, perplexity, straight_through


class CodeBook(nn.Module):
    """`size` vectors of `dim` numbers, each the exponential average of the vectors assigned to it
    (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1).

    The averages of counts and of sums are stored, and the code vectors are their quotient, so that
    the mean over devices of both is again a valid code book. A code whose count falls below
    `restart` times the uniform share is put on a random vector of the batch (Dhariwal et al. 2020,
    arXiv 2005.00341). Counts begin at zero, so the first step places every code on data.

    Attributes:
      decay: of the averages, per training step.
      ema: False: the vectors are parameters instead, learned by gradient.
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
        """The code vectors, [size, dim]."""
        if not self.ema:
            return self.book
        counts = self.counts.value[:, None]
        return jnp.where(counts > 0, self.sums.value / jnp.maximum(counts, 1e-5), self.sums.value)

    def nearest(self, v: Float[Array, "n dim"]) -> Int[Array, " n"]:
        """Index of the nearest code to each vector."""
        book = self.vectors()
        d2 = jnp.sum(jnp.square(book), -1) - 2.0 * v.astype(jnp.float32) @ book.T
        return jnp.argmin(d2, axis=-1)

    def update(self, v: Float[Array, "n dim"], codes: Int[Array, " n"]) -> None:
        """One step of the averages, and the restart of dead codes."""
        if not self.ema or self.is_initializing() or not self.is_mutable_collection("bottleneck"):
            return
        v = jax.lax.stop_gradient(v).astype(jnp.float32)
        uniform = v.shape[0] / self.size
        chosen = jax.nn.one_hot(codes, self.size)
        keep, add = self.decay, 1.0 - self.decay
        counts = keep * self.counts.value + add * jnp.sum(chosen, axis=0)
        sums = keep * self.sums.value + add * (chosen.T @ v)
        # Decided on the stored counts, which are alike on all devices.
        dead = self.counts.value < self.restart * uniform
        pick = jax.random.randint(self.make_rng("bottleneck"), (self.size,), 0, v.shape[0])
        self.counts.value = jnp.where(dead, uniform, counts)
        self.sums.value = jnp.where(dead[:, None], uniform * v[pick], sums)


class VQ(nn.Module):
    """Vector quantisation: h -> g groups of `dim` numbers, each replaced by its nearest code.

        h [.., k] -> (Dense) -> groups [.., g, dim] -> codes [.., g], integers below K
                                                         |
        h_hat [.., k] <- (Dense) <- code vectors [.., g, dim]

    The gradient of h_hat goes straight through to the groups. The Dense layers are there only if
    `dim` is given.

    Attributes:
      codes_per_book: K, the number of code vectors.
      groups: codes per position (a vector h of k numbers needs several).
      dim: numbers per code; 0 = latent / groups, without Dense layers.
      decay, restart, ema: see CodeBook.
      depth: code books per group, see ResidualVQ.

    Terms: "commit" = sum |v - sg(code)|^2, "codebook" (only if ema=False) = sum |sg(v) - code|^2,
    for the groups v and the stop gradient sg; "bits" = log2(K) times the number of codes;
    "perplexity", the number of codes in use in this batch.

    Raises:
      UserError: `latent` is no multiple of `groups` and `dim` is not given.
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
                f"latent {self.latent} is no multiple of {self.groups} groups; set bottleneck.dim"
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
        """v [n, dim] -> (sum of the chosen codes, codes [n, depth], commit [n], codebook [n])."""
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
        """Codes of h: integers in [0, vocabulary), groups * depth of them at every position."""
        chosen = self._quantise(self._vectors(h), train=False)[1]
        return chosen.reshape(*h.shape[:-1], self.groups * self.depth)

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]:
        """h_hat of the given codes."""
        each = codes.reshape(-1, self.depth)
        v = sum(book.vectors()[each[:, i]] for i, book in enumerate(self.books))
        return self._latent(v, codes.shape)

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h_hat of its codes with a straight-through gradient, terms)."""
        v = self._vectors(h)
        total, chosen, commit, codebook = self._quantise(v, train)
        if not self.ema:  # the book learns from "codebook" alone
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
    """`depth` code books one after another; each codes the residual of those before (Zeghidour et
    al. 2021, arXiv 2107.03312).

        v -> code 1, v - code 1 -> code 2, ... -> h_hat = code 1 + code 2 + ...

    The codes of one position are neighbours in the last axis, coarsest first.
    """

    depth: int = 4
    codes_per_book: int = 64
