"""The networks of the codec: g_a = f_E, the hyperprior with its context, g_s = f_D.

    x [b, H, W, 3] --g_a--> h [b, H/16, W/16, M] --gain(q)--> y --round(y - mu) + mu--> y_hat
    y --h_a--> z [b, H/32, W/32, N] --round--> z_hat --h_s--> features
    features, y_hat of earlier slices and of the other colour of the chequerboard --> mu, scale
    y_hat --1/gain(q)--> h_hat --g_s--> x_hat

All work is done at 1/8 and 1/16 of the image's side, after pixel unshuffle, by blocks of 1x1
products, a depthwise 3x3 and a gate (DCVC-RT, arXiv 2502.20762): on a CPU nothing else comes near
in decibels per second. Both transforms have a linear path, which starts as the KLT of 16x16 blocks
of the training images, and a network beside it that starts at zero: the model is a JPEG without
tables before its first step, and never worse.

One model serves all rates: `cond["quality"]`, 0 to 100, in steps of 1/2.55 as the file stores it,
chooses gains per channel by linear interpolation between nine learned ones.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.codec import exact
from aejax.errors import UserError
from aejax.nets import ops
from aejax.types import Cond, Output

STRIDE = 16  # pixels per side of one latent
KNOTS = 9  # quality nodes, 32 steps of the byte apart
LEVELS = 64  # scale levels = probability tables
SIGMA_MIN, SIGMA_MAX = 0.08, 320.0
LOG_STEP = math.log(SIGMA_MAX / SIGMA_MIN) / (LEVELS - 1)
TABLE_UNIT = 2.0**-8  # of the stored tables of levels and means
TABLE_SCALE = 16.0  # levels per unit of a table: they must move as fast as weights do
# Adam moves every stored weight alike. These two keep its steps small where they matter most: in
# the KLT, whose inputs all swing together with the picture's brightness, and in the last layers,
# whose input is not normalised. Without them a run at 1e-3 blew up for a hundred steps.
KLT_SCALE = 64.0  # of the stored KLT
LAST_SCALE = 8.0  # of the last layers' stored weights
RATES = (0.0009, 0.15)  # lambda of bpp + lambda * MSE on 0..255, at quality 0 and 100


def quality_byte(quality: Float[Array, " b"]) -> Float[Array, " b"]:
    """0..100 -> the whole number 0..255 that the file stores."""
    return jnp.clip(jnp.floor(quality * 2.55 + 0.5), 0, 255)


def lagrangian(quality: Float[Array, " b"], rates: Sequence[float] = RATES) -> Float[Array, " b"]:
    """lambda of a quality, log-spaced between the `rates` of quality 0 and 100."""
    t = quality_byte(quality) / 255.0
    return rates[0] * (rates[1] / rates[0]) ** t


def at_quality(table: Float[Array, "k c"], quality: Float[Array, " b"]) -> Float[Array, "b 1 1 c"]:
    """Linear interpolation between the nodes; exact if the nodes are integers below 2^18 times a
    power of two, as the weights are multiples of 1/32 (and no matrix unit is asked)."""
    t = quality_byte(quality) / 32.0
    w = jnp.maximum(0.0, 1.0 - jnp.abs(t[:, None] - jnp.arange(KNOTS)))  # [b, k]
    return jnp.sum(w[:, :, None] * table, axis=1)[:, None, None]


def dense_init(scale: float = 1.0):
    """Normal of standard deviation scale / sqrt(fan in)."""
    return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")


class Mix(nn.Module):
    """1x1: [..., c] -> [..., features]."""

    features: int
    scale: float = 1.0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        w = self.param("kernel", dense_init(self.scale), (x.shape[-1], self.features))
        y = ops.dense(x, w.astype(x.dtype)).astype(x.dtype)
        if self.use_bias:
            y = ops.add_bias(y, self.param("bias", nn.initializers.zeros, (self.features,)))
        return y


class Block(nn.Module):
    """x + 1x1(gate(depthwise(1x1(norm x)))), then x + 1x1(gate(1x1(norm x))): 6 c^2 products.

    Its own copy of the house's gated block, as shipped weights pin every detail of it.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        c = x.shape[-1]
        ones = nn.initializers.ones

        def depthwise(key, shape):
            return jnp.zeros(shape).at[1, 1].set(1.0) + 0.2 * jax.random.normal(key, shape)

        u = ops.channel_norm(x, self.param("norm1", ones, (c,)).astype(x.dtype), 1e-6)
        u = Mix(2 * c)(u)
        u = ops.depthwise(u, self.param("depthwise", depthwise, (3, 3, 2 * c)).astype(x.dtype))
        u = u[..., :c] * jax.nn.sigmoid(u[..., c:])
        x = x + Mix(c, scale=0.1)(u)
        u = ops.channel_norm(x, self.param("norm2", ones, (c,)).astype(x.dtype), 1e-6)
        u = Mix(2 * c)(u)
        return x + Mix(c, scale=0.1)(u[..., :c] * jax.nn.sigmoid(u[..., c:]))


