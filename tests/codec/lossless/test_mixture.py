"""The integer mixtures and their coder."""

import numpy as np
import pytest

from aejax.codec.lossless import mixture, nets
from aejax.codec.lossless.mixture import RANGES, Decoder, Encoder, Mixture


def random_mixture(rng, n, channel, near=True):
    """(Mixture, its floating-point parameters, samples drawn near it or anywhere)."""
    low, high = RANGES[channel]
    at = rng.integers(16 * low - 100, 16 * high + 100, (1, n)) + rng.integers(-60, 60, (3, n))
    scale, quarter = rng.integers(0, 64, (3, n)), rng.integers(-32, 33, (3, n))
    found = Mixture.of(*(v.astype(np.int32) for v in (at, scale, quarter)), channel)
    size = nets.S_MIN * np.exp(nets.LOG_STEP * scale[0])
    x = np.round(at[0] / 16 + rng.logistic(size=n) * size) if near else rng.integers(low, high, n)
    return found, (at, scale, quarter), np.clip(x, low, high - 1).astype(np.int32)


def test_tables_are_the_functions_they_stand_for():
    t = np.arange(-mixture.SPAN * mixture.STEPS, mixture.SPAN * mixture.STEPS + 1)
    want = 65536 / (1 + np.exp(-t / mixture.STEPS))
    assert np.abs(mixture.logistic() - want).max() < 0.501
    rate, _ = mixture.scales()
    size = nets.S_MIN * np.exp(nets.LOG_STEP * np.arange(nets.SCALES))
    np.testing.assert_allclose(rate * size, 8192, rtol=4e-3)
    assert np.isclose(size[-1], nets.S_MAX)
    np.testing.assert_array_equal(mixture.weights(), np.floor(4096 * 2 ** (-np.arange(64) / 4)))


@pytest.mark.parametrize("channel", range(3))
def test_what_is_written_is_read(channel):
    rng = np.random.default_rng(channel)
    parts = [random_mixture(rng, n, channel, near) for n in (1, 700, 3000) for near in (0, 1)]
    coder = Encoder()
    for found, _, x in parts:
        coder.write(x, found)
    reader = Decoder(coder.bytes())
    for found, _, x in parts:
        np.testing.assert_array_equal(reader.read(found), x)


@pytest.mark.parametrize("channel", range(3))
def test_bits_are_those_of_the_likelihood(channel):
    """The file is what training minimises: within half a percent."""
    rng = np.random.default_rng(channel)
    found, (at, scale, quarter), x = random_mixture(rng, 20_000, channel)
    coder = Encoder()
    coder.write(x, found)
    parameters = (np.moveaxis(v, 0, -1) for v in (at / 16, scale, quarter / 4))
    ends = float(nets.LOW[channel]), nets.HIGH
    bits = -np.asarray(nets.log2_likelihood(x.astype(np.float32), *parameters, *ends)).sum()
    assert 8 * len(coder.bytes()) == pytest.approx(bits, rel=5e-3)


@pytest.mark.parametrize("channel", range(3))
def test_distribution_functions_rise(channel):
    """Every value of every mixture has a probability."""
    found, *_ = random_mixture(np.random.default_rng(0), 200, channel)
    low, high = RANGES[channel]
    total = found.total
    c = [found.clipped_cdf(np.full(200, edge, np.int32), total) for edge in range(low, high + 1)]
    assert (np.diff(c, axis=0) > 0).all()
    assert (c[0] == 0).all() and (c[-1] == total).all()
    assert total.max() < 2**31


def test_noise_is_refused_or_gives_samples():
    rng = np.random.default_rng(0)
    for _ in range(100):
        found, *_ = random_mixture(rng, 50, int(rng.integers(3)))
        try:
            x = Decoder(rng.bytes(rng.integers(1, 60))).read(found)
        except mixture.CorruptStream:
            continue
        assert (x >= found.low).all() and (x < found.high).all()


def test_the_coder_is_that_of_the_format():
    """Decisions read by the arithmetic of docs/aej-format.md, in whole numbers."""
    rng = np.random.default_rng(0)
    q = np.concatenate([rng.integers(1, 65536, 2000), [1, 2, 65534, 65535, 32768]])
    yes = rng.random(len(q)) < q / 65536
    coder = Encoder()
    coder.coder.encode(yes.astype(np.int32), mixture._decision, q / 65536.0)
    data = coder.bytes()
    words = np.frombuffer(data + bytes(-len(data) % 4 + 16), "<u4").tolist()
    every, lower, size, at = (1 << 64) - 1, 0, (1 << 64) - 1, 2
    point = words[0] << 32 | words[1]
    for want, share in zip(yes, q.tolist(), strict=True):
        no = 1 + (((1 << 24) - 2) * (65536 - share) >> 16)
        scale = size >> 24
        found = ((point - lower) & every) // scale >= no
        assert found == want
        lower = (lower + scale * no * found) & every
        size = scale * ((1 << 24) - no if found else no)
        if size < 1 << 32:
            lower, size = lower << 32 & every, size << 32 & every
            point, at = (point << 32 | words[at]) & every, at + 1
