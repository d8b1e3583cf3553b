"""Tables and coder, against a coder written from docs/aej-format.md."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax.codec import entropy
from aejax.codec.levels import LOG_STEP, SIGMA_MIN

TABLES = entropy.Tables.fitted()
MASK = 2**64 - 1


class PlainDecoder:
    """Section 3 of the format, word for word."""

    def __init__(self, data: bytes):
        data += bytes(-len(data) % 4)
        self.words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.lower, self.range = 0, MASK
        self.point = self.next() << 32
        self.point |= self.next()

    def next(self) -> int:
        return self.words.pop(0) if self.words else 0

    def symbol(self, f) -> int:
        c = [0, *np.cumsum(f).tolist()]
        scale = self.range >> 24
        quantile = ((self.point - self.lower) & MASK) // scale
        assert quantile < 2**24
        s = next(s for s in range(len(f)) if c[s] <= quantile < c[s + 1])
        self.lower = (self.lower + scale * c[s]) & MASK
        self.range = scale * int(f[s])
        if self.range < 2**32:
            self.lower = (self.lower << 32) & MASK
            self.range = (self.range << 32) & MASK
            self.point = (self.point << 32) & MASK | self.next()
        return s

    def list(self, tables, levels):
        out, escaped = np.zeros(len(levels), int), []
        at, tables_of = 0, {}
        for level in range(1, 64):
            r = min(1023, math.ceil(0.4 * 4000 ** (level / 63)) + 1)
            tables_of[level] = tables[at : at + 2 * r + 2].astype(int) * 256
            at += 2 * r + 2
        assert at == len(tables)
        for level in range(1, 64):
            r = len(tables_of[level]) // 2 - 1
            for i in np.flatnonzero(levels == level):
                s = self.symbol(tables_of[level])
                if s == 2 * r + 1:
                    escaped.append((i, r))
                out[i] = s - r
        for i, r in escaped:
            n = shift = 0
            while True:
                byte = self.symbol([65536] * 256)
                n |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            out[i] = (n // 2 + r + 1) * (-1 if n % 2 else 1)
        return out


def drawn(rng, n, low=0):
    levels = rng.integers(low, 64, n).astype(np.uint8)
    sigma = SIGMA_MIN * np.exp(LOG_STEP * levels)
    s = np.round(rng.logistic(size=n) * sigma * math.sqrt(3) / math.pi).astype(np.int32)
    return np.where(levels == 0, 0, s).astype(np.int32), levels


def test_tables_are_integers_that_sum_and_follow_the_logistic():
    for level in range(1, 64):
        f, p = TABLES.slices[level], entropy.logistic_weights(level)
        assert f.sum() == 65536 and f.min() >= 1 and len(f) == 2 * entropy.radius(level) + 2
        assert np.abs(f[:-1] - f[:-1][::-1]).max() <= 1  # the rounding
        assert p.sum() == pytest.approx(1.0, abs=1e-6)
        assert np.abs(f / 65536 - p / p.sum()).max() < 0.05


def test_fitted_tables_cost_less_on_what_they_were_fitted_to():
    rng = np.random.default_rng(0)
    counts = [np.zeros(2 * entropy.radius(level) + 2, int) for level in range(64)]
    s = np.clip(np.round(rng.laplace(size=20000) * 0.9), -5, 5).astype(np.int32)
    level = 24
    np.add.at(counts[level], s + entropy.radius(level), 1)
    levels = np.full(len(s), level, np.uint8)
    assert entropy.Tables.fitted(counts).cost(s, levels) < 0.98 * TABLES.cost(s, levels)


@pytest.mark.parametrize("n", (1, 50, 4000))
def test_round_trip_bits_and_the_documented_decoder(n):
    rng = np.random.default_rng(n)
    scans = [drawn(rng, n), drawn(rng, n), (np.zeros(0, np.int32), np.zeros(0, np.uint8))]
    coder = entropy.Encoder(TABLES)
    for s, levels in scans:
        coder.write(s, levels)
    data = coder.bytes()
    decoder = entropy.Decoder(TABLES, data)
    for s, levels in scans:
        np.testing.assert_array_equal(decoder.read(levels), s)
    if n <= 50:
        plain = PlainDecoder(data)
        for s, levels in scans:
            np.testing.assert_array_equal(plain.list(TABLES.frequencies, levels), s)
    bits = sum(TABLES.cost(s, levels) for s, levels in scans)
    assert bits - 8 <= 8 * len(data) <= bits * 1.002 + 96


def test_escapes():
    levels = np.array([1, 1, 30, 63, 63, 0], np.uint8)
    top = entropy.MAX_SYMBOL
    s = np.array([3, -4, 700, top, -top, 0], np.int32)
    coder = entropy.Encoder(TABLES)
    coder.write(s, levels)
    np.testing.assert_array_equal(entropy.Decoder(TABLES, coder.bytes()).read(levels), s)
    np.testing.assert_array_equal(PlainDecoder(coder.bytes()).list(TABLES.frequencies, levels), s)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(0, 63), max_size=40))
def test_any_bytes_decode_or_are_refused(data, levels):
    levels = np.array(levels, np.uint8)
    try:
        s = entropy.Decoder(TABLES, data).read(levels)
    except entropy.CorruptStream:
        return
    assert s.shape == levels.shape and np.abs(s).max(initial=0) <= entropy.MAX_SYMBOL
    assert not s[levels == 0].any()
