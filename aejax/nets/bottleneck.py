"""Bottlenecks h -> h_hat: what may pass between encoder f_E and decoder f_D.

Every bottleneck is a Linen module `__call__(h, cond, train) -> (h_hat, terms)`. h is a vector
[b, k] or a map [b, i, j, k], k = `latent`; h_hat has the same shape. `terms` holds named values
per example [b], summed over the latent: penalties for the objective to weigh (a weight of zero or
none at all reports only). None is applied here. Randomness comes from the stream "bottleneck" and
is drawn only if train, or if `sample` is set.

    Gaussian     VAE, beta-VAE, capacity, free bits, beta-TCVAE, WAE, InfoVAE, RAE: one module,
                 told apart by its posterior and by the weights of its terms
    VQ           code book learned by moving averages, dead codes restarted; ResidualVQ stacks it
    FSQ, LFQ     fixed grids: rounding to levels, signs

The discrete ones also have `codes(h)` -> integers [b, ..., g] and `lookup(codes)` -> h_hat, with
`vocabulary` values per code: all that a prior over codes needs. The continuous one has
`posterior(h)` -> (mean, log variance).
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import logsumexp
from jaxtyping import Array, Float, Int

from aejax.errors import UserError

Terms = dict[str, Float[Array, "b"]]


class Identity(nn.Module):
    """h_hat = h: the deterministic autoencoder."""

    latent: int = 0

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h, no terms)."""
        return h, {}


# Gaussian -----------------------------------------------------------------------------------------


