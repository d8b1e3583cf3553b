"""Autoencoders whose prior needs more than a bottleneck: VampPrior, and a ladder of latents."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import logsumexp, silu
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.config import plain
from aejax.nets import ops
from aejax.nets.autoencoder import build_model
from aejax.nets.blocks import Conv, Dense
from aejax.nets.normal import log_normal
from aejax.registry import lookup
from aejax.types import Output


class VampAutoEncoder(nn.Module):
    """A VAE whose prior is the mixture of its own posteriors at `components` learned pseudo-inputs
    (Tomczak and Welling 2018, arXiv 1705.07120).

    terms["kl"] is one sample's log q(z|x) - log p(z) against that prior (it can be negative), with
    "log_q" and "log_p" for importance weights. While it is not training there is no sample, and
    "kl" is the bottleneck's own, against N(0, I).
    """

    shape: Sequence[int]
    autoencoder: Mapping[str, Any]
    components: int = 100

    def setup(self):
        self.ae = build_model(plain(self.autoencoder), tuple(self.shape))
        start = lambda key, s: 0.5 + 0.2 * jax.random.normal(key, s)  # noqa: E731
        self.pseudo = self.param("pseudo", start, (self.components, *self.shape))

    def encode(self, x: Float[Array, "b h w c"], cond: Any = None) -> Float[Array, "b *s k"]:
        """Means of the posterior."""
        return self.ae.encode(x, cond)

    def decode(self, h: Float[Array, "b *s k"], cond: Any = None) -> Float[Array, "b h w c"]:
        """As the autoencoder's."""
        return self.ae.decode(h, cond)

    def log_prior(self, z: Float[Array, "b *s k"]) -> Float[Array, "b"]:
        """log p(z) in nats."""
        pseudo = jnp.clip(self.pseudo, 0.0, 1.0)
        mean, logvar = self.ae.bottleneck.posterior(self.ae.f_E(pseudo, None, False))
        flat = lambda a: a.reshape(a.shape[0], -1)  # noqa: E731
        each = log_normal(flat(z)[:, None], flat(mean)[None], flat(logvar)[None])
        return logsumexp(jnp.sum(each, axis=-1), axis=1) - math.log(self.components)

    def __call__(
        self, x: Float[Array, "b h w c"], cond: dict | None = None, train: bool = False
    ) -> Output:
        """The autoencoder's output with "kl" against the learned prior."""
        out = self.ae(x, cond, train)
        terms = dict(out.terms)
        log_p = self.log_prior(out.h_hat)
        if "log_q" in terms:
            terms |= {"log_p": log_p, "kl": terms["log_q"] - log_p}
        return Output(out.h, out.h_hat, out.y, terms, out.extra)

    def from_prior(self, key: PRNGKeyArray, n: int) -> Float[Array, "n h w c"]:
        """n pictures in [0, 1]; use `draw`."""
        k1, k2 = jax.random.split(key)
        chosen = jnp.clip(self.pseudo, 0.0, 1.0)[jax.random.randint(k1, (n,), 0, self.components)]
        mean, logvar = self.ae.bottleneck.posterior(self.ae.f_E(chosen, None, False))
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(k2, mean.shape)
        return jnp.clip(self.ae.decode(z), 0.0, 1.0)

    @nn.nowrap
    def draw(self, variables: dict, key: PRNGKeyArray, n: int, label: Any = None):
        """n pictures, each of the posterior at some pseudo-input; the label is not used."""
        return self.apply(variables, key, n, method="from_prior")


# A ladder -----------------------------------------------------------------------------------------


