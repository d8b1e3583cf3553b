"""The coder of samples: mixtures of logistics in whole numbers, as yes-or-no decisions.

Position, scale and weight of each logistic are integers (see nets.py), and so is their distribution
function: C(x) is 2^16 times the mass of the weights below x, of a table that integer arithmetic
made. A sample is found by decisions whose probabilities are ratios of differences of C, rounded to
1/65536:

    is it within 8 of the mean?  yes: four halvings of those 16 values
                                 no: is it below them? then halvings of that side

All samples of a channel of a pass take a decision together: one call of the range coder.
"""

import dataclasses
import functools
from collections.abc import Callable

import constriction
import numpy as np

from aejax.codec.lossless.nets import SCALES

BITS = 16  # of a probability
SPAN = 16  # scales after which a logistic ends
STEPS = 2048  # of its table, per scale
FLOOR = 256  # what each value adds to C: the most unlikely one costs 20 bits or so
HALF = 8  # of the window around the mean
WEIGHT_BITS = 12  # of the largest weight

# (lowest value, one more than the highest) of Y, Co, Cg.
RANGES = ((0, 256), (-255, 256), (-255, 256))

# In units of 2^-60, so that all that follows from them is integer arithmetic: e^(-1/2048),
# 2^(1/4), and the inverse ratio of a scale to the one before, (S_MIN / S_MAX)^(1/63).
_ONE = 1 << 60
_DECAY, _ROOT, _RATIO = 1152358692070012245, 1371062456318104878, 1030205459455699350

_queue = constriction.stream.queue
_decision = constriction.stream.model.Bernoulli(perfect=False)


class CodedWrong(ValueError):
    """The stream cannot have come from an encoder."""


