"""Integer probability tables, and the entropy coder of the lossy codec.

There are 64 scale levels. Symbols of level 0 are zero and not coded. Level l has a table of
frequencies that sum to 2^16: of the symbols -R[l]..R[l], then of an escape for larger ones. The
tables are stored with a model's weights, so a decoder computes no probabilities in floating point.

A list of symbols is sorted by level (stable) and coded with one call per level; the values of the
escaped symbols follow.
"""

import dataclasses
import functools
import math

import constriction
import numpy as np

from aejax.codec.container import base128
from aejax.codec.levels import LEVELS, log_deviation
from aejax.codec.range_coder import CorruptStream, encoded, new_decoder, new_encoder

BITS = 16  # frequencies sum to 2^16; the coder's 24-bit ones are 256 times as large
MAX_RADIUS = 1023
MAX_SYMBOL = 2**18  # y_hat, a multiple of 1/16, is exact in float32 up to here
_ESCAPE_BYTES = 3

_model = constriction.stream.model


def radius(level: int) -> int:
    """R of a level: its largest symbol without an escape, five standard deviations."""
    return min(MAX_RADIUS, int(math.ceil(5.0 * math.exp(log_deviation(level)))) + 1)


# By level; level 0 is not coded.
RADII = np.array([0, *(radius(level) for level in range(1, LEVELS))], np.int32)


def logistic_weights(level: int) -> np.ndarray:
    """Probabilities of the symbols -R..R and of an escape under the logistic distribution that the
    training uses, float64 [2 R + 2]."""
    s = math.exp(log_deviation(level)) * math.sqrt(3.0) / math.pi
    r = radius(level)
    edges = (np.arange(-r, r + 2) - 0.5) / s
    below = 0.5 * (1.0 + np.tanh(0.5 * edges))
    # Taken on the side of the mean where the CDF is small, where a difference loses no digits.
    upper = 0.5 * (1.0 + np.tanh(-0.5 * edges))
    p = np.where(np.arange(-r, r + 1) <= 0, np.diff(below), -np.diff(upper))
    return np.append(p, max(below[0] + upper[-1], 1e-12))


