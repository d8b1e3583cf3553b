"""Probability tables as integers, and the coder that uses them.

There are 64 levels of scale. Level 0 is not coded: its symbols are zero. Level l has a table of
frequencies that sum to 2^16, for the symbols -R[l]..R[l] and, last, an escape. The tables are
part of a model's weights: nothing about a probability is computed where a stream is read.

The coder is the range coder of `constriction` (Bamler 2022, arXiv 2201.01741): 32-bit words, 24-bit
probabilities, 64-bit state. A scan is coded in one go: its symbols sorted by level (stable), one
run per level, then the escaped ones.
"""

import dataclasses
import functools
import math

import constriction
import numpy as np

from aejax.codec.levels import LEVELS, log_deviation

BITS = 16  # of a frequency; the coder's 24-bit ones are 256 times these
MAX_RADIUS = 1023
MAX_SYMBOL = 2**18  # y_hat in 1/16 stays exact in float32
_ESCAPE_BYTES = 3

_model = constriction.stream.model
_queue = constriction.stream.queue


class CodedWrong(ValueError):
    """The stream cannot have come from an encoder."""


def radius(level: int) -> int:
    """R of a level: five deviations."""
    return min(MAX_RADIUS, int(math.ceil(5.0 * math.exp(log_deviation(level)))) + 1)


RADII = np.array([0, *(radius(level) for level in range(1, LEVELS))], np.int32)  # 0: not coded


def logistic_weights(level: int) -> np.ndarray:
    """The model's own probabilities of -R..R and of an escape, float64 [2 R + 2]."""
    s = math.exp(log_deviation(level)) * math.sqrt(3.0) / math.pi
    r = radius(level)
    edges = (np.arange(-r, r + 2) - 0.5) / s
    below = 0.5 * (1.0 + np.tanh(0.5 * edges))
    # Differences on the side where they are small keep their digits.
    upper = 0.5 * (1.0 + np.tanh(-0.5 * edges))
    p = np.where(np.arange(-r, r + 1) <= 0, np.diff(below), -np.diff(upper))
    return np.append(p, max(below[0] + upper[-1], 1e-12))


def to_frequencies(weights: np.ndarray) -> np.ndarray:
    """Positive weights -> uint16 frequencies of at least 1 that sum to 2^16."""
    total = 1 << BITS
    room = total - len(weights)
    exact = weights / weights.sum() * room
    f = np.floor(exact).astype(np.int64)
    rest = room - f.sum()
    f[np.argsort(f - exact, kind="stable")[:rest]] += 1
    return (f + 1).astype(np.uint32)


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables of all levels, concatenated: level l = 1..63 has 2 radius(l) + 2 entries."""

    frequencies: np.ndarray  # uint32 [n]

    @classmethod
    def fitted(cls, counts: list[np.ndarray] | None = None, prior: float = 2000.0) -> "Tables":
        """From what symbols occurred at each level (counts[l] [2 R + 2]), drawn towards the
        logistic by `prior` imagined symbols, and symmetric as that is."""
        out = []
        for level in range(1, LEVELS):
            weights = logistic_weights(level)
            weights = weights / weights.sum() * prior
            if counts is not None:
                c = counts[level].astype(np.float64)
                c[:-1] = 0.5 * (c[:-1] + c[:-1][::-1])
                weights = weights + c
            out.append(to_frequencies(weights))
        return cls(np.concatenate(out))

    def __post_init__(self):
        sizes = [2 * radius(level) + 2 for level in range(1, LEVELS)]
        if len(self.frequencies) != sum(sizes):
            raise ValueError("these are not the tables of 64 levels")

    @functools.cached_property
    def slices(self) -> list[np.ndarray]:
        """Frequencies of each level; an empty array for level 0."""
        sizes = [0] + [2 * radius(level) + 2 for level in range(1, LEVELS)]
        return np.split(self.frequencies.astype(np.int64), np.cumsum(sizes)[:-1])

    @functools.cached_property
    def models(self) -> list:
        """The coder's models. It multiplies the given numbers by (2^24 - n) / their sum and adds
        one to each: given f - 1 in 24-bit units, whose sum is 2^24 - n, that is exact."""
        return [None] + [
            _model.Categorical(((f << (24 - BITS)) - 1).astype(np.float64), perfect=False)
            for f in self.slices[1:]
        ]

    @functools.cached_property
    def bits(self) -> list[np.ndarray]:
        """-log2 p of each entry of each level, without an escape's own bytes."""
        return [BITS - np.log2(f) if len(f) else f.astype(float) for f in self.slices]

    def cost(self, symbols: np.ndarray, levels: np.ndarray) -> float:
        """Bits of the symbols under the tables: what `encode` comes to."""
        total = 0.0
        for level in np.unique(levels):
            if level:
                r = radius(level)
                s = symbols[levels == level]
                out = np.abs(s) > r
                total += self.bits[level][np.where(out, 2 * r + 1, s + r)].sum()
                total += 8 * sum(len(b) for b in map(_escape_bytes, s[out], np.full(out.sum(), r)))
        return total