class Analysis(nn.Module):
    """g_a: x [b, H, W, c] in [0, 1], H and W multiples of 16 -> h [b, H/16, W/16, latent]."""

    latent: int = 320
    width: Sequence[int] = (192, 256)  # at 1/8, at 1/16
    blocks: Sequence[int] = (5, 3)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], cond: dict, train: bool = False):
        x = x - 0.5
        shape = (STRIDE**2 * x.shape[-1], self.latent)
        klt = self.param("klt", dense_init(KLT_SCALE), shape)
        linear = ops.dense(ops.unshuffle(x, STRIDE), klt * (1.0 / KLT_SCALE))
        quality, zeros = cond["quality"], nn.initializers.zeros
        u = Mix(self.width[0], scale=2.0)(ops.unshuffle(x, 8).astype(self.dtype))
        for i, (width, blocks) in enumerate(zip(self.width, self.blocks, strict=True)):
            if i:
                u = Mix(width)(ops.unshuffle(u, 2))
            tune = self.param(f"quality{i}", zeros, (KNOTS, width))
            u = u * jnp.exp(at_quality(tune, quality)).astype(u.dtype)
            for _ in range(blocks):
                u = Block()(u)
        return linear + Mix(self.latent, scale=0.1)(u).astype(jnp.float32) * (1.0 / LAST_SCALE)


class Synthesis(nn.Module):
    """g_s: h_hat [b, h, w, latent] -> x_hat [b, 16 h, 16 w, c], about [0, 1], not clipped."""

    latent: int = 320
    width: Sequence[int] = (192, 256)  # at 1/8, at 1/16
    blocks: Sequence[int] = (3, 2)
    channels: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h_hat: Float[Array, "b h w k"], cond: dict, train: bool = False):
        shape = (self.latent, STRIDE**2 * self.channels)
        klt = self.param("klt", dense_init(KLT_SCALE), shape)
        linear = ops.dense(h_hat, klt * (1.0 / KLT_SCALE))
        quality, zeros = cond["quality"], nn.initializers.zeros
        # The latents' own sizes differ by a thousand; `weigh` starts as one over the deviations.
        weigh = self.param("weigh", nn.initializers.ones, (self.latent,))
        u = (h_hat * weigh).astype(self.dtype)
        for i, (width, blocks) in reversed(
            list(enumerate(zip(self.width, self.blocks, strict=True)))
        ):
            top = i == len(self.width) - 1
            u = Mix(width)(u) if top else ops.shuffle(Mix(4 * width)(u), 2)
            tune = self.param(f"quality{i}", zeros, (KNOTS, width))
            u = u * jnp.exp(at_quality(tune, quality)).astype(u.dtype)
            for _ in range(blocks):
                u = Block()(u)
        net = Mix(64 * self.channels, scale=0.1)(u).astype(jnp.float32) * (1.0 / LAST_SCALE)
        return ops.shuffle(linear, STRIDE) + ops.shuffle(net, 8) + 0.5


def log_deviation(level):
    """log sigma of a scale level, a number or an array of them."""
    return math.log(SIGMA_MIN) + LOG_STEP * level