def kl_normal(mean: Float[Array, "..."], logvar: Float[Array, "..."]) -> Float[Array, "..."]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each coordinate, in nats."""
    return 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)


def log_normal(
    z: Float[Array, "..."], mean: Float[Array, "..."] = 0.0, logvar: Float[Array, "..."] = 0.0
) -> Float[Array, "..."]:
    """log N(z; mean, exp(logvar)) of each coordinate, in nats."""
    return -0.5 * (math.log(2 * math.pi) + logvar + jnp.square(z - mean) * jnp.exp(-logvar))


def free_bits(kl: Float[Array, "b k"], floor: float) -> Float[Array, "b"]:
    """Sum over coordinates of the KL, where a coordinate whose mean over the batch is below `floor`
    nats counts as `floor` and gets no gradient (Kingma et al. 2016, arXiv 1606.04934)."""
    return jnp.sum(jnp.where(jnp.mean(kl, axis=0) > floor, kl, floor), axis=-1)


def total_correlation(
    z: Float[Array, "b k"],
    mean: Float[Array, "b k"],
    logvar: Float[Array, "b k"],
    examples: int,
) -> Float[Array, "b"]:
    """log q(z) - sum_d log q(z_d) in nats by minibatch-weighted sampling from a set of `examples`
    (Chen et al. 2018, arXiv 1802.04942): KL + (beta - 1) of this is the beta-TCVAE."""
    log_q = log_normal(z[:, None], mean[None], logvar[None])  # [b, b, k]
    constant = math.log(z.shape[0] * examples)
    joint = logsumexp(jnp.sum(log_q, axis=-1), axis=1) - constant
    return joint - jnp.sum(logsumexp(log_q, axis=1) - constant, axis=-1)


def mmd(z: Float[Array, "b k"], prior: Float[Array, "b k"]) -> Float[Array, "b"]:
    """Each example's share of the unbiased squared MMD between z and samples of the prior, inverse
    multiquadratic kernels of seven widths (WAE, Tolstikhin et al. 2018, arXiv 1711.01558). The mean
    over the batch is the estimate; it can be negative."""
    b, k = z.shape

    def kernel(a, c):
        d2 = jnp.sum(jnp.square(a), -1)[:, None] + jnp.sum(jnp.square(c), -1)[None] - 2 * a @ c.T
        d2 = jnp.maximum(d2, 0.0)
        scales = [2.0 * k * s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
        return sum(s / (s + d2) for s in scales)

    off = 1.0 - jnp.eye(b)
    same = jnp.sum((kernel(z, z) + kernel(prior, prior)) * off, axis=1) / max(b - 1, 1)
    return same - 2.0 * jnp.mean(kernel(z, prior), axis=1)


class Gaussian(nn.Module):
    """A normal around a linear function of h, and the penalties that tie it to N(0, I).

    Attributes:
      noise: "learned" (variance from h: VAE), "fixed" (mean + sigma * noise, a
        decoder trained on slightly noisy latents), "none" (deterministic: RAE, WAE).
      sigma: standard deviation of "fixed".
      sample: draw also when not training; otherwise h_hat is the mean.
      floor: free bits, nats per coordinate; the term "free".
      capacity, capacity_steps: the term "capacity" is |KL - C|, C rising linearly from 0 to
        `capacity` nats in `capacity_steps` training steps (Burgess et al. 2018, arXiv 1804.03599).
      extra: costlier terms to compute as well: "tc", "mmd".
      examples: size of the training set, for "tc".
      standardise: divide the mean by its running standard deviation over the set (per channel, no
        gradient): noise of a fixed sigma then cannot be outgrown by a larger h.

    Terms (nats unless said): "kl" (analytic), "log_q" and "log_p" of the drawn z (for importance
    weights), "l2" = |mean|^2 / 2 (RAE-L2, Ghosh et al. 2020, arXiv 1903.12436), and by request
    "free", "capacity", "tc", "mmd" (no unit).
    """

    latent: int
    noise: str = "learned"
    sigma: float = 0.1
    sample: bool = False
    floor: float = 0.0
    capacity: float = 0.0
    capacity_steps: int = 0
    extra: tuple[str, ...] = ()
    examples: int = 60000
    standardise: bool = False

    def setup(self):
        if self.noise not in ("learned", "fixed", "none"):
            raise UserError(f'bottleneck noise "{self.noise}"; take learned, fixed or none')
        learned = self.noise == "learned"
        self.to_posterior = nn.Dense(self.latent * (2 if learned else 1))
        if self.capacity_steps:
            self.count = self.variable("bottleneck", "count", lambda: jnp.zeros(()))
        if self.standardise:
            self.scale = self.variable("bottleneck", "scale", lambda: jnp.ones(self.latent))

    def posterior(
        self, h: Float[Array, "b *s k"]
    ) -> tuple[Float[Array, "b *s k"], Float[Array, "b *s k"] | None]:
        """h -> (mean, log variance), the latter None if there is no noise."""
        out = self.to_posterior(h).astype(jnp.float32)
        if self.noise == "learned":
            mean, raw = jnp.split(out, 2, axis=-1)
            return mean, 10.0 * jnp.tanh(raw / 10.0)  # exp() can then not overflow
        if self.standardise:
            out = out / self.scale.value
        if self.noise == "fixed":
            return out, jnp.full_like(out, 2.0 * math.log(self.sigma))
        return out, None

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (mean or a sample of the posterior, terms)."""
        mean, logvar = self.posterior(h)
        self._update(mean, train)
        z, flat = mean, lambda a: a.reshape(a.shape[0], -1)
        noisy = logvar is not None and (train or self.sample)
        if noisy:
            epsilon = jax.random.normal(self.make_rng("bottleneck"), mean.shape)
            z = mean + jnp.exp(0.5 * logvar) * epsilon
        terms = {"l2": 0.5 * jnp.sum(jnp.square(flat(mean)), axis=-1)}
        if logvar is not None:
            kl = flat(kl_normal(mean, logvar))
            terms["kl"] = jnp.sum(kl, axis=-1)
            if self.floor:
                terms["free"] = free_bits(kl, self.floor)
            if self.capacity:
                done = 1.0
                if self.capacity_steps:
                    done = jnp.minimum(1.0, self.count.value / self.capacity_steps)
                terms["capacity"] = jnp.abs(terms["kl"] - self.capacity * done)
        if noisy:
            terms["log_q"] = jnp.sum(flat(log_normal(z, mean, logvar)), axis=-1)
            terms["log_p"] = jnp.sum(flat(log_normal(z)), axis=-1)
            if "tc" in self.extra:
                terms["tc"] = total_correlation(flat(z), flat(mean), flat(logvar), self.examples)
        if "mmd" in self.extra and train:
            prior = jax.random.normal(self.make_rng("bottleneck"), flat(z).shape)
            terms["mmd"] = mmd(flat(z), prior)
        return z.astype(h.dtype), terms

    def _update(self, mean, train):
        if not train or self.is_initializing() or not self.is_mutable_collection("bottleneck"):
            return
        if self.capacity_steps:
            self.count.value = self.count.value + 1.0
        if self.standardise:
            raw = jax.lax.stop_gradient(mean) * self.scale.value
            now = jnp.std(raw.reshape(-1, self.latent), axis=0) + 1e-6
            self.scale.value = 0.99 * self.scale.value + 0.01 * now


# Codes --------------------------------------------------------------------------------------------


def straight_through(value: Float[Array, "..."], through: Float[Array, "..."]):
    """`value` forward, the gradient of `through` backward."""
    return through + jax.lax.stop_gradient(value - through)


def perplexity(codes: Int[Array, "b *s"], size: int) -> Float[Array, "b"]:
    """exp of the entropy of the batch's codes, the effective number in use, once per example."""
    share = jnp.mean(jax.nn.one_hot(codes.reshape(-1), size), axis=0)
    value = jnp.exp(-jnp.sum(share * jnp.log(share + 1e-10)))
    return jnp.full(codes.shape[0], value)


