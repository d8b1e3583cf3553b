"""The lossless model: interlaced prediction by exact integer networks.

Level 0 of an image is the image; each next level is the even rows and columns of the one before.
Given the next level, which is the plane k, three passes predict the other samples of a level: t0 at
odd rows and odd columns, then t1 at even rows and odd columns, then t2 at odd rows and even
columns. All positions of a pass are predicted in parallel, by one evaluation of a network. Within a
pass, Y is coded before Co and then Cg (YCoCg-R), and each channel is predicted from those before
it.

The input at a position is a patch of known samples around it, as differences to the mean of the
four nearest ones (`base`). From it a network of exact integers (codec/exact.py) predicts a mixture
of three logistics per sample (as PixelCNN++, Salimans et al. 2017, arXiv 1701.05517):

    position  base + an offset in 1/16 + multiples of the residuals of earlier channels
    scale     one of 64, from S_MIN to S_MAX in equal ratios
    weight    2^(n / 4), n an integer

All three are integers, so that every machine decodes the same image. Training uses straight-through
gradients.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aejax.codec import exact
from aejax.codec.exact import ExactDense, ExactDepthwise, activation, bounded, rounded
from aejax.types import Output

K = 3  # logistics per sample
SCALES = 64
S_MIN, S_MAX = 0.05, 60.0  # smallest and largest scale of a logistic, in gray levels
LOG_STEP = math.log(S_MAX / S_MIN) / (SCALES - 1)
OFFSET = 2.0  # gray levels per unit of a network's output; larger makes Adam's steps too large
GAIN = math.sqrt(2.0)  # of initial weights before a ReLU (He initialisation)
WEIGHT_UNIT, WEIGHT_TOP = 0.25, 8.0  # step and limit of log2 weights
COUPLING_UNIT, COUPLING_TOP = 1.0 / 64, 2.0  # step and limit of the factors of earlier residuals
LOW = np.array([0.0, -255.0, -255.0], np.float32)  # lowest Y, Co, Cg
HIGH = 255.0
KINDS = 3  # the networks know levels 0, 1 and coarser ones apart

# Parity (row, column) of k, t0, t1, t2.
PARITY = ((0, 0), (1, 1), (0, 1), (1, 0))
# The four samples whose mean is `base`, for each pass: (plane, row, column) relative to the
# position, in pixels of the finer level.
NEAR = (
    ((0, -1, -1), (0, -1, 1), (0, 1, -1), (0, 1, 1)),
    ((0, 0, -1), (0, 0, 1), (1, -1, 0), (1, 1, 0)),
    ((0, -1, 0), (0, 1, 0), (1, 0, -1), (1, 0, 1)),
)


def _patch(i: int, reach: int) -> tuple[tuple[int, int, int], ...]:
    """The known samples around a position of pass i within squared distance `reach`, as of NEAR."""
    offsets = []
    ty, tx = PARITY[i + 1]
    for plane in range(i + 1):
        py, px = PARITY[plane]
        for dy in range(-5, 6):
            for dx in range(-5, 6):
                if (dy + ty - py) % 2 == 0 and (dx + tx - px) % 2 == 0:
                    if dy * dy + dx * dx <= reach:
                        offsets.append((plane, dy, dx))
    return tuple(offsets)


REACH = (18, 13, 10)  # squared distances: 16, 24 and 28 samples
PATCH = tuple(_patch(i, r) for i, r in enumerate(REACH))


def ycocg(rgb: Any) -> Any:
    """RGB -> Y, Co, Cg (YCoCg-R, Malvar and Sullivan 2003), a lossless transform of integers.

    Args:
      rgb: integers [..., 3], NumPy or JAX.

    >>> ycocg(np.array([10, 20, 30])).tolist()
    [20, -20, 0]
    """
    r, g, b = (rgb[..., i] for i in range(3))
    co = r - b
    t = b + (co >> 1)
    cg = g - t
    return (np if isinstance(rgb, np.ndarray) else jnp).stack([t + (cg >> 1), co, cg], -1)


def rgb(ycc: Any) -> Any:
    """The inverse of `ycocg`."""
    y, co, cg = (ycc[..., i] for i in range(3))
    t = y - (cg >> 1)
    g = cg + t
    b = t - (co >> 1)
    return (np if isinstance(ycc, np.ndarray) else jnp).stack([b + co, g, b], -1)


def split(x: Float[Array, "b h w c"]) -> list[Float[Array, "b h/2 w/2 c"]]:
    """The planes [k, t0, t1, t2] of a level with even sides."""
    return [x[:, i::2, j::2] for i, j in PARITY]


def shifted(planes, i: int, offsets) -> list[Array]:
    """For each of `offsets`, the samples at that offset from the positions of pass i, [b, h, w, 3].

    Args:
      planes: those coded before pass i, [b, h, w, 3] each; beyond their edges they are repeated.
      offsets: (plane, row, column), as of NEAR.
    """
    ty, tx = PARITY[i + 1]
    shifts = [
        (p, (dy + ty - PARITY[p][0]) // 2, (dx + tx - PARITY[p][1]) // 2) for p, dy, dx in offsets
    ]
    pad = max(max(abs(a), abs(b)) for _, a, b in shifts)
    h, w = planes[0].shape[1:3]
    padded = [
        jnp.pad(p, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge") for p in planes[: i + 1]
    ]
    return [padded[p][:, pad + a : pad + a + h, pad + b : pad + b + w] for p, a, b in shifts]


def base_of(planes, i: int) -> Float[Array, "b h w c"]:
    """The mean of the four nearest known samples of each position, a multiple of 1/4."""
    a, b, c, d = shifted(planes, i, NEAR[i])
    return (a + b + c + d) * 0.25


def patches(planes, i: int, base) -> Float[Array, "b h w n"]:
    """The input of pass i, activations: differences of the known samples to `base`, then `base`."""
    d = [exact.companded((s - base) * 0.25) for s in shifted(planes, i, PATCH[i])]
    level = activation((base - jnp.array([128.0, 0.0, 0.0])) * jnp.array([1 / 16, 1 / 32, 1 / 32]))
    return jnp.concatenate([*d, level], -1)


class Block(nn.Module):
    """A residual block in exact arithmetic.

    u --depthwise 3x3, if spatial--> 1x1 to `hidden`, ReLU --> 1x1 --> + u
    """

    hidden: int
    spatial: bool
    frozen: bool

    @nn.compact
    def __call__(self, u):
        v = u
        if self.spatial:
            v = activation(ExactDepthwise(self.frozen)(v))
        v = activation(ExactDense(self.frozen, self.hidden, GAIN)(v), 0.0)
        return activation(u + ExactDense(self.frozen, u.shape[-1], 0.5)(v))


class Pass(nn.Module):
    """The network of one pass, in exact arithmetic.

        patches of known samples --1x1--> blocks --> features [b, h, w, width]
        features, residuals of earlier channels --1x1, ReLU, 1x1--> mixture of the next channel

    Attributes:
      index: of the pass, 0 to 2.
      width, hidden, head, frozen: see Lossless.
      blocks: for each block whether it has the depthwise convolution.
    """

    index: int
    width: int
    blocks: tuple[bool, ...]
    hidden: int
    head: int
    frozen: bool = False

    def setup(self):
        f = self.frozen
        self.first = ExactDense(f, self.width, 2.0)  # scaled up to use the range of activations
        self.kind = self.param("kind", nn.initializers.zeros, (KINDS, self.width))
        self.trunk = [Block(self.hidden, s, f) for s in self.blocks]
        self.heads = [ExactDense(f, self.head, GAIN) for _ in range(3)]
        self.outs = [ExactDense(f, 3 * K + c, 0.15) for c in range(3)]

    def features(self, planes, base, kind):
        """Activations [b, h, w, width].

        Args:
          planes: those coded before this pass, [b, h, w, 3] each.
          base: of `base_of`.
          kind: number of the level, at most KINDS - 1.
        """
        x = patches(planes, self.index, base)
        kinds = self.kind if self.frozen else rounded(self.kind, exact.BIAS_UNIT)
        u = activation(self.first(x) + kinds[kind], 0.0)
        for block in self.trunk:
            u = block(u)
        return u

    def parameters(self, u, base, earlier):
        """The mixture of channel c = len(earlier).

        Args:
          u: of `features`.
          base: of `base_of`.
          earlier: residuals (sample - base) [b, h, w] of the channels before.

        Returns:
          (positions, numbers of scales, log2 weights), [b, h, w, K] each.
        """
        c = len(earlier)
        residuals = [exact.companded(e * 0.25)[..., None] for e in earlier]
        v = activation(self.heads[c](jnp.concatenate([u, *residuals], -1)), 0.0)
        o = self.outs[c](v)
        position = base[..., c, None] + rounded(OFFSET * o[..., :K], 1 / 16)
        for j, e in enumerate(earlier):
            factor = rounded(o[..., 3 * K + j], COUPLING_UNIT)
            factor = bounded(factor, -COUPLING_TOP, COUPLING_TOP)
            position = position + rounded(factor * e, 1 / 16)[..., None]
        initial = np.log(3.0 * np.array([0.5, 1.0, 2.2]) / S_MIN) / LOG_STEP
        scale = rounded(8.0 * o[..., K : 2 * K]) + np.round(initial).astype(np.float32)
        scale = bounded(scale, 0.0, SCALES - 1.0)
        weight = bounded(rounded(2.0 * o[..., 2 * K : 3 * K], WEIGHT_UNIT), -WEIGHT_TOP, WEIGHT_TOP)
        return position, scale, weight


def log2_likelihood(
    x: Float[Array, "*s"],
    position: Float[Array, "*s k"],
    scale: Float[Array, "*s k"],
    weight: Float[Array, "*s k"],
    low: float,
    high: float,
) -> Float[Array, "*s"]:
    """log2 P(x) under discretised mixtures of logistics; the mass outside [low, high] is added to
    the ends.

    Args:
      x: integers as floats.
      position, scale, weight: as returned by `Pass.parameters`.
    """
    inverse = jnp.exp(-LOG_STEP * scale) / S_MIN
    x = x[..., None]
    log_cdf = -jax.nn.softplus(-(x + 0.5 - position) * inverse)
    log_survival = -jax.nn.softplus((x - 0.5 - position) * inverse)
    inside = log_cdf + log_survival + jnp.log(-jnp.expm1(-inverse))
    log_mass = jnp.where(x <= low, log_cdf, jnp.where(x >= high, log_survival, inside))
    log_w = jax.nn.log_softmax(weight * math.log(2.0), -1)
    return jax.nn.logsumexp(log_mass + log_w, -1) / math.log(2.0)


class Lossless(nn.Module):
    """Interlaced lossless image model; returns the bits of images.

        x [b, H, W, 3] --YCoCg-R--> level 0 --even rows and columns--> level 1 --> ... level L

        of each level n, given level n + 1 = k:
        k --------------Pass 0--> mixtures of t0 (odd, odd)
        k, t0 ----------Pass 1--> mixtures of t1 (even, odd)
        k, t0, t1 ------Pass 2--> mixtures of t2 (odd, even)
        in each pass: patches --> features --> Y --> Co --> Cg

    Each pass has one network, which all levels share.

    Attributes:
      width: channels of a pass's network.
      blocks: for each of its blocks, whether it has a depthwise 3x3 convolution.
      hidden: hidden channels of a block.
      head: hidden channels of the layers that predict a channel's mixture.
      levels: number of levels counted in training.
      frozen: the parameters are final, see exact.Exact.
    """

    width: int = 64
    blocks: tuple[bool, ...] = (True, True, True)
    hidden: int = 128
    head: int = 32
    levels: int = 3
    frozen: bool = False

    def setup(self):
        self.passes = [
            Pass(i, self.width, tuple(self.blocks), self.hidden, self.head, self.frozen)
            for i in range(3)
        ]

    def level_bits(self, x: Float[Array, "b h w 3"], kind: int) -> Float[Array, " b"]:
        """Bits of a level given the next one; Co and Cg of gray images count nothing.

        Args:
          x: Y, Co, Cg of the level, with even sides.
          kind: number of the level, at most KINDS - 1.
        """
        planes = split(x)
        total: Any = 0.0
        is_coloured = jnp.any(x[..., 1:] != 0, (1, 2, 3))
        for i, net in enumerate(self.passes):
            base = base_of(planes, i)
            u = net.features(planes, base, kind)
            target, earlier = planes[i + 1], []
            for c in range(3):
                mixture = net.parameters(u, base, earlier)
                bits = -log2_likelihood(target[..., c], *mixture, float(LOW[c]), HIGH)
                bits = bits.sum((1, 2))
                total = total + (bits * is_coloured if c else bits)
                earlier.append(target[..., c] - base[..., c])
        return total

    def __call__(self, x: Float[Array, "b h w 3"], cond=None, train: bool = False) -> Output:
        """x -> Output; terms: "bits" of each image [b] without its coarsest level, and "level_0",
        ..., bits per sample of each level.

        Args:
          x: RGB, multiples of 1/255 in [0, 1]; sides are multiples of 2^levels.
        """
        level = ycocg(jnp.floor(x * 255.0 + 0.5).astype(jnp.int32)).astype(jnp.float32)
        terms: dict[str, Array] = {}
        total: Any = 0.0
        for n in range(self.levels):
            bits = self.level_bits(level, min(n, KINDS - 1))
            terms[f"level_{n}"] = bits / (level.shape[1] * level.shape[2] * 9 / 4)
            total = total + bits
            level = level[:, ::2, ::2]
        coarse = rgb(level.astype(jnp.int32)).astype(jnp.float32) / 255.0
        return Output(level, level, coarse, {"bits": total, **terms})
