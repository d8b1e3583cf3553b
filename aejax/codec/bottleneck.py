"""The bottleneck: gains, rounding, and the entropy model that predicts the distribution of the
latents and so the rate.

h --gain(q)--> y --round(y - mu) + mu--> y_hat --ungain(q)--> h_hat
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
from aejax.codec.passes import checkerboard, code_passes, merge_colours
from aejax.codec.quality import KNOTS, RATES, at_quality
from aejax.codec.transforms import Block, Mix
from aejax.nets import ops

TABLE_UNIT = 2.0**-8  # step of the stored tables of levels and means
# Levels per unit of a stored table. Adam changes all parameters at about the same speed; stored in
# units of one level, the tables would need thousands of steps for what takes a hundred.
TABLE_SCALE = 16.0


class HyperSynthesis(nn.Module):
    """Hyper-synthesis h_s, in exact arithmetic (exact.py).

    z_hat [b, h/2, w/2, N] --1x1--> + table(quality) --pixel shuffle 2--> u [b, h, w, features]
    u --depthwise 3x3, 1x1--> + u --> features [b, h, w, features]
    """

    features: int = 128
    frozen: bool = False

    @nn.compact
    def __call__(self, z_hat, quality):
        table = self.param("quality", nn.initializers.zeros, (KNOTS, 4 * self.features))
        table = table if self.frozen else exact.rounded(table, exact.BIAS_UNIT)
        u = jnp.clip(z_hat * 0.25, -7.75, 7.75)
        u = exact.ExactDense(self.frozen, 4 * self.features, scale=1.5)(u)
        u = u + at_quality(table, quality)
        u = ops.shuffle(exact.activation(u, 0.0), 2)
        v = exact.activation(exact.ExactDepthwise(self.frozen)(u), 0.0)
        v = exact.ExactDense(self.frozen, self.features)(v)
        return exact.activation(u + v)


class ContextModel(nn.Module):
    """Predicts mean and scale of one slice from what was coded before it, in exact arithmetic.

        features, y_hat of earlier slices --1x1--> shared
        shared [+ 1x1 of y_hat of colour 0] --depthwise 3x3, 1x1--> u --1x1--> mu
                                                                    u --1x1--> level offset

    Called once for each colour of the checkerboard, for colour 1 with y_hat of colour 0 (the
    anchors of He et al.). `shared` does not depend on the colour and is computed once.

    Attributes:
      size: channels of the slice.
      width: hidden channels.
      frozen: see exact.Exact.
    """

    size: int
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

    def shared(self, features: Array, earlier: Sequence[Array]) -> Float[Array, "b h w width"]:
        """The part that both colours use.

        Args:
          features: of h_s, [b, h, w, features].
          earlier: y_hat of each earlier slice.
        """
        parts = [features, *(exact.companded(v) for v in earlier)]
        return self.from_known(jnp.concatenate(parts, axis=-1))

    def __call__(self, shared: Array, anchors: Array | None = None) -> tuple[Array, Array]:
        """(mu, level offset), [b, h, w, size] each: multiples of 1/16, and integers.

        Args:
          anchors: y_hat of this slice at colour 0, zero elsewhere; None to predict colour 0.
        """
        u = shared
        if anchors is not None:
            colour = self.colour if self.frozen else exact.rounded(self.colour, exact.BIAS_UNIT)
            u = u + self.from_own(exact.companded(anchors)) + colour
        u = exact.activation(u, 0.0)
        u = exact.activation(self.depthwise(u), 0.0)
        u = exact.activation(self.mix(u), 0.0)
        return exact.rounded(self.mean(u), exact.UNIT), exact.rounded(self.scale(u) * 8.0)


class EntropyModel(nn.Module):
    """The bottleneck: gains, rounding, and a hyperprior with means, scales and context (Balle et
    al. 2018, arXiv 1802.01436; Minnen et al. 2018, arXiv 1809.02736; slices and checkerboard:
    passes.py).

        h --gain--> y --> round(y - mu) = symbols --> + mu = y_hat --ungain--> h_hat
                    |                    ^                    |
                    v                    | mu, level          v  of earlier passes
                   h_a --> z --round--> z_hat --> h_s --> ContextModel

    Called with h [b, h, w, latent] and cond {"quality": [b]} it returns (h_hat, terms): "bits_y"
    and "bits_z", [b] each, of y and z with uniform noise in training, of their symbols otherwise.

    Attributes:
      latent: channels of h.
      slices: channels of each slice; they sum to `latent`. Channels are in the order of the KLT's
        variances, largest first.
      z, features, width: channels of z, of h_s, and hidden channels of a ContextModel.
      hyper: "context" (all of the above), "mean-scale" (no context: mbt2018-mean), "scale" (no
        means: bmshj2018-hyperprior) or "factorized" (no z: bmshj2018-factorized).
      rounding: what g_s sees in training: "straight-through" (rounded latents) or "noise".
      frozen: the weights are final, see exact.Exact.
      rates: lambda at quality 0 and at quality 100, from which the gains are initialised.
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
        shape, zeros = (KNOTS, self.latent), nn.initializers.zeros

        def log_gain(key, shape):  # a quantisation step of sqrt(15 / lambda) on 0..255
            t = jnp.arange(KNOTS) * (32.0 / 255.0)
            lam = self.rates[0] * (self.rates[1] / self.rates[0]) ** t
            return jnp.broadcast_to(jnp.log(255.0 * jnp.sqrt(lam / 15.0))[:, None], shape)

        self.gain = self.param("gain", log_gain, shape)
        self.ungain = self.param("ungain", lambda key, shape: -log_gain(key, shape), shape)
        self.base = self.param("base", nn.initializers.constant(2.0), shape)
        if self.hyper != "factorized":
            # z starts with standard deviations of 0.3 to 1.2: with smaller ones it can collapse to
            # zero, and h_s would then have no input to learn from.
            z_base = jnp.broadcast_to(jnp.linspace(0.7, 1.25, KNOTS)[:, None], (KNOTS, self.z))
            self.z_gain = self.param("z_gain", zeros, (KNOTS, self.z))
            self.z_mean = self.param("z_mean", zeros, (KNOTS, self.z))
            self.z_base = self.param("z_base", lambda _: z_base)
            self.a_in, self.a_mid = Mix(self.features), Block()
            self.a_down, self.a_out = Mix(2 * self.features), Mix(self.z, scale=2.0)
            self.h_s = HyperSynthesis(self.features, self.frozen)
        if self.hyper == "context":
            self.passes = [ContextModel(s, self.width, self.frozen) for s in self.slices]
        elif self.hyper != "factorized":
            self.passes = [ContextModel(self.latent, self.width, self.frozen)]

    # --- the steps of coding, called one by one by codec/parts.py ---

    def scaled(self, h: Float[Array, "b h w k"], cond: dict) -> Float[Array, "b h w k"]:
        """h -> y = gain(quality) h, in units of the quantisation step."""
        return h * jnp.exp(at_quality(self.gain, cond["quality"]))

    def unscaled(self, y_hat: Float[Array, "b h w k"], cond: dict) -> Float[Array, "b h w k"]:
        """y_hat -> h_hat = ungain(quality) y_hat."""
        return y_hat * jnp.exp(at_quality(self.ungain, cond["quality"]))

    def hyper_analysis(self, y: Float[Array, "b h w k"], cond: dict) -> Float[Array, "b h2 w2 z"]:
        """h_a: y -> z before rounding, at half the resolution (h2 = ceil(h / 2))."""
        _, h, w, _ = y.shape
        y = jnp.pad(y, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        u = jnp.sign(y) * jnp.log1p(jnp.abs(y))
        u = self.a_mid(self.a_in(u))
        u = self.a_out(jax.nn.silu(self.a_down(ops.unshuffle(u, 2))))
        return u * jnp.exp(4.0 * at_quality(self.z_gain, cond["quality"]))

    def z_prior(self, cond: dict) -> tuple[Float[Array, "b 1 1 z"], Float[Array, "b 1 1 z"]]:
        """(mean, level) of the channels of z: integers that depend on the quality only."""
        mean = exact.rounded(self._at_quality(self.z_mean, cond))
        level = exact.rounded(self._at_quality(self.z_base, cond))
        return mean, exact.bounded(level, 1.0, LEVELS - 1.0)

    def hyper_synthesis(
        self, z_hat: Float[Array, "b h2 w2 z"], shape: Sequence[int], cond: dict
    ) -> Float[Array, "b h w features"]:
        """h_s: z_hat -> features, cropped to `shape` (h, w)."""
        return self.h_s(z_hat, cond["quality"])[:, : shape[0], : shape[1]]

    def base_levels(self, cond: dict) -> Float[Array, "b 1 1 k"]:
        """The level of each channel before the context model's offset, not rounded."""
        return self._at_quality(self.base, cond)

    def shared(self, i: int, features: Array, earlier: Sequence[Array]) -> Array:
        """What both colours of slice i share, see `ContextModel.shared`."""
        return self.passes[i].shared(features, earlier)

    def parameters(
        self, i: int, shared: Array, base: Array, anchors: Array | None = None
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
        """(mu, level) of slice i: mu a multiple of 1/16, level an integer 0..63. Symbols of level 0
        are zero and not coded.

        Args:
          base: base levels of the slice's channels.
          anchors: y_hat of the slice at colour 0, zero elsewhere; None to predict colour 0.
        """
        mu, offset = self.passes[i](shared, anchors)
        return mu, exact.bounded(exact.rounded(base + offset), 0.0, LEVELS - 1.0)

    def _at_quality(self, table, cond):
        """A table of levels or means at the qualities of `cond`, in levels."""
        if not self.frozen:
            table = exact.rounded(table, TABLE_UNIT)
        return at_quality(table, cond["quality"]) * TABLE_SCALE

    # --- training ---

    def __call__(self, h: Float[Array, "b h w k"], cond: dict, train: bool = False):
        y = self.scaled(h, cond)
        base, terms = self.base_levels(cond), {"bits_z": jnp.zeros(h.shape[0])}
        if self.hyper == "factorized":
            mu = jnp.zeros_like(y)
            level = exact.bounded(exact.rounded(base), 0.0, LEVELS - 1.0) + mu
            y_hat = exact.rounded(y)
        else:
            z_hat, terms["bits_z"] = self._quantised_z(y, cond, train)
            features = self.hyper_synthesis(z_hat, y.shape[1:3], cond)
            if self.hyper == "context":
                y_hat, mu, level = self._all_passes(y, features, base)
            else:
                mu, level = self.parameters(0, self.shared(0, features, ()), base)
                mu = jnp.zeros_like(mu) if self.hyper == "scale" else mu
                y_hat = exact.rounded(y - mu) + mu
        terms["bits_y"] = jnp.sum(self._bits(y, y_hat, mu, level, train), (1, 2, 3))
        if train and self.rounding == "noise":
            y_hat = y + self._noise(y)
        return self.unscaled(y_hat, cond), terms

    def _quantised_z(self, y: Array, cond: dict, train: bool) -> tuple[Array, Float[Array, " b"]]:
        """(z_hat, its bits [b])."""
        z = self.hyper_analysis(y, cond)
        mean, level = self.z_prior(cond)
        z_hat = exact.rounded(z - mean) + mean
        return z_hat, jnp.sum(self._bits(z, z_hat, mean, level, train), (1, 2, 3))

    def _all_passes(self, y: Array, features: Array, base: Array) -> tuple[Array, Array, Array]:
        """(y_hat, mu, level) of all slices, [b, h, w, latent] each."""
        colour0 = checkerboard(*y.shape[1:3])
        predictions: list[tuple[Array, Array]] = []  # (mu, level) of each pass

        def symbols_of(i, channels, colour, mu, level):
            predictions.append((mu, level))
            return exact.rounded(y[..., channels] - mu)

        y_hat = code_passes(
            self.slices,
            (colour0, 1.0 - colour0),
            lambda i, earlier: self.shared(i, features, earlier),
            lambda i, channels, shared, anchors: self.parameters(
                i, shared, base[..., channels], anchors
            ),
            symbols_of,
        )
        mu, level = merge_colours(colour0, predictions)
        return jnp.concatenate(y_hat, axis=-1), mu, level

    def _noise(self, y):
        return jax.random.uniform(self.make_rng("bottleneck"), y.shape, minval=-0.5, maxval=0.5)

    def _bits(self, y, y_hat, mu, level, train):
        y = y + self._noise(y) if train else y_hat
        return logistic_bits(y - mu, log_deviation(level))