def per_example(x: Float[Array, "b *s"]) -> Float[Array, "b"]:
    """Sum over all axes but the first."""
    return jnp.sum(x.reshape(x.shape[0], -1), axis=-1)


class CodeBook(nn.Module):
    """`size` vectors of `dim` numbers, moved by exponential averages of what was assigned to them
    (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1).

    The averages of counts and of sums are stored, and the vectors are their quotient, so that a
    mean over devices of both is again a valid code book. A code whose count falls below `restart`
    times the uniform share is put on a random vector of the batch (Dhariwal et al. 2020, arXiv
    2005.00341); counts begin at zero, so the first step places every code on data.
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

    def nearest(self, v: Float[Array, "n dim"]) -> Int[Array, "n"]:
        """Index of the nearest code to each vector."""
        book = self.vectors()
        d2 = jnp.sum(jnp.square(book), -1) - 2.0 * v.astype(jnp.float32) @ book.T
        return jnp.argmin(d2, axis=-1)

    def update(self, v: Float[Array, "n dim"], codes: Int[Array, "n"]) -> None:
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

    Attributes:
      codes_per_book: K. groups: codes per position (a vector h of k numbers needs several).
      dim: numbers per code; 0 = latent / groups, without projection to and from the latent.
      decay, restart, ema: see CodeBook; ema=False learns the book by gradient.

    Terms: "commit" = sum |h - sg(code)|^2, "codebook" (without ema) = sum |sg(h) - code|^2,
    "bits" = log2(K) times codes, "perplexity" (codes in use in this batch).
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
        """Values of one code."""
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
        total, chosen, commit, codebook = jnp.zeros_like(v), [], 0.0, 0.0
        for book in self.books:
            rest = v - jax.lax.stop_gradient(total)
            codes = book.nearest(jax.lax.stop_gradient(rest))
            code = book.vectors()[codes]
            commit += jnp.sum(jnp.square(rest - jax.lax.stop_gradient(code)), axis=-1)
            codebook += jnp.sum(jnp.square(jax.lax.stop_gradient(rest) - code), axis=-1)
            if train:
                book.update(rest, codes)
            total = total + code
            chosen.append(codes)
        return total, jnp.stack(chosen, axis=-1), commit, codebook

    def codes(self, h: Float[Array, "b *s k"]) -> Int[Array, "b *s g"]:
        """Integers in [0, vocabulary): groups * depth of them at every position."""
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
    """`depth` code books, each coding what the ones before left over (Zeghidour et al. 2021, arXiv
    2107.03312). Codes of one position stand together, coarsest first."""

    depth: int = 4
    codes_per_book: int = 64


class _Grid(nn.Module):
    """What FSQ and LFQ share: h -> groups of `width` numbers -> a fixed grid -> h_hat."""

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


class FSQ(_Grid):
    """Finite scalar quantisation: each number bounded by tanh and rounded to one of its levels
    (Mentzer et al. 2024, arXiv 2309.15505). Nothing to collapse, nothing to restart.

    Unlike the paper's, the bound spans half a step beyond the outer levels, so that all levels are
    equally wide, and an even number of levels lies symmetrically about u = 0 (there is then no
    level at zero, but two levels work too).

    Attributes:
      levels: per number, any integers >= 2; their product is the vocabulary.
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
        """Values of one code."""
        return math.prod(self.levels)

    def bound(self, u: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """u -> values that round to exactly levels[d] integers, half of them below zero."""
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
        """Integers in [0, vocabulary), mixed radix, first level fastest."""
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


class LFQ(_Grid):
    """Lookup-free quantisation: the signs of `bits` numbers (Yu et al. 2024, arXiv 2310.05737).

    The entropy penalty is factorised over the bits, as in BSQ (Zhao et al. 2024, arXiv 2406.07548):
    exact for one position, an upper bound for the code book's entropy.

    Attributes:
      bits: numbers per code; the vocabulary is 2^bits. groups: codes per position.
      temperature: of the soft assignment sigmoid(4 u / temperature).

    Terms: "entropy" (nats) = sum of H(bit | position) - H(bit over the batch): weight about 0.1;
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
        """Values of one code."""
        return 2**self.bits

    def _index(self, signs):
        return jnp.sum((signs > 0).astype(jnp.int32) * 2 ** jnp.arange(self.bits), axis=-1)

    def codes(self, h: Float[Array, "b *s k"]) -> Int[Array, "b *s g"]:
        """Integers in [0, vocabulary), first bit lowest."""
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

        def entropy(p):  # of a coin, nats; p kept off 0 and 1, where its gradient is infinite
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


BOTTLENECKS = {
    "identity": Identity,
    "gaussian": Gaussian,
    "vq": VQ,
    "residual_vq": ResidualVQ,
    "fsq": FSQ,
    "lfq": LFQ,
}
