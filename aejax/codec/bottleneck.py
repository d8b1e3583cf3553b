"""The bottleneck: gains, rounding, and the entropy model that tells the rate.

h --gain(q)--> y --round(y - mu) + mu--> y_hat --1/gain(q)--> h_hat
y --h_a--> z --round--> z_hat --h_s--> features
features, y_hat of earlier passes --> mu, level of the next pass (passes.py)
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.codec import exact
from aejax.codec.levels import LEVELS, log_deviation, logistic_bits
from aejax.codec.passes import by_colour, chequer, in_order
from aejax.codec.quality import KNOTS, RATES, at_quality
from aejax.codec.transforms import Block, Mix
from aejax.nets import ops

TABLE_UNIT = 2.0**-8  # of the stored tables of levels and means
TABLE_SCALE = 16.0  # levels per unit of a table: they must change as fast as weights do


class Features(nn.Module):
    """h_s, in exact arithmetic (exact.py).

    z_hat [b, h/2, w/2, N] --1x1--> + quality's table --2x2 shuffle--> u [b, h, w, features]
    u --depthwise 3x3, 1x1--> + u --> features [b, h, w, features]
    """

    features: int = 128
    frozen: bool = False

    @nn.compact
    def __call__(self, z_hat, quality):
        tune = self.param("quality", nn.initializers.zeros, (KNOTS, 4 * self.features))
        tune = at_quality(tune if self.frozen else exact.rounded(tune, exact.BIAS_UNIT), quality)
        u = jnp.clip(z_hat * 0.25, -7.75, 7.75)
        u = exact.ExactDense(self.frozen, 4 * self.features, scale=1.5)(u) + tune
        u = ops.shuffle(exact.activation(u, 0.0), 2)
        v = exact.activation(exact.ExactDepthwise(self.frozen)(u), 0.0)
        v = exact.ExactDense(self.frozen, self.features)(v)
        return exact.activation(u + v)


class Context(nn.Module):
    """(mu, levels above the base) of one slice, in exact arithmetic, from what was coded before it.

        features, y_hat of earlier slices --1x1--> known
        known [+ 1x1 of y_hat of the first colour] --depthwise 3x3, 1x1--> u --1x1--> mu
                                                                           u --1x1--> levels

    Called once for each colour of the chequerboard; `known` does not depend on the colour and is
    computed once. mu [b, h, w, size] is a multiple of 1/16, the levels are whole numbers.
    """

    size: int  # channels of the slice
    width: int = 192
    frozen: bool = False

    def setup(self):
        self.from_known = exact.ExactDense(self.frozen, self.width, scale=1.4)
        self.from_own = exact.ExactDense(self.frozen, self.width, use_bias=False)
        self.colour = self.param("colour", nn.initializers.zeros, (self.width,))
        self.depthwise = exact.ExactDepthwise(self.frozen)
        self.mix = exact.ExactDense(self.frozen, self.width, scale=1.4)
        self.mean = exact.ExactDense(self.frozen, self.size, scale=0.05)
        self.scale = exact.ExactDense(self.frozen, self.size, scale=0.05)

    def known(self, features: Array, earlier: Sequence[Array]) -> Float[Array, "b h w width"]:
        """What both colours share. features: activations; earlier: y_hat of earlier slices."""
        parts = [features, *(exact.companded(v) for v in earlier)]
        return self.from_known(jnp.concatenate(parts, axis=-1))

    def __call__(self, known: Array, own: Array | None = None) -> tuple[Array, Array]:
        """own: y_hat of this slice, zero where it is not known yet; None for the first colour."""
        u = known
        if own is not None:
            colour = self.colour if self.frozen else exact.rounded(self.colour, exact.BIAS_UNIT)
            u = u + self.from_own(exact.companded(own)) + colour
        u = exact.activation(u, 0.0)
        u = exact.activation(self.depthwise(u), 0.0)
        u = exact.activation(self.mix(u), 0.0)
        return exact.rounded(self.mean(u), exact.UNIT), exact.rounded(self.scale(u) * 8.0)


class Entropy(nn.Module):
    """The bottleneck: gains, rounding, and the model of its rate (Balle et al. 2018, arXiv
    1802.01436, with slices and a chequerboard, see passes.py).

        h --gain--> y --> round(y - mu) = symbols --> + mu = y_hat --ungain--> h_hat
                    |                    ^                    |
                    v                    | mu, level          v  of earlier passes
                   h_a --> z --round--> z_hat --> h_s --> Context

    The slices are in the order of the KLT's variances. Terms: "bits_y", "bits_z" of each example:
    of y and z with noise in training, of their symbols otherwise.

    Attributes:
      slices: channels per slice; they sum to `latent`.
      hyper: "context" (all of the above), "mean-scale" (no context), "scale" (nor means) or
        "factorized" (nor z): the ablations, and the classical models of the field.
      rounding: what g_s and the context see in training: "straight-through" or "noise".
      frozen: the weights are final, see exact.Exact.
      rates: lambda at quality 0 and at quality 100; the gains start at the steps that fit them.
    """

    latent: int = 320
    slices: Sequence[int] = (32, 64, 96, 128)
    z: int = 16
    features: int = 128
    width: int = 192
    hyper: str = "context"
    rounding: str = "straight-through"
    frozen: bool = False
    rates: Sequence[float] = RATES

    def setup(self):
        knots, normal = (KNOTS, self.latent), nn.initializers.zeros

        def start(key, shape):  # of log gain: step = sqrt(15 / lambda) on 0..255
            t = jnp.arange(KNOTS) * (32.0 / 255.0)
            lam = self.rates[0] * (self.rates[1] / self.rates[0]) ** t
            return jnp.broadcast_to(jnp.log(255.0 * jnp.sqrt(lam / 15.0))[:, None], shape)

        self.gain = self.param("gain", start, knots)
        self.ungain = self.param("ungain", lambda key, shape: -start(key, shape), knots)
        self.base = self.param("base", nn.initializers.constant(2.0), knots)
        if self.hyper != "factorized":
            # z starts at deviations of 0.3 to 1.2: some bits to earn, and something to learn from.
            rise = jnp.broadcast_to(jnp.linspace(0.7, 1.25, KNOTS)[:, None], (KNOTS, self.z))
            self.z_gain = self.param("z_gain", normal, (KNOTS, self.z))
            self.z_mean = self.param("z_mean", normal, (KNOTS, self.z))
            self.z_base = self.param("z_base", lambda _: rise)
            self.a_in, self.a_mid = Mix(self.features), Block()
            self.a_down, self.a_out = Mix(2 * self.features), Mix(self.z, scale=2.0)
            self.h_s = Features(self.features, self.frozen)
        if self.hyper == "context":
            self.passes = [Context(s, self.width, self.frozen) for s in self.slices]
        elif self.hyper != "factorized":
            self.passes = [Context(self.latent, self.width, self.frozen)]

    # --- the parts a coder calls, one by one ---

    def gained(self, h: Float[Array, "b h w k"], cond: dict) -> Float[Array, "b h w k"]:
        """h -> y, in units of the quantiser's step."""
        return h * jnp.exp(at_quality(self.gain, cond["quality"]))

    def ungained(self, y_hat: Float[Array, "b h w k"], cond: dict) -> Float[Array, "b h w k"]:
        """y_hat -> h_hat."""
        return y_hat * jnp.exp(at_quality(self.ungain, cond["quality"]))

    def hyper_analysis(self, y: Float[Array, "b h w k"], cond: dict) -> Float[Array, "b h2 w2 z"]:
        """h_a: y -> z, real numbers on half the grid (h2 = h / 2, rounded up)."""
        _, h, w, _ = y.shape
        y = jnp.pad(y, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        u = jnp.sign(y) * jnp.log1p(jnp.abs(y))
        u = self.a_mid(self.a_in(u))
        u = self.a_out(jax.nn.silu(self.a_down(ops.unshuffle(u, 2))))
        return u * jnp.exp(4.0 * at_quality(self.z_gain, cond["quality"]))

    def z_prior(self, cond: dict) -> tuple[Float[Array, "b 1 1 z"], Float[Array, "b 1 1 z"]]:
        """(mean, level) of z [b, 1, 1, N], whole numbers that depend on the quality alone."""
        mean = self._nodes(self.z_mean, cond)
        return exact.rounded(mean), exact.bounded(
            exact.rounded(self._nodes(self.z_base, cond)), 1.0, LEVELS - 1.0
        )

    def hyper_synthesis(
        self, z_hat: Float[Array, "b h2 w2 z"], shape: Sequence[int], cond: dict
    ) -> Float[Array, "b h w features"]:
        """h_s: z_hat -> features for a grid of `shape` (h, w)."""
        return self.h_s(z_hat, cond["quality"])[:, : shape[0], : shape[1]]

    def base_levels(self, cond: dict) -> Float[Array, "b 1 1 k"]:
        """The level of each channel where nothing else is known, not rounded."""
        return self._nodes(self.base, cond)

    def known(self, i: int, features: Array, earlier: Sequence[Array]) -> Array:
        """What both colours of slice i share."""
        return self.passes[i].known(features, earlier)

    def parameters(
        self, i: int, known: Array, base: Array, own: Array | None = None
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
        """(mu, level) of slice i: level in 0..63, whole; level 0 is never coded.

        Args:
          base: base levels of the slice's channels.
          own: y_hat of its first colour, None while that is coded.
        """
        mu, up = self.passes[i](known, own)
        return mu, exact.bounded(exact.rounded(base + up), 0.0, LEVELS - 1.0)

    def _nodes(self, table, cond):
        if not self.frozen:
            table = exact.rounded(table, TABLE_UNIT)
        return at_quality(table, cond["quality"]) * TABLE_SCALE

    # --- training ---

    def __call__(self, h: Float[Array, "b h w k"], cond: dict, train: bool = False):
        y = self.gained(h, cond)
        base, terms = self.base_levels(cond), {"bits_z": jnp.zeros(h.shape[0])}
        if self.hyper == "factorized":
            mu = jnp.zeros_like(y)
            level = exact.bounded(exact.rounded(base), 0.0, LEVELS - 1.0) + mu
            y_hat = exact.rounded(y)
        else:
            z_hat, terms["bits_z"] = self._coded_z(y, cond, train)
            features = self.hyper_synthesis(z_hat, y.shape[1:3], cond)
            if self.hyper == "context":
                y_hat, mu, level = self._sequential(y, features, base)
            else:
                mu, level = self.parameters(0, self.known(0, features, ()), base)
                mu = jnp.zeros_like(mu) if self.hyper == "scale" else mu
                y_hat = exact.rounded(y - mu) + mu
        terms["bits_y"] = jnp.sum(self._bits(y, y_hat, mu, level, train), (1, 2, 3))
        if train and self.rounding == "noise":
            y_hat = y + self._noise(y)
        return self.ungained(y_hat, cond), terms

    def _coded_z(self, y: Array, cond: dict, train: bool) -> tuple[Array, Float[Array, " b"]]:
        """(z_hat, its bits)."""
        z = self.hyper_analysis(y, cond)
        mean, level = self.z_prior(cond)
        z_hat = exact.rounded(z - mean) + mean
        return z_hat, jnp.sum(self._bits(z, z_hat, mean, level, train), (1, 2, 3))

    def _sequential(self, y: Array, features: Array, base: Array) -> tuple[Array, Array, Array]:
        """(y_hat, mu, level), [b, h, w, latent] each, of all passes."""
        first = chequer(*y.shape[1:3])
        of_passes: list[tuple[Array, Array]] = []  # (mu, level)

        def symbols_of(i, channels, colour, mu, level):
            of_passes.append((mu, level))
            return exact.rounded(y[..., channels] - mu)

        y_hat = in_order(
            self.slices,
            (first, 1.0 - first),
            lambda i, earlier: self.known(i, features, earlier),
            lambda i, channels, known, own: self.parameters(i, known, base[..., channels], own),
            symbols_of,
        )
        mu, level = by_colour(first, of_passes)
        return jnp.concatenate(y_hat, axis=-1), mu, level

    def _noise(self, y):
        return jax.random.uniform(self.make_rng("bottleneck"), y.shape, minval=-0.5, maxval=0.5)

    def _bits(self, y, y_hat, mu, level, train):
        value = y + self._noise(y) if train else y_hat
        return logistic_bits(value - mu, log_deviation(level))
