"""Entropy coding of samples under mixtures of logistics, in integer arithmetic.

Position, scale and weight of each logistic are integers (nets.py), and so is the mixture's CDF:
C(x) is 2^16 times the sum of the weights times the logistic CDFs at x - 1/2, from a table computed
with integers, plus a floor. A sample is coded as binary decisions whose probabilities are ratios of
differences of C, rounded to multiples of 2^-16:

    is it within 8 of the mean?  yes: four bisections of those 16 values
                                 no: is it below them? then bisections of that side

Each decision is coded for all samples of a channel of a pass with one call of the range coder.
"""

import dataclasses
import functools
from collections.abc import Callable

import constriction
import numpy as np

from aejax.codec.lossless.nets import SCALES
from aejax.codec.range_coder import CorruptStream, encoded, new_decoder, new_encoder

BITS = 16  # precision of probabilities
SPAN = 16  # the logistic CDF is tabulated to this many scales from its position
STEPS = 2048  # entries of its table per scale
FLOOR = 256  # added to C for each value: the least likely value costs about 20 bits
HALF = 8  # half the width of the window around the mean
WEIGHT_BITS = 12  # the largest weight of a mixture is 2^12

# (lowest value, highest value + 1) of Y, Co, Cg.
RANGES = ((0, 256), (-255, 256), (-255, 256))

# Constants in units of 2^-60, from which the tables are computed with integers: e^(-1/2048),
# 2^(1/4), and the ratio of the inverses of successive scales, (S_MIN / S_MAX)^(1/63).
_ONE = 1 << 60
_DECAY, _ROOT, _RATIO = 1152358692070012245, 1371062456318104878, 1030205459455699350

_decision = constriction.stream.model.Bernoulli(perfect=False)