def to_frequencies(weights: np.ndarray) -> np.ndarray:
    """Positive weights -> frequencies, uint32, at least 1 each, that sum to 2^16.

    >>> to_frequencies(np.array([1.0, 3.0, 1e-9])).tolist()
    [16384, 49151, 1]
    """
    free = (1 << BITS) - len(weights)  # beyond the 1 that each one has
    exact = weights / weights.sum() * free
    f = np.floor(exact).astype(np.int64)
    missing = free - f.sum()
    f[np.argsort(f - exact, kind="stable")[:missing]] += 1
    return (f + 1).astype(np.uint32)


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables of all levels.

    Attributes:
      frequencies: uint32, those of levels 1..63 concatenated; level l has 2 radius(l) + 2 entries.
    """

    frequencies: np.ndarray

    @classmethod
    def fitted(cls, counts: list[np.ndarray] | None = None, prior: float = 2000.0) -> "Tables":
        """Tables from symbol counts, made symmetric and smoothed with the logistic distribution.

        Args:
          counts: of each level how often each symbol occurred, then the escapes, [2 R + 2]; None =
            the logistic distribution.
          prior: weight of the logistic distribution, as a number of symbols.
        """
        tables = []
        for level in range(1, LEVELS):
            weights = logistic_weights(level)
            weights = weights / weights.sum() * prior
            if counts is not None:
                c = counts[level].astype(np.float64)
                c[:-1] = 0.5 * (c[:-1] + c[:-1][::-1])
                weights = weights + c
            tables.append(to_frequencies(weights))
        return cls(np.concatenate(tables))

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
        """The models for the coder, None for level 0. constriction multiplies n given probabilities
        by (2^24 - n) / their sum and adds 1 to each. With f - 1 in 24-bit units, which sum to
        2^24 - n, the factor is 1 and the result is exactly f."""
        return [None] + [
            _model.Categorical(((f << (24 - BITS)) - 1).astype(np.float64), perfect=False)
            for f in self.slices[1:]
        ]

    @functools.cached_property
    def bits(self) -> list[np.ndarray]:
        """-log2 p of each entry of each level; for escapes without the bytes of their values."""
        return [BITS - np.log2(f) if len(f) else f.astype(float) for f in self.slices]

    def cost(self, symbols: np.ndarray, levels: np.ndarray) -> float:
        """Bits that `Encoder.write` needs for the symbols, int32 [n], at levels uint8 [n]."""
        total = 0.0
        for level in np.unique(levels):
            if level:
                r = radius(level)
                s = symbols[levels == level]
                total += self.bits[level][table_index(s, r)].sum()
                total += sum(8 * len(_escape_bytes(v, r)) for v in s[np.abs(s) > r])
        return total


def table_index(symbols: np.ndarray, r: int | np.ndarray) -> np.ndarray:
    """The entries of a table of radius r for the symbols: 0 for -r, 2 r + 1 for an escape."""
    return np.where(np.abs(symbols) > r, 2 * r + 1, symbols + r)


def _escape_bytes(symbol: int, r: int) -> list[int]:
    """2 (|s| - R - 1) + [s < 0] in base 128 (container.base128)."""
    return list(base128(2 * (abs(int(symbol)) - int(r) - 1) + int(symbol < 0)))


class Encoder:
    """Codes lists of symbols into one chunk."""

    def __init__(self, tables: Tables):
        self.tables, self.coder = tables, new_encoder()

    def write(self, symbols: np.ndarray, levels: np.ndarray) -> None:
        """Codes symbols int32 [n] at levels uint8 [n]; those of level 0 must be 0."""
        symbols, levels = _by_level(symbols, levels)[:2]
        ends = np.searchsorted(levels, np.arange(LEVELS + 1))
        r = RADII[levels]
        index = table_index(symbols, r).astype(np.int32)
        for level in range(1, LEVELS):
            low, high = ends[level], ends[level + 1]
            if high > low:
                self.coder.encode(index[low:high], self.tables.models[level])
        is_escape = np.abs(symbols) > r
        pairs = zip(symbols[is_escape], r[is_escape], strict=True)
        escaped = [byte for symbol, size in pairs for byte in _escape_bytes(symbol, size)]
        if escaped:
            self.coder.encode(np.array(escaped, np.int32), _model.Uniform(256))

    def bytes(self) -> bytes:
        """The data of the chunk."""
        return encoded(self.coder)


class Decoder:
    """Decodes the lists of symbols in a chunk."""

    def __init__(self, tables: Tables, data: bytes):
        self.tables, self.coder = tables, new_decoder(data)

    def read(self, levels: np.ndarray) -> np.ndarray:
        """The next symbols, int32 [n], whose levels are uint8 [n].

        Raises:
          CorruptStream: the chunk is damaged so that decoding fails.
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
            for i in np.flatnonzero(by_level == r + 1):
                by_level[i] = self._escape(int(r[i]))
        except AssertionError as e:  # what constriction raises for invalid data
            raise CorruptStream("impossible state of the coder") from e
        symbols = np.empty_like(by_level)
        symbols[order] = by_level
        return symbols

    def _escape(self, r: int) -> int:
        """The value of the next escaped symbol."""
        n = 0
        for i in range(_ESCAPE_BYTES):
            byte = int(self.coder.decode(_model.Uniform(256)))
            n |= (byte & 127) << (7 * i)
            if byte < 128:
                magnitude = (n >> 1) + r + 1
                if magnitude > MAX_SYMBOL:
                    break
                return -magnitude if n & 1 else magnitude
        raise CorruptStream("a symbol is out of range")


def _by_level(symbols, levels):
    """(symbols, levels, order): sorted by level, and the permutation."""
    order = np.argsort(levels, kind="stable")  # radix sort for uint8
    return symbols[order], levels[order], order