def _escape_bytes(symbol: int, r: int) -> list[int]:
    """2 (|s| - R - 1) + [s < 0] in base 128, low digits first, 128 added to all but the last."""
    n = 2 * (abs(int(symbol)) - int(r) - 1) + (symbol < 0)
    out = []
    while n >= 128:
        out.append(int(n & 127 | 128))
        n >>= 7
    return [*out, int(n)]


class Encoder:
    """Writes scans into one chunk."""

    def __init__(self, tables: Tables):
        self.tables, self.coder = tables, _queue.RangeEncoder()

    def write(self, symbols: np.ndarray, levels: np.ndarray) -> None:
        """symbols int32 [n], levels uint8 [n]; symbols of level 0 must be 0."""
        symbols, levels = _by_level(symbols, levels)[:2]
        ends = np.searchsorted(levels, np.arange(LEVELS + 1))
        r = RADII[levels]
        out = np.abs(symbols) > r
        index = np.where(out, 2 * r + 1, symbols + r).astype(np.int32)
        for level in range(1, LEVELS):
            low, high = ends[level], ends[level + 1]
            if high > low:
                self.coder.encode(index[low:high], self.tables.models[level])
        escaped = [
            b for s, n in zip(symbols[out], r[out], strict=True) for b in _escape_bytes(s, n)
        ]
        if escaped:
            self.coder.encode(np.array(escaped, np.int32), _model.Uniform(256))

    def bytes(self) -> bytes:
        """The chunk, without trailing zeros: a reader goes on with zeros for ever."""
        return self.coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class Decoder:
    """Reads the scans of a chunk."""

    def __init__(self, tables: Tables, data: bytes):
        # Two words of zeros more than any valid chunk can ask for.
        padded = data + bytes(-len(data) % 4 + 8)
        self.tables = tables
        self.coder = _queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))

    def read(self, levels: np.ndarray) -> np.ndarray:
        """levels uint8 [n] -> symbols int32 [n].

        Raises:
          CodedWrong: the chunk is damaged in a way that its coder can tell.
        """
        by_level = np.zeros(len(levels), np.int32)
        _, levels, order = _by_level(by_level, levels)
        ends = np.searchsorted(levels, np.arange(LEVELS + 1))
        r = RADII[levels]
        try:
            for level in range(1, LEVELS):
                low, high = ends[level], ends[level + 1]
                if high > low:
                    by_level[low:high] = self.coder.decode(
                        self.tables.models[level], int(high - low)
                    )
            by_level -= r
            for at in np.flatnonzero(by_level == r + 1):
                by_level[at] = self._escape(int(r[at]))
        except AssertionError as e:  # constriction's word for it
            raise CodedWrong("impossible state of the coder") from e
        out = np.empty_like(by_level)
        out[order] = by_level
        return out

    def _escape(self, r: int) -> int:
        n = 0
        for i in range(_ESCAPE_BYTES):
            byte = int(self.coder.decode(_model.Uniform(256)))
            n |= (byte & 127) << (7 * i)
            if byte < 128:
                size = (n >> 1) + r + 1
                if size > MAX_SYMBOL:
                    break
                return -size if n & 1 else size
        raise CodedWrong("a symbol out of all bounds")


def _by_level(symbols, levels):
    order = np.argsort(levels, kind="stable")  # radix sort for uint8
    return symbols[order], levels[order], order