@functools.cache
def logistic() -> np.ndarray:
    """The CDF of the logistic: 2^16 / (1 + e^(-t / STEPS)) for t = -SPAN STEPS ... SPAN STEPS,
    int32 [2 SPAN STEPS + 1]."""
    upper, e = [], _ONE
    for _ in range(SPAN * STEPS + 1):
        upper.append(((_ONE << BITS) + ((_ONE + e) >> 1)) // (_ONE + e))
        e = e * _DECAY >> 60
    upper = np.array(upper, np.int32)
    return np.concatenate([(1 << BITS) - upper[:0:-1], upper])


@functools.cache
def scales() -> tuple[np.ndarray, np.ndarray]:
    """(rate, reach) of each scale, int32 [SCALES].

    A distance d from the position, in 1/16 and at most `reach`, is at entry (d rate + 32) >> 6 of
    the table of `logistic`, counted from its middle.
    """
    rate, reach, inverse = [], [], 20 << 60  # 1 / S_MIN
    for _ in range(SCALES):
        rate.append((8192 * inverse + (_ONE >> 1)) >> 60)
        reach.append((SPAN * 16 << 60) // inverse)
        inverse = inverse * _RATIO >> 60
    return np.array(rate, np.int32), np.array(reach, np.int32)


@functools.cache
def weights() -> np.ndarray:
    """2^(12 - n / 4) for n = 0 ... 63, rounded down, int32 [64]."""
    roots = [_ONE]
    for _ in range(3):
        roots.append(roots[-1] * _ROOT >> 60)
    # 2^(-n/4) = 2^(-ceil(n / 4)) 2^(r / 4)
    exponents = [(-(-n // 4), -n % 4) for n in range(64)]
    return np.array([(roots[r] << WEIGHT_BITS) >> (60 + e) for e, r in exponents], np.int32)


@dataclasses.dataclass
class Mixture:
    """The distributions of n samples.

    Attributes:
      position: of the logistics, in 1/16, int32 [K, n].
      rate, reach: their scales, see `scales`, int32 [K, n].
      weight: at most 2^12, int32 [K, n].
      low, high: lowest value, and highest value + 1.
    """

    position: np.ndarray
    rate: np.ndarray
    reach: np.ndarray
    weight: np.ndarray
    low: int
    high: int

    @classmethod
    def of(
        cls, position: np.ndarray, scale: np.ndarray, log_weight: np.ndarray, channel: int
    ) -> "Mixture":
        """The mixtures with the parameters that a network predicts, int32 [K, n] each.

        Args:
          position: in 1/16.
          scale: number of the scale, 0 to SCALES - 1.
          log_weight: 4 log2 of the weights, up to a constant.
          channel: 0 Y, 1 Co, 2 Cg.
        """
        rate, reach = scales()
        weight = weights()[np.minimum(log_weight.max(0) - log_weight, 63)]
        low, high = RANGES[channel]
        return cls(position, rate[scale], reach[scale], weight, low, high)

    def __getitem__(self, index: np.ndarray) -> "Mixture":
        """The distributions of the samples at `index`."""
        position, rate, reach, weight = (
            v[:, index] for v in (self.position, self.rate, self.reach, self.weight)
        )
        return Mixture(position, rate, reach, weight, self.low, self.high)

    @property
    def total(self) -> np.ndarray:
        """C(high), int32 [n]."""
        return (self.weight.sum(0) << BITS) + (self.high - self.low) * FLOOR

    @property
    def mean(self) -> np.ndarray:
        """The mean, rounded, and at least HALF away from low and high, int32 [n]."""
        position = np.clip(self.position, 16 * self.low, 16 * self.high)
        mean = ((self.weight * position).sum(0) // self.weight.sum(0) + 8) >> 4
        return np.clip(mean, self.low + HALF, self.high - HALF)

    def cdf(self, edge: np.ndarray) -> np.ndarray:
        """C(edge), int32 [n], for low < edge < high: the mass of the values below `edge`."""
        d = (16 * edge - 8) - self.position
        np.clip(d, -self.reach, self.reach, out=d)
        d *= self.rate
        d += 32
        d >>= 6
        d += SPAN * STEPS
        mass = logistic().take(d, mode="clip")
        mass *= self.weight
        return mass.sum(0, dtype=np.int32) + (edge - self.low) * FLOOR

    def clipped_cdf(self, edge: np.ndarray, total: np.ndarray) -> np.ndarray:
        """C(edge) for low <= edge <= high: 0 and `total` at the ends."""
        c = self.cdf(edge)
        c[edge <= self.low] = 0
        return np.where(edge >= self.high, total, c)


# Codes one decision of n samples: (answers bool [n] when encoding, None when decoding; numerator
# and denominator of the probability of "yes") -> answers.
Decide = Callable[[np.ndarray | None, np.ndarray, np.ndarray], np.ndarray]


def code_samples(mixture: Mixture, decide: Decide, x: np.ndarray | None = None) -> np.ndarray:
    """Codes all decisions of n samples; returns the samples, int32 [n].

    Args:
      x: the samples when encoding, None when decoding.

    Raises:
      CorruptStream: the answers that were decoded contradict each other.
    """

    def bisect(m, x, lo, hi, c_lo, c_hi, mid):
        """The half of [lo, hi), split at mid, that holds the sample."""
        c = m.cdf(mid)
        is_upper = decide(None if x is None else x >= mid, c_hi - c, c_hi - c_lo)
        return (
            np.where(is_upper, mid, lo), np.where(is_upper, hi, mid),
            np.where(is_upper, c, c_lo), np.where(is_upper, c_hi, c),
        )  # fmt: skip

    total, mean = mixture.total, mixture.mean
    a, b = mean - HALF, mean + HALF
    c_a, c_b = mixture.clipped_cdf(a, total), mixture.clipped_cdf(b, total)
    is_near = decide(None if x is None else (x >= a) & (x < b), c_b - c_a, total)
    samples = np.empty(len(mean), np.int32)
    index = np.flatnonzero(is_near)
    if len(index):
        m = mixture[index]
        lo, hi, c_lo, c_hi = (v[index] for v in (a, b, c_a, c_b))
        x_near = None if x is None else x[index]
        for size in (8, 4, 2, 1):
            lo, hi, c_lo, c_hi = bisect(m, x_near, lo, hi, c_lo, c_hi, lo + size)
        samples[index] = lo
    index = np.flatnonzero(~is_near)
    if len(index):
        m = mixture[index]
        a, b, c_a, c_b, total = (v[index] for v in (a, b, c_a, c_b, total))
        x_far = None if x is None else x[index]
        is_below = decide(None if x_far is None else x_far < a, c_a, c_a + total - c_b)
        lo, hi = np.where(is_below, m.low, b), np.where(is_below, a, m.high)
        c_lo, c_hi = np.where(is_below, 0, c_b), np.where(is_below, c_a, total)
        if (lo >= hi).any():
            raise CorruptStream("a sample is out of range")
        samples[index] = lo
        while True:
            undecided = np.flatnonzero(hi - lo > 1)
            if not len(undecided):
                break
            m = m[undecided]
            index, lo, hi, c_lo, c_hi = (v[undecided] for v in (index, lo, hi, c_lo, c_hi))
            x_far = None if x_far is None else x_far[undecided]
            lo, hi, c_lo, c_hi = bisect(m, x_far, lo, hi, c_lo, c_hi, (lo + hi) >> 1)
            samples[index] = lo
    return samples


def probability(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator rounded to a multiple of 2^-16, at least 2^-16 and at most 1 - 2^-16.
    Computed in float64, whose division is correctly rounded on every machine (IEEE 754).

    >>> probability(np.array([0, 1]), np.array([2, 2])).tolist()
    [1.52587890625e-05, 0.5]
    """
    one = float(1 << BITS)
    p = np.floor(numerator.astype(np.float64) * one / denominator + 0.5)
    return np.clip(p, 1.0, one - 1.0) / one


class Encoder:
    """Codes samples into one chunk."""

    def __init__(self):
        self.coder = new_encoder()

    def write(self, x: np.ndarray, mixture: Mixture) -> None:
        """Codes samples, int32 [n], under their distributions."""

        def decide(yes, numerator, denominator):
            self.coder.encode(yes.astype(np.int32), _decision, probability(numerator, denominator))
            return yes

        code_samples(mixture, decide, x)

    def bytes(self) -> bytes:
        """The data of the chunk."""
        return encoded(self.coder)


class Decoder:
    """Decodes the samples of a chunk."""

    def __init__(self, data: bytes):
        self.coder = new_decoder(data)

    def read(self, mixture: Mixture) -> np.ndarray:
        """The next samples, int32 [n], which have these distributions.

        Raises:
          CorruptStream: the chunk is damaged so that decoding fails.
        """

        def decide(yes, numerator, denominator):
            p = probability(numerator, denominator)
            return self.coder.decode(_decision, p).astype(bool)

        try:
            return code_samples(mixture, decide)
        except AssertionError as e:  # what constriction raises for invalid data
            raise CorruptStream("impossible state of the coder") from e