class _Res(nn.Module):
    """1x1, 3x3, 3x3, 1x1 as in VD-VAE, a bottleneck of half the width, last layer small."""

    out: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x):
        half = max(8, x.shape[-1] // 2)
        y = Dense(half)(silu(x))
        if x.shape[1] > 2:
            y = Conv(half)(silu(y))
            y = Conv(half)(silu(y))
        init = nn.initializers.variance_scaling(self.scale, "fan_in", "truncated_normal")
        return Dense(self.out, init=init)(silu(y))


def _primes(n: int) -> tuple[int, ...]:
    """4 -> (2, 2); 1 -> (1,)."""
    found = next((r for r in range(2, n) if n % r == 0), n)
    return (found, *_primes(n // found)) if found < n else (n,)


class HierarchicalVAE(nn.Module):
    """A small VD-VAE (Child 2021, arXiv 2011.10650): latents at several resolutions, coarse first,
    each drawn given all above it; the posterior sees the encoder's map of the same size.

    Attributes:
      sides: resolution of each level, coarse first; the last is an integer fraction of the image.
      blocks, widths, zdims: of each level: stochastic blocks, channels, latent channels per block.
      fine: channels between the last side and the image's.
      likelihood: "bernoulli" (logits) or "normal" (y only).

    Output: h_hat holds nothing (`draw` samples); terms "kl" (analytic, nats), and when it samples
    "log_q", "log_p" for importance weights; extra "logits".
    """

    shape: Sequence[int]
    sides: Sequence[int] = (1, 7)
    blocks: Sequence[int] = (5, 1)
    widths: Sequence[int] = (256, 64)
    zdims: Sequence[int] = (8, 4)
    fine: int = 32
    likelihood: str = "bernoulli"

    def setup(self):
        lookup(self.likelihood, {"bernoulli": 0, "normal": 0}, "likelihood")
        total = sum(self.blocks)
        self.scales = _primes(math.ceil(self.shape[0] / self.sides[-1]))
        fine = [self.fine] * (len(self.scales) - 1)
        self.stem = [Conv(n) for n in (*fine, self.widths[-1])]
        self.down = [[_Res(w, 1.0 / total) for _ in range(2)] for w in self.widths]
        self.pool = [Dense(w) for w in self.widths[:-1]]
        self.spread = [
            Dense(side * side * w if coarse == 1 else w)
            for coarse, side, w in zip(self.sides, self.sides[1:], self.widths[1:], strict=False)
        ]
        self.bias = [
            self.param(f"bias_{i}", nn.initializers.normal(0.02), (side, side, w))
            for i, (side, w) in enumerate(zip(self.sides, self.widths, strict=True))
        ]
        each = list(zip(self.blocks, self.widths, self.zdims, strict=True))
        make = lambda out, s: [[_Res(out(w, z), s) for _ in range(n)] for n, w, z in each]  # noqa: E731
        self.posterior = make(lambda w, z: 2 * z, 0.1)
        self.prior = make(lambda w, z: 2 * z + w, 0.1)
        self.project = [[Dense(w) for _ in range(n)] for n, w, _ in each]
        self.top_down = make(lambda w, z: w, 1.0 / total)
        outs = zip((*fine, self.shape[-1]), reversed(self.scales), strict=True)
        self.head = [Conv(n * r * r) for n, r in outs]

    def _maps(self, x):
        """The encoder's map at each level, coarse first."""
        b, side = len(x), self.sides[-1] * math.prod(self.scales)
        pad = ((0, 0), (0, side - x.shape[1]), (0, side - x.shape[2]), (0, 0))
        u = jnp.pad(x - 0.5, pad, mode="edge")
        for i, (r, conv) in enumerate(zip(self.scales, self.stem, strict=True)):
            u = conv(ops.unshuffle(silu(u) if i else u, r))
        maps = []
        for level in reversed(range(len(self.sides))):
            side = self.sides[level]
            if maps:
                if side > 1:
                    u = jax.image.resize(u, (b, side, side, u.shape[-1]), "linear")
                else:  # where things are matters to what has one place
                    u = u.reshape(b, 1, 1, -1)
                u = self.pool[level](u)
            for block in self.down[level]:
                u = u + block(u)
            maps.append(u)
        return maps[::-1]

    def _picture(self, u):
        for r, conv in zip(reversed(self.scales), self.head, strict=True):
            u = ops.shuffle(conv(silu(u)), r)
        return u[:, : self.shape[0], : self.shape[1]]

    def _pass(self, maps, b, key, temperature=1.0):
        """Down the ladder: (picture, terms); maps None = from the prior."""
        u = jnp.zeros((b, *self.bias[0].shape))
        total = {name: jnp.zeros(b) for name in ("kl", "log_q", "log_p")}
        per_image = lambda v: jnp.sum(v, axis=(1, 2, 3))  # noqa: E731
        for level, side in enumerate(self.sides):
            if level:
                if u.shape[1] > 1:
                    u = jax.image.resize(u, (b, side, side, u.shape[-1]), "nearest")
                u = self.spread[level - 1](u).reshape(b, side, side, -1)
            u, size = u + self.bias[level], self.zdims[level]
            for i in range(self.blocks[level]):
                p = self.prior[level][i](u)
                mean_p, raw_p, more = jnp.split(p, [size, 2 * size], axis=-1)
                logvar_p = 6.0 * jnp.tanh(raw_p / 6.0)
                mean, logvar = mean_p, logvar_p + 2.0 * math.log(max(temperature, 1e-6))
                if maps is not None:
                    q = self.posterior[level][i](jnp.concatenate([u, maps[level]], axis=-1))
                    # beside the prior's, as in NVAE (Vahdat and Kautz 2020, arXiv 2007.03898)
                    mean, raw = mean_p + q[..., :size], raw_p + q[..., size:]
                    logvar = 6.0 * jnp.tanh(raw / 6.0)
                z = mean
                if key is not None:
                    key, now = jax.random.split(key)
                    z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(now, mean.shape)
                if maps is not None:
                    total["kl"] += per_image(
                        0.5 * (logvar_p - logvar - 1.0)
                        + 0.5 * (jnp.exp(logvar) + jnp.square(mean - mean_p)) * jnp.exp(-logvar_p)
                    )
                    total["log_q"] += per_image(log_normal(z, mean, logvar))
                    total["log_p"] += per_image(log_normal(z, mean_p, logvar_p))
                u = u + more + self.project[level][i](z)
                u = u + self.top_down[level][i](u)
        return self._picture(u), total

    def __call__(
        self, x: Float[Array, "b h w c"], cond: dict | None = None, train: bool = False
    ) -> Output:
        """Through the posterior; drawn if there is a stream "bottleneck", means otherwise."""
        key = self.make_rng("bottleneck") if self.has_rng("bottleneck") else None
        raw, terms = self._pass(self._maps(x), x.shape[0], key)
        if key is None:
            terms = {"kl": terms["kl"]}
        empty = jnp.zeros((x.shape[0], 0))
        if self.likelihood == "normal":
            return Output(empty, empty, raw, terms)
        return Output(empty, empty, jax.nn.sigmoid(raw), terms, {"logits": raw})

    def from_prior(self, key: Any, n: int, temperature: float = 1.0) -> Float[Array, "n h w c"]:
        """n pictures in [0, 1]; use `draw`."""
        raw = self._pass(None, n, key, temperature)[0]
        return jax.nn.sigmoid(raw) if self.likelihood == "bernoulli" else jnp.clip(raw, 0.0, 1.0)

    @nn.nowrap
    def draw(self, variables: dict, key: Any, n: int, label: Any = None, temperature: float = 1.0):
        """n pictures drawn from the top down."""
        return self.apply(variables, key, n, temperature, method="from_prior")


def spectral_norm(kernel: Float[Array, "..."], iterations: int = 8) -> Float[Array, ""]:
    """Largest singular value of a kernel as a matrix [inputs, outputs], by power iteration from a
    fixed start; the gradient goes through the kernel only."""
    w = kernel.reshape(-1, kernel.shape[-1])
    v = jnp.ones(w.shape[1]) / math.sqrt(w.shape[1])
    for _ in range(iterations):
        u = w @ v
        u = u / (jnp.linalg.norm(u) + 1e-12)
        v = w.T @ u
        v = v / (jnp.linalg.norm(v) + 1e-12)
    u, v = jax.lax.stop_gradient((u, v))
    return u @ w @ v


class SpectralDecoder(nn.Module):
    """Any f_D with every kernel divided by its largest singular value above `bound` (RAE-SN, Ghosh
    et al. 2020, arXiv 1903.12436; Miyato et al. 2018)."""

    latent: int
    shape: Sequence[int]
    decoder: str = "conv"
    bound: float = 1.0
    arguments: Mapping[str, Any] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """h -> y through the bounded kernels."""
        from aejax.nets.f_D import F_D
        from aejax.registry import parameters

        cls = lookup(self.decoder, F_D, "f_D")
        known = {"latent": self.latent, "shape": tuple(self.shape), "dtype": self.dtype}
        known = {k: v for k, v in known.items() if k in parameters(cls)} | dict(
            self.arguments or {}
        )

        def bounded(variables):
            def one(path, w):
                if getattr(path[-1], "key", "") != "kernel":
                    return w
                return w / jnp.maximum(spectral_norm(w) / self.bound, 1.0)

            return jax.tree_util.tree_map_with_path(one, variables)

        mapped = nn.map_variables(cls, "params", trans_in_fn=bounded, init=True)
        return mapped(**known)(h, cond, train)
