"""Damaged streams: every one ends within a second, in a CodecError that names the fault, or in an
image. A shape that no stream before had is compiled first; the second is that of the next time."""

import resource
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aejax.codec import api as codec
from aejax.codec import container
from aejax.codec.api import CodecError
from aejax.codec.container import Header
from aejax.codec.layout import parse
from tests.codec import tiny

LIMIT = 1 << 20  # pixels that a reader of files it does not trust might allow


@pytest.fixture(scope="module")
def good():
    """Files of several kinds, all of the same few shapes."""
    r = tiny.runtime()
    kept = {"exif": b"exif" * 9, "icc_profile": b"icc" * 30}
    return [
        codec.encode(tiny.photo(48, 72), 80, runtime=r),
        codec.encode(tiny.photo(48, 72, 4), 30, runtime=r, metadata=kept),
        codec.encode(tiny.photo(40, 72, 1).astype(np.uint16) * 257, 60, runtime=r),
    ]


def damaged(rng: np.random.Generator, good: list[bytes], sides=None) -> bytes:
    """One of: cut, flipped bits, changed bytes, spliced, repeated, a forged header, noise.

    sides: of forged headers; any, up to 2^30, if not given."""
    data = bytearray(good[rng.integers(len(good))])
    kind = rng.integers(7)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif kind == 2:
        at = rng.integers(len(data))
        data[at : at + rng.integers(1, 20)] = rng.bytes(rng.integers(0, 20))
    elif kind == 3:
        other = good[rng.integers(len(good))]
        a, b = rng.integers(len(data)), rng.integers(len(other))
        return bytes(data[:a]) + other[b:]
    elif kind == 4:
        at = rng.integers(len(data))
        data[at:at] = data[at : at + rng.integers(1, 50)]
    elif kind == 5:  # right checks around wrong contents
        w, h = (int(rng.choice(sides)) if sides else int(2 ** rng.uniform(0, 30)) for _ in range(2))
        flags, byte = int(rng.integers(16)), int(rng.integers(256))
        header = Header(tiny.frozen().id, byte, w, h, flags).pack()
        body = rng.bytes(rng.integers(0, 60))
        if rng.random() < 0.5:
            body = container.Chunk(body, int(rng.integers(65536))).pack()
        elif rng.random() < 0.2:
            body = bytes(len(body))  # empty chunks: all symbols are zero
        return header + body
    else:
        return rng.bytes(rng.integers(0, 200))
    return bytes(data)


def outcome(data: bytes, originals: dict[bytes, np.ndarray]) -> str:
    """What becomes of a damaged stream; raises if that is not allowed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", codec.CutFile)
            found = codec.read(data, max_pixels=LIMIT)
    except CodecError as e:
        assert str(e) and "\n" not in str(e)
        return "refused"
    if found.complete:  # then it is a file as it was written, or a gray one
        same = any(np.array_equal(found.image, x) for x in originals.values())
        blank = all(not c.data for tile in parse(data, lambda _: 2).tiles for c in tile)
        assert same or blank
    return "whole" if found.complete else "cut"


def check(data: bytes, originals: dict[bytes, np.ndarray]) -> tuple[str, float]:
    """(outcome, CPU seconds once compiled)."""
    for _ in range(2):
        began = time.process_time()
        found = outcome(data, originals)
        seconds = time.process_time() - began
        if seconds < 1.0:
            break
    assert seconds < 1.0, (found, data)
    return found, seconds


def run(count: int, seed: int, good, sides=None) -> tuple[dict[str, int], float]:
    """(how often which outcome, seconds of the slowest)."""
    rng = np.random.default_rng(seed)
    originals = {data: codec.decode(data) for data in good}
    seen: dict[str, int] = {}
    slowest = 0.0
    for _ in range(count):
        kind, seconds = check(damaged(rng, good, sides), originals)
        seen[kind] = seen.get(kind, 0) + 1
        slowest = max(slowest, seconds)
    return seen, slowest


def test_300_damaged_streams(good):
    # few sides, as each pair of them is a shape to compile: inside and above the limit of pixels
    seen, _ = run(300, 0, good, sides=(1, 40, 72, 2**15, 2**30))
    assert seen["refused"] > 100 and seen["cut"] > 10, seen


@pytest.mark.nightly
def test_10000_damaged_streams(good):
    """Every shape that a header can ask for is compiled on the way, which takes its minutes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen, slowest = run(10_000, 1, good)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"\n{seen}; slowest {slowest:.2f} s of CPU; {more:.2f} GiB more", file=sys.stderr)
    assert more < 2


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=120))
def test_any_bytes_behind_a_good_header(data):
    tiny.runtime()
    for start in (b"", container.MAGIC, Header(tiny.frozen().id, 9, 70, 40, 8).pack()):
        check(start + data, {})
