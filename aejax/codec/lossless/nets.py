"""Interlaced prediction: what is known of an image tells the distribution of the rest.

An image is split into levels, each the even rows and columns of the one before. From a level's
coarser grid k three passes give the others: t0 at odd rows and odd columns, then t1 at even rows
and odd columns, then t2 at odd rows and even columns. Within a pass all positions are independent,
so that a pass is one evaluation of a network. In it, luma comes before the two colour differences
(YCoCg-R), and each sees the ones before.

Every position has a patch of known samples around it, as differences to the mean of the nearest
four (`base`); networks of exact integers (`codec.exact`) make of it three logistics per sample:

    position  base + an offset, in 1/16 of a sample (plus multiples of earlier channels' residuals)
    scale     one of 64, S_MIN to S_MAX in equal ratios
    weight    2^(n / 4), n whole

so that a decoder finds the same integers on any machine. In training the roundings pass the
gradient.
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

K = 3  # logistics of a sample
SCALES = 64
S_MIN, S_MAX = 0.05, 60.0  # of a logistic, in samples
LOG_STEP = math.log(S_MAX / S_MIN) / (SCALES - 1)
OFFSET = 2.0  # samples per unit of the networks' output: more makes a step of Adam's too large
GAIN = math.sqrt(2.0)  # of weights before a rectifier, at the start
WEIGHT_UNIT, WEIGHT_TOP = 0.25, 8.0  # of log2 weights
COUPLING_UNIT, COUPLING_TOP = 1.0 / 64, 2.0
LOW = np.array([0.0, -255.0, -255.0], np.float32)  # of Y, Co, Cg
HIGH = 255.0
KINDS = 3  # levels that are told apart; coarser ones are as the last

# Parity (row, column) of k, t0, t1, t2.
PARITY = ((0, 0), (1, 1), (0, 1), (1, 0))
# Of each pass: the four samples whose mean is `base`, and the patch, as (plane, row, column)
# relative to the position, in pixels of the finer level.
NEAR = (
    ((0, -1, -1), (0, -1, 1), (0, 1, -1), (0, 1, 1)),
    ((0, 0, -1), (0, 0, 1), (1, -1, 0), (1, 1, 0)),
    ((0, -1, 0), (0, 1, 0), (1, 0, -1), (1, 0, 1)),
)


def _patch(i: int, reach: int) -> tuple[tuple[int, int, int], ...]:
    """All known samples within `reach` (squared distance) of a position of pass i."""
    places = []
    ty, tx = PARITY[i + 1]
    for plane in range(i + 1):
        py, px = PARITY[plane]
        for dy in range(-5, 6):
            for dx in range(-5, 6):
                if (dy + ty - py) % 2 == 0 and (dx + tx - px) % 2 == 0:
                    if dy * dy + dx * dx <= reach:
                        places.append((plane, dy, dx))
    return tuple(places)


REACH = (18, 13, 10)  # 16, 24 and 28 samples
PATCH = tuple(_patch(i, r) for i, r in enumerate(REACH))


def ycocg(rgb: Any) -> Any:
    """RGB -> Y, Co, Cg, whole numbers (YCoCg-R, Malvar and Sullivan 2003); arrays [..., 3] of
    integers."""
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
    """[k, t0, t1, t2] of a level with even sides."""
    return [x[:, i::2, j::2] for i, j in PARITY]


def shifted(planes, i: int, offsets) -> list[Array]:
    """The samples at `offsets` from each position of pass i; the planes' edges are repeated."""
    ty, tx = PARITY[i + 1]
    moves = [
        (p, (dy + ty - PARITY[p][0]) // 2, (dx + tx - PARITY[p][1]) // 2) for p, dy, dx in offsets
    ]
    pad = max(max(abs(a), abs(b)) for _, a, b in moves)
    h, w = planes[0].shape[1:3]
    padded = [
        jnp.pad(p, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge") for p in planes[: i + 1]
    ]
    return [padded[p][:, pad + a : pad + a + h, pad + b : pad + b + w] for p, a, b in moves]


def base_of(planes, i: int) -> Float[Array, "b h w c"]:
    """The mean of the four nearest known samples, a multiple of 1/4."""
    a, b, c, d = shifted(planes, i, NEAR[i])
    return (a + b + c + d) * 0.25


def patches(planes, i: int, base) -> Float[Array, "b h w n"]:
    """Known samples around each position as activations: differences to `base`, then the level of
    `base` itself."""
    d = [exact.companded((s - base) * 0.25) for s in shifted(planes, i, PATCH[i])]
    level = activation((base - jnp.array([128.0, 0.0, 0.0])) * jnp.array([1 / 16, 1 / 32, 1 / 32]))
    return jnp.concatenate([*d, level], -1)


class Block(nn.Module):
    """Residual, in exact arithmetic: u --[depthwise 3x3]--> dense to `hidden` --> dense --> + u."""

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

    known samples around each position --dense--> blocks --> features [b, h, w, width]
    features, residuals of the channels before --dense, dense--> mixture of the next channel
    """

    index: int
    width: int
    blocks: tuple[bool, ...]  # of each: spatial or not
    hidden: int
    head: int
    frozen: bool = False

    def setup(self):
        f = self.frozen
        self.first = ExactDense(f, self.width, 2.0)  # to use the range of activations
        table = nn.initializers.zeros
        self.kind = self.param("kind", table, (KINDS, self.width))
        self.trunk = [Block(self.hidden, s, f) for s in self.blocks]
        self.heads = [ExactDense(f, self.head, GAIN) for _ in range(3)]
        self.outs = [ExactDense(f, 3 * K + c, 0.15) for c in range(3)]

    def features(self, planes, base, kind):
        """Activations [b, h, w, width]; kind: level's number, at most KINDS - 1."""
        x = patches(planes, self.index, base)
        kinds = self.kind if self.frozen else rounded(self.kind, exact.BIAS_UNIT)
        u = activation(self.first(x) + kinds[kind], 0.0)
        for block in self.trunk:
            u = block(u)
        return u

    def parameters(self, u, base, earlier):
        """(positions, scales' numbers, log2 weights), each [b, h, w, K], of channel
        len(earlier); earlier: residuals (sample - base) of the channels before."""
        c = len(earlier)
        seen = [exact.companded(e * 0.25)[..., None] for e in earlier]
        v = activation(self.heads[c](jnp.concatenate([u, *seen], -1)), 0.0)
        o = self.outs[c](v)
        start = np.log(3.0 * np.array([0.5, 1.0, 2.2]) / S_MIN) / LOG_STEP
        at = base[..., c, None] + rounded(OFFSET * o[..., :K], 1 / 16)
        for j, e in enumerate(earlier):
            by = bounded(rounded(o[..., 3 * K + j], COUPLING_UNIT), -COUPLING_TOP, COUPLING_TOP)
            at = at + rounded(by * e, 1 / 16)[..., None]
        level = rounded(8.0 * o[..., K : 2 * K]) + np.round(start).astype(np.float32)
        level = bounded(level, 0.0, SCALES - 1.0)
        weight = bounded(rounded(2.0 * o[..., 2 * K : 3 * K], WEIGHT_UNIT), -WEIGHT_TOP, WEIGHT_TOP)
        return at, level, weight


def log2_likelihood(x, at, level, weight, low: float, high: float):
    """log2 of the mixture's mass on whole x [...]; parameters [..., K]. What lies outside
    [low, high] counts for the ends."""
    inverse = jnp.exp(-LOG_STEP * level) / S_MIN
    up = (x[..., None] + 0.5 - at) * inverse
    down = (x[..., None] - 0.5 - at) * inverse
    log_up, log_down = -jax.nn.softplus(-up), -jax.nn.softplus(down)
    inside = log_up + log_down + jnp.log(-jnp.expm1(-inverse))
    x = x[..., None]
    mass = jnp.where(x <= low, log_up, jnp.where(x >= high, log_down, inside))
    w = jax.nn.log_softmax(weight * math.log(2.0), -1)
    return jax.nn.logsumexp(mass + w, -1) / math.log(2.0)


class Lossless(nn.Module):
    """Bits of images, level by level.

        x --YCoCg-R--> level 0 --even rows and columns--> level 1 --> ...
        each level, given the next: three passes, Y, Co and Cg in each --> bits

    Args:
      width: channels of a pass's network; blocks: of each of its blocks, whether it looks at
        neighbours; hidden: channels between a block's dense layers; head: hidden channels of a
        sample's layer.
      levels: how many are counted in training.
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
        """Bits of what level x (Y, Co, Cg; even sides) has beyond its coarser grid. Gray images
        have no colour differences to code."""
        planes = split(x)
        total: Any = 0.0
        coloured = jnp.any(x[..., 1:] != 0, (1, 2, 3))
        for i, net in enumerate(self.passes):
            base = base_of(planes, i)
            u = net.features(planes, base, kind)
            target, earlier = planes[i + 1], []
            for c in range(3):
                mixture = net.parameters(u, base, earlier)
                bits = -log2_likelihood(target[..., c], *mixture, float(LOW[c]), HIGH)
                bits = bits.sum((1, 2))
                total = total + (bits * coloured if c else bits)
                earlier.append(target[..., c] - base[..., c])
        return total

    def __call__(self, x: Float[Array, "b h w 3"], cond=None, train: bool = False) -> Output:
        """x: RGB in [0, 1], multiples of 1/255. terms: "bits" of each image, and those of each
        level; the coarsest grid counts nothing."""
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