@functools.cache
def logistic() -> np.ndarray:
    """int32 [2 SPAN STEPS + 1]: 2^16 / (1 + e^(-t / STEPS)), t from -SPAN STEPS."""
    upper, e = [], _ONE
    for _ in range(SPAN * STEPS + 1):
        upper.append(((_ONE << BITS) + ((_ONE + e) >> 1)) // (_ONE + e))
        e = e * _DECAY >> 60
    upper = np.array(upper, np.int32)
    return np.concatenate([(1 << BITS) - upper[:0:-1], upper])


@functools.cache
def scales() -> tuple[np.ndarray, np.ndarray]:
    """(rate, reach) of each scale, int32: a distance d in 1/16, at most `reach`, is at entry
    (d rate + 32) >> 6 of the table."""
    rate, reach, inverse = [], [], 20 << 60  # 1 / S_MIN
    for _ in range(SCALES):
        rate.append((8192 * inverse + (_ONE >> 1)) >> 60)
        reach.append((SPAN * 16 << 60) // inverse)
        inverse = inverse * _RATIO >> 60
    return np.array(rate, np.int32), np.array(reach, np.int32)


@functools.cache
def weights() -> np.ndarray:
    """int32: 2^(12 - n / 4) for n = 0, 1, ... 63, rounded down."""
    roots = [_ONE]
    for _ in range(3):
        roots.append(roots[-1] * _ROOT >> 60)
    # 2^(-n/4) = 2^(-ceil(n / 4)) 2^(r / 4)
    exponents = [(-(-n // 4), -n % 4) for n in range(64)]
    return np.array([(roots[r] << WEIGHT_BITS) >> (60 + e) for e, r in exponents], np.int32)


@dataclasses.dataclass
class Mixture:
    """The distributions of n samples, as integers [K, n] (total: [n]).

    Attributes:
      at: positions in 1/16; rate, reach: of the scales; weight: at most 2^12.
      low, high: the lowest value and one more than the highest.
      total: C(high).
    """

    at: np.ndarray
    rate: np.ndarray
    reach: np.ndarray
    weight: np.ndarray
    low: int
    high: int

    @classmethod
    def of(cls, at: np.ndarray, scale: np.ndarray, quarter: np.ndarray, channel: int) -> "Mixture":
        """From int32 [K, n]: positions in 1/16, scales' numbers, log2 weights in quarters."""
        rate, reach = scales()
        weight = weights()[np.minimum(quarter.max(0) - quarter, 63)]
        low, high = RANGES[channel]
        return cls(at, rate[scale], reach[scale], weight, low, high)

    def __getitem__(self, index: np.ndarray) -> "Mixture":
        at, rate, reach, weight = (
            v[:, index] for v in (self.at, self.rate, self.reach, self.weight)
        )
        return Mixture(at, rate, reach, weight, self.low, self.high)

    @property
    def total(self) -> np.ndarray:
        """C(high) [n]."""
        return (self.weight.sum(0) << BITS) + (self.high - self.low) * FLOOR

    @property
    def mean(self) -> np.ndarray:
        """The mixture's mean, rounded, at least HALF away from the ends, [n]."""
        at = np.clip(self.at, 16 * self.low, 16 * self.high)
        mean = ((self.weight * at).sum(0) // self.weight.sum(0) + 8) >> 4
        return np.clip(mean, self.low + HALF, self.high - HALF)

    def below(self, edge: np.ndarray) -> np.ndarray:
        """C(edge), int32 [n]; low < edge < high."""
        d = (16 * edge - 8) - self.at
        np.clip(d, -self.reach, self.reach, out=d)
        d *= self.rate
        d += 32
        d >>= 6
        d += SPAN * STEPS
        mass = logistic().take(d, mode="clip")
        mass *= self.weight
        return mass.sum(0, dtype=np.int32) + (edge - self.low) * FLOOR

    def inner(self, edge: np.ndarray, total: np.ndarray) -> np.ndarray:
        """C(edge) where low <= edge <= high."""
        below = self.below(edge)
        below[edge <= self.low] = 0
        return np.where(edge >= self.high, total, below)


# (the answers, if known; numerator and denominator of the probability of yes) -> the answers
Decide = Callable[[np.ndarray | None, np.ndarray, np.ndarray], np.ndarray]


def walk(mixture: Mixture, decide: Decide, x: np.ndarray | None = None) -> np.ndarray:
    """Asks all decisions of n samples: int32 [n]; x: the samples, if they are known."""

    def ask(m, x, lo, hi, c_lo, c_hi, mid):
        """One halving of [lo, hi) at mid: the half."""
        c = m.below(mid)
        up = decide(None if x is None else x >= mid, c_hi - c, c_hi - c_lo)
        return (
            np.where(up, mid, lo), np.where(up, hi, mid),
            np.where(up, c, c_lo), np.where(up, c_hi, c),
        )  # fmt: skip

    total, mean = mixture.total, mixture.mean
    a, b = mean - HALF, mean + HALF
    c_a, c_b = mixture.inner(a, total), mixture.inner(b, total)
    near = decide(None if x is None else (x >= a) & (x < b), c_b - c_a, total)
    out = np.empty(len(mean), np.int32)
    index = np.flatnonzero(near)
    if len(index):
        m = mixture[index]
        lo, hi, c_lo, c_hi = (v[index] for v in (a, b, c_a, c_b))
        known = None if x is None else x[index]
        for size in (8, 4, 2, 1):
            lo, hi, c_lo, c_hi = ask(m, known, lo, hi, c_lo, c_hi, lo + size)
        out[index] = lo
    index = np.flatnonzero(~near)
    if len(index):
        m = mixture[index]
        a, b, c_a, c_b, total = (v[index] for v in (a, b, c_a, c_b, total))
        known = None if x is None else x[index]
        under = decide(None if known is None else known < a, c_a, c_a + total - c_b)
        lo, hi = np.where(under, m.low, b), np.where(under, a, m.high)
        c_lo, c_hi = np.where(under, 0, c_b), np.where(under, c_a, total)
        if (lo >= hi).any():
            raise CodedWrong("a sample out of all bounds")
        out[index] = lo
        while True:
            wide = np.flatnonzero(hi - lo > 1)
            if not len(wide):
                break
            m = m[wide]
            index, lo, hi, c_lo, c_hi = (v[wide] for v in (index, lo, hi, c_lo, c_hi))
            known = None if known is None else known[wide]
            lo, hi, c_lo, c_hi = ask(m, known, lo, hi, c_lo, c_hi, (lo + hi) >> 1)
            out[index] = lo
    return out


def probability(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio in multiples of 2^-16, neither 0 nor 1; float64, whose division is exact to the
    last bit on every machine."""
    one = float(1 << BITS)
    p = np.floor(numerator.astype(np.float64) * one / denominator + 0.5)
    return np.clip(p, 1.0, one - 1.0) / one


class Encoder:
    """Writes samples into one chunk."""

    def __init__(self):
        self.coder = _queue.RangeEncoder()

    def write(self, x: np.ndarray, mixture: Mixture) -> None:
        """x: int32 [n]."""

        def decide(yes, numerator, denominator):
            self.coder.encode(yes.astype(np.int32), _decision, probability(numerator, denominator))
            return yes

        walk(mixture, decide, x)

    def bytes(self) -> bytes:
        """The chunk, without trailing zeros: a reader goes on with zeros for ever."""
        return self.coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class Decoder:
    """Reads the samples of a chunk."""

    def __init__(self, data: bytes):
        padded = data + bytes(-len(data) % 4 + 8)
        self.coder = _queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))

    def read(self, mixture: Mixture) -> np.ndarray:
        """int32 [n].

        Raises:
          CodedWrong: the chunk is damaged in a way that its coder can tell.
        """

        def decide(yes, numerator, denominator):
            p = probability(numerator, denominator)
            return self.coder.decode(_decision, p).astype(bool)

        try:
            return walk(mixture, decide)
        except AssertionError as e:  # constriction's word for it
            raise CodedWrong("impossible state of the coder") from e
