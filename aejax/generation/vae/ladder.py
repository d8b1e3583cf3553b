"""A hierarchical VAE with latents at several resolutions: a small VD-VAE."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import silu
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.nets import ops
from aejax.nets.applied import applied
from aejax.nets.blocks import Conv, Dense
from aejax.nets.normal import kl_normals, log_normal
from aejax.registry import lookup
from aejax.types import Cond, Label, Output, Variables

Map = Float[Array, "b i j k"]


class ResidualBranch(nn.Module):
    """1x1, 3x3, 3x3, 1x1 convolutions at half the width, as in VD-VAE.

        x [b, i, j, k] -> silu, 1x1 -> silu, 3x3 -> silu, 3x3 -> silu, 1x1 -> [b, i, j, out]

    For maps of at most 2x2 the 3x3 convolutions are left out.

    Attributes:
      out: channels of the output.
      scale: of the variance of the last kernel at initialisation.
    """

    out: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Map) -> Map:
        half = max(8, x.shape[-1] // 2)
        y = Dense(half)(silu(x))
        if x.shape[1] > 2:
            y = Conv(half)(silu(y))
            y = Conv(half)(silu(y))
        init = nn.initializers.variance_scaling(self.scale, "fan_in", "truncated_normal")
        return Dense(self.out, init=init)(silu(y))


def prime_factors(n: int) -> tuple[int, ...]:
    """The prime factors of n in ascending order; (1,) for 1.

    >>> prime_factors(12)
    (2, 2, 3)
    """
    smallest = next((r for r in range(2, n) if n % r == 0), n)
    return (smallest, *prime_factors(n // smallest)) if smallest < n else (n,)


def soft_clipped(logvar: Array) -> Array:
    """The log variance, smoothly limited to (-6, 6)."""
    return 6.0 * jnp.tanh(logvar / 6.0)


def per_image(v: Map) -> Float[Array, " b"]:
    """The sum over all elements of each image."""
    return jnp.sum(v, axis=(1, 2, 3))


class HierarchicalVAE(nn.Module):
    """A small VD-VAE (Child 2021, arXiv 2011.10650): latents at several resolutions, coarse first,
    each conditioned on all before it; the posterior also sees the encoder's map of the same size.

        x -> stem -> map at the finest level -> ... -> map at the coarsest        (bottom up)
                            |                               |
        y <- head <- level n: blocks <- ... <- level 1: blocks <- 0               (top down)

    One block of a level, where u is the output of the blocks before it:

        u -+-> prior(u) ----------> p(z | u), and an update of u
           |
           +-> posterior(u, map) -> q(z | u, x) -> z
        u <- u + update + project(z), then u <- u + top_down(u)

    To generate, z is sampled from p instead of q.

    Attributes:
      shape: (h, w, c) of the images.
      sides: height and width of the maps of each level, coarse first. The image is padded to a
        multiple of the last one.
      blocks: number of blocks of each level.
      widths: channels of each level.
      zdims: latent channels per block of each level.
      fine: channels of the maps that are larger than the last side.
      likelihood: "bernoulli" (y = sigmoid of the logits) or "normal" (y = output).

    Output: h and h_hat are empty, [b, 0]. Terms in nats: "kl" (analytic), and, where z is sampled,
    "log_q" and "log_p" for importance weights. extra["logits"] for "bernoulli".

    Raises:
      UserError: another likelihood.
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
        step = 1.0 / sum(self.blocks)  # deeper models initialise the last layers smaller
        levels = list(zip(self.blocks, self.widths, self.zdims, strict=True))

        def branches(outputs, scale):
            """One branch for each block of each level; outputs(width, zdim) channels."""
            return [
                [ResidualBranch(outputs(width, zdim), scale) for _ in range(blocks)]
                for blocks, width, zdim in levels
            ]

        # bottom up
        self.scales = prime_factors(math.ceil(self.shape[0] / self.sides[-1]))
        fine = [self.fine] * (len(self.scales) - 1)
        self.stem = [Conv(width) for width in (*fine, self.widths[-1])]
        self.down = [[ResidualBranch(width, step) for _ in range(2)] for width in self.widths]
        self.pool = [Dense(width) for width in self.widths[:-1]]
        # top down
        self.spread = [
            Dense(side * side * width if coarse == 1 else width)
            for coarse, side, width in zip(
                self.sides, self.sides[1:], self.widths[1:], strict=False
            )
        ]
        self.bias = [
            self.param(f"bias_{i}", nn.initializers.normal(0.02), (side, side, width))
            for i, (side, width) in enumerate(zip(self.sides, self.widths, strict=True))
        ]
        self.posterior = branches(lambda width, zdim: 2 * zdim, 0.1)
        self.prior = branches(lambda width, zdim: 2 * zdim + width, 0.1)
        self.project = [[Dense(width) for _ in range(blocks)] for blocks, width, _ in levels]
        self.top_down = branches(lambda width, zdim: width, step)
        channels = zip((*fine, self.shape[-1]), reversed(self.scales), strict=True)
        self.head = [Conv(width * r * r) for width, r in channels]

    def encoder_maps(self, x: Float[Array, "b h w c"]) -> list[Map]:
        """Bottom up: the encoder's map at each level, coarse first."""
        u = self._stem(x)
        maps = []
        for level in reversed(range(len(self.sides))):
            if maps:
                u = self._pooled(u, level)
            for block in self.down[level]:
                u = u + block(u)
            maps.append(u)
        return maps[::-1]

    def _stem(self, x: Float[Array, "b h w c"]) -> Map:
        """Images, padded to a multiple of the finest side, -> the map of the finest level."""
        side = self.sides[-1] * math.prod(self.scales)
        pad = ((0, 0), (0, side - x.shape[1]), (0, side - x.shape[2]), (0, 0))
        u = jnp.pad(x - 0.5, pad, mode="edge")
        for i, (r, conv) in enumerate(zip(self.scales, self.stem, strict=True)):
            u = conv(ops.unshuffle(silu(u) if i else u, r))
        return u

    def _pooled(self, u: Map, level: int) -> Map:
        """The map of the next finer level -> the size and width of this one."""
        b, side = len(u), self.sides[level]
        if side > 1:
            u = jax.image.resize(u, (b, side, side, u.shape[-1]), "linear")
        else:  # a mean would lose the positions
            u = u.reshape(b, 1, 1, -1)
        return self.pool[level](u)

    def _spread(self, u: Map, level: int) -> Map:
        """The map of the next coarser level -> the size and width of this one."""
        b, side = len(u), self.sides[level]
        if u.shape[1] > 1:
            u = jax.image.resize(u, (b, side, side, u.shape[-1]), "nearest")
        return self.spread[level - 1](u).reshape(b, side, side, -1)

    def _head(self, u: Map) -> Float[Array, "b h w c"]:
        """The map of the finest level -> logits or pixels."""
        for r, conv in zip(reversed(self.scales), self.head, strict=True):
            u = ops.shuffle(conv(silu(u)), r)
        return u[:, : self.shape[0], : self.shape[1]]

    def top_down_pass(
        self,
        maps: list[Map] | None,
        b: int,
        key: PRNGKeyArray | None,
        temperature: float = 1.0,
    ) -> tuple[Float[Array, "b h w c"], dict[str, Float[Array, " b"]]]:
        """Runs all levels: (logits or pixels, terms summed over the blocks).

        Args:
          maps: of the encoder; None samples from the prior, and the terms are zero.
          b: batch size.
          key: of the samples; None uses the means instead.
          temperature: factor of the prior's standard deviations, if `maps` is None.
        """
        u = jnp.zeros((b, *self.bias[0].shape))
        total = {name: jnp.zeros(b) for name in ("kl", "log_q", "log_p")}
        for level in range(len(self.sides)):
            if level:
                u = self._spread(u, level)
            u = u + self.bias[level]
            for i in range(self.blocks[level]):
                key_block = None
                if key is not None:
                    key, key_block = jax.random.split(key)
                encoded = None if maps is None else maps[level]
                u, terms = self._block(level, i, u, encoded, key_block, temperature)
                total |= {name: total[name] + value for name, value in terms.items()}
        return self._head(u), total

    def _block(
        self,
        level: int,
        i: int,
        u: Map,
        encoded: Map | None,
        key: PRNGKeyArray | None,
        temperature: float,
    ) -> tuple[Map, dict[str, Float[Array, " b"]]]:
        """One block as drawn in the docstring of the class: (u, terms)."""
        size = self.zdims[level]
        mean_p, raw_p, update = jnp.split(self.prior[level][i](u), [size, 2 * size], axis=-1)
        logvar_p = soft_clipped(raw_p)
        mean, logvar = mean_p, logvar_p + 2.0 * math.log(max(temperature, 1e-6))
        if encoded is not None:
            q = self.posterior[level][i](jnp.concatenate([u, encoded], axis=-1))
            # relative to the prior, as in NVAE (Vahdat and Kautz 2020, arXiv 2007.03898)
            mean, logvar = mean_p + q[..., :size], soft_clipped(raw_p + q[..., size:])
        z = mean
        if key is not None:
            z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        terms = {}
        if encoded is not None:
            terms = {
                "kl": per_image(kl_normals(mean, logvar, mean_p, logvar_p)),
                "log_q": per_image(log_normal(z, mean, logvar)),
                "log_p": per_image(log_normal(z, mean_p, logvar_p)),
            }
        u = u + update + self.project[level][i](z)
        return u + self.top_down[level][i](u), terms

    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """Encodes and decodes x; z is sampled from the posterior if there is an rng "bottleneck",
        else it is the mean."""
        key = self.make_rng("bottleneck") if self.has_rng("bottleneck") else None
        raw, terms = self.top_down_pass(self.encoder_maps(x), x.shape[0], key)
        if key is None:
            terms = {"kl": terms["kl"]}
        empty = jnp.zeros((x.shape[0], 0))
        if self.likelihood == "normal":
            return Output(empty, empty, raw, terms)
        return Output(empty, empty, jax.nn.sigmoid(raw), terms, {"logits": raw})

    def from_prior(
        self, key: PRNGKeyArray, n: int, temperature: float = 1.0
    ) -> Float[Array, "n h w c"]:
        """n pictures in [0, 1]; `draw` calls this with variables."""
        raw = self.top_down_pass(None, n, key, temperature)[0]
        return jax.nn.sigmoid(raw) if self.likelihood == "bernoulli" else jnp.clip(raw, 0.0, 1.0)

    @nn.nowrap
    def draw(
        self,
        variables: Variables,
        key: PRNGKeyArray,
        n: int,
        label: Label = None,
        temperature: float = 1.0,
    ) -> Float[Array, "n h w c"]:
        """n pictures in [0, 1]; the label is not used.

        Args:
          temperature: factor of the prior's standard deviations.
        """
        return applied(self, variables, key, n, temperature, method="from_prior")
