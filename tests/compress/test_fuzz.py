"""Damaged streams: every one ends soon, in a CodecError that names the fault, or in an image."""

import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aejax.compress import codec, container
from aejax.compress.codec import CodecError
from aejax.compress.container import Header
from tests.compress import tiny


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


def damaged(rng: np.random.Generator, good: list[bytes]) -> bytes:
    """One of: cut, flipped bits, changed bytes, spliced, repeated, a forged header, noise."""
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
        sides = [int(2 ** rng.uniform(0, 30)) for _ in range(2)]
        if sides[0] * sides[1] > 2**16:
            sides = [int(2 ** rng.uniform(14, 30)) for _ in range(2)]
        flags, byte = int(rng.integers(16)), int(rng.integers(256))
        header = Header(tiny.frozen().id, byte, *sides, flags).pack()
        body = rng.bytes(rng.integers(0, 60))
        if sides[0] * sides[1] <= 4096 and rng.random() < 0.5:
            body = container.Chunk(body, int(rng.integers(65536))).pack()
        return header + body
    else:
        return rng.bytes(rng.integers(0, 200))
    return bytes(data)


def check(data: bytes, originals: dict[bytes, np.ndarray]) -> str:
    """What became of a damaged stream; raises if that is not allowed."""
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", codec.CutFile)
            found = codec.read(data, max_pixels=1 << 22)
    except CodecError as e:
        assert str(e) and "\n" not in str(e)
        outcome = "refused"
    else:
        outcome = "cut" if not found.complete else "whole"
        if found.complete:  # then it is a file as it was written, or a gray one
            same = any(np.array_equal(found.image, x) for x in originals.values())
            blank = all(not c.data for tile in codec.parse(data, lambda _: 2).tiles for c in tile)
            assert same or blank
    assert time.process_time() - began < 5.0  # a shape seen for the first time is compiled
    return outcome


def run(count: int, seed: int, good) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    originals = {data: codec.decode(data) for data in good}
    seen: dict[str, int] = {}
    for _ in range(count):
        outcome = check(damaged(rng, good), originals)
        seen[outcome] = seen.get(outcome, 0) + 1
    return seen


def test_300_damaged_streams(good):
    seen = run(300, 0, good)
    assert seen["refused"] > 100 and seen["cut"] > 10, seen


@pytest.mark.nightly
def test_10000_damaged_streams(good):
    run(10_000, 1, good)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=120))
def test_any_bytes_behind_a_good_header(data):
    tiny.runtime()
    for start in (b"", container.MAGIC, Header(tiny.frozen().id, 9, 70, 40, 8).pack()):
        check(start + data, {})