def logistic_bits(v: Float[Array, "..."], log_sigma: Float[Array, "..."]) -> Float[Array, "..."]:
    """-log2 of the probability that a zero-mean logistic variable of standard deviation
    exp(log_sigma) falls within 1/2 of v. In log space throughout: a difference of two float32
    distribution functions is zero in the tails, and a floor under it has no gradient."""
    inverse = jnp.exp(-log_sigma) * (math.pi / math.sqrt(3.0))
    a, b = (jnp.abs(v) - 0.5) * inverse, (jnp.abs(v) + 0.5) * inverse
    log_p = -jax.nn.softplus(a) - jax.nn.softplus(-b) + jnp.log(-jnp.expm1(a - b))
    return log_p * (-1.0 / math.log(2.0))


class Features(nn.Module):
    """h_s: z_hat [b, h/2, w/2, N] -> features [b, h, w, C], exact."""

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
    """(mu, levels above the base) of one slice, exact, from all that is known before it.

    Called once for each colour of the chequerboard; what does not depend on the colour is computed
    once (`known`).
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

    def known(self, features, earlier):
        """What both colours share. features: activations; earlier: y_hat of earlier slices."""
        parts = [features, *(exact.companded(v) for v in earlier)]
        return self.from_known(jnp.concatenate(parts, axis=-1))

    def __call__(self, known, own=None):
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
    """The bottleneck: gains, rounding, and the model of its rate.

    Slices of channels, in the order of the KLT's variances, times two colours of a chequerboard:
    each of the 2 * len(slices) passes knows all earlier ones (Minnen and Singh 2020, arXiv
    2007.08739; He et al. 2021, arXiv 2103.15306). z, then the passes, are the scans of a file.

    Terms: "bits_y", "bits_z" of each example: by noise in training, of the symbols otherwise.

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

    def gained(self, h, cond):
        """h -> y, in units of the quantiser's step."""
        return h * jnp.exp(at_quality(self.gain, cond["quality"]))

    def ungained(self, y_hat, cond):
        """y_hat -> h_hat."""
        return y_hat * jnp.exp(at_quality(self.ungain, cond["quality"]))

    def hyper_analysis(self, y, cond):
        """h_a: y -> z (real) on half the grid, rounded up."""
        _, h, w, _ = y.shape
        y = jnp.pad(y, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        u = jnp.sign(y) * jnp.log1p(jnp.abs(y))
        u = self.a_mid(self.a_in(u))
        u = self.a_out(jax.nn.silu(self.a_down(ops.unshuffle(u, 2))))
        return u * jnp.exp(4.0 * at_quality(self.z_gain, cond["quality"]))

    def z_prior(self, cond):
        """(mean, level) of z [b, 1, 1, N], whole numbers that depend on the quality alone."""
        mean = self._nodes(self.z_mean, cond)
        return exact.rounded(mean), exact.bounded(
            exact.rounded(self._nodes(self.z_base, cond)), 1.0, LEVELS - 1.0
        )

    def hyper_synthesis(self, z_hat, shape, cond):
        """h_s: z_hat -> features for a grid of `shape` (h, w)."""
        return self.h_s(z_hat, cond["quality"])[:, : shape[0], : shape[1]]

    def base_levels(self, cond):
        """The level of each channel where nothing else is known, not rounded."""
        return self._nodes(self.base, cond)

    def known(self, i, features, earlier):
        """Of slice i, what both colours share."""
        return self.passes[i].known(features, earlier)

    def parameters(self, i, known, base, own=None):
        """(mu, level) of slice i: level in 0..63, whole; level 0 is never coded."""
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
        features = None
        if self.hyper != "factorized":
            z = self.hyper_analysis(y, cond)
            mean, level = self.z_prior(cond)
            z_hat = exact.rounded(z - mean) + mean
            terms["bits_z"] = jnp.sum(self._bits(z, z_hat, mean, level, train), (1, 2, 3))
            features = self.hyper_synthesis(z_hat, y.shape[1:3], cond)
        if self.hyper == "factorized":
            mu = jnp.zeros_like(y)
            level = exact.bounded(exact.rounded(base), 0.0, LEVELS - 1.0) + mu
            y_hat = exact.rounded(y)
        elif self.hyper == "context":
            y_hat, mu, level = self._sequential(y, features, base)
        else:
            mu, level = self.parameters(0, self.known(0, features, ()), base)
            mu = jnp.zeros_like(mu) if self.hyper == "scale" else mu
            y_hat = exact.rounded(y - mu) + mu
        terms["bits_y"] = jnp.sum(self._bits(y, y_hat, mu, level, train), (1, 2, 3))
        if train and self.rounding == "noise":
            y_hat = y + self._noise(y)
        return self.ungained(y_hat, cond), terms

    def _sequential(self, y, features, base):
        first = chequer(*y.shape[1:3])
        done, out, start = [], [], 0
        for i, size in enumerate(self.slices):
            own, b = y[..., start : start + size], base[..., start : start + size]
            known = self.known(i, features, done)
            mu, level = self.parameters(i, known, b)
            hat = (exact.rounded(own - mu) + mu) * first
            mu2, level2 = self.parameters(i, known, b, hat)
            hat = hat + (exact.rounded(own - mu2) + mu2) * (1.0 - first)
            out.append((hat, jnp.where(first > 0, mu, mu2), jnp.where(first > 0, level, level2)))
            done.append(hat)
            start += size
        return tuple(jnp.concatenate(part, axis=-1) for part in zip(*out, strict=True))

    def _noise(self, y):
        return jax.random.uniform(self.make_rng("bottleneck"), y.shape, minval=-0.5, maxval=0.5)

    def _bits(self, y, y_hat, mu, level, train):
        value = y + self._noise(y) if train else y_hat
        return logistic_bits(value - mu, log_deviation(level))


def chequer(h: int, w: int) -> Float[Array, "h w 1"]:
    """1 on the first colour, which holds the corner, else 0."""
    return 1.0 - ((jnp.arange(h)[:, None] + jnp.arange(w)) % 2)[..., None].astype(jnp.float32)


def whole(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """x with its last row and column repeated up to whole strides."""
    pad = [(0, 0), *((0, -n % STRIDE) for n in x.shape[1:3]), (0, 0)]
    return jnp.pad(x, pad, mode="edge") if any(p for _, p in pad) else x


class Codec(nn.Module):
    """The whole model, with the methods of an AutoEncoder: x -> h -> h_hat -> y.

    Attributes:
      latent: M, channels of h at 1/16.
      width: channels at 1/8 and 1/16. encoder, decoder: blocks at each of the two.
      slices, z, features, context, hyper, rounding, frozen: see Entropy (context: its `width`).
      rates: lambda at quality 0 and at quality 100.
    """

    latent: int = 320
    width: Sequence[int] = (192, 256)
    encoder: Sequence[int] = (5, 3)
    decoder: Sequence[int] = (3, 2)
    slices: Sequence[int] = (32, 64, 96, 128)
    z: int = 16
    features: int = 128
    context: int = 192
    hyper: str = "context"
    rounding: str = "straight-through"
    frozen: bool = False
    rates: Sequence[float] = RATES
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if sum(self.slices) != self.latent:
            raise UserError(f"slices of {self.slices} channels do not make {self.latent}")
        self.f_E = Analysis(self.latent, self.width, self.encoder, self.dtype)
        self.bottleneck = Entropy(
            self.latent, self.slices, self.z, self.features, self.context, self.hyper,
            self.rounding, self.frozen, self.rates,
        )  # fmt: skip
        self.f_D = Synthesis(self.latent, self.width, self.decoder, dtype=self.dtype)

    def __call__(self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False):
        """The whole equation; without cond at quality 50."""
        cond = cond or {"quality": jnp.full(x.shape[0], 50.0)}
        h = self.f_E(whole(x), cond, train)
        h_hat, terms = self.bottleneck(h, cond, train)
        y = self.f_D(h_hat, cond, train)
        return Output(h, h_hat, y[:, : x.shape[1], : x.shape[2]], terms)

    def encode(self, x: Float[Array, "b h w c"], cond: Cond = None):
        """h_hat of x."""
        cond = cond or {"quality": jnp.full(x.shape[0], 50.0)}
        return self.bottleneck(self.f_E(whole(x), cond, False), cond, False)[0]

    def decode(self, h_hat: Float[Array, "b h w k"], cond: Cond = None):
        """x_hat of h_hat."""
        cond = cond or {"quality": jnp.full(h_hat.shape[0], 50.0)}
        return self.f_D(h_hat, cond, False)
