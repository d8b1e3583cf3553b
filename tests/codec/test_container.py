"""The file without its contents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax.codec import container
from aejax.codec.container import Chunk, Header, Reader
from aejax.codec.errors import CodecError


@given(st.integers(0, 2**34))
def test_base128(n):
    data = container.base128(n)
    assert Reader(data).number() == n and (len(data) == 1 or data[-1])


@pytest.mark.parametrize("data", (b"\x80\x00", b"\xff" * 6))
def test_numbers_have_one_spelling_and_an_end(data):
    with pytest.raises(CodecError, match="malformed"):
        Reader(data).number()


@given(
    st.binary(min_size=4, max_size=4), st.integers(0, 255), st.integers(1, 2**30),
    st.integers(1, 2**30), st.integers(0, 15),
)  # fmt: skip
def test_header(model, quality, width, height, flags):
    header = Header(model, quality, width, height, flags)
    assert container.unpack_header(Reader(header.pack())) == header


def test_fixed_overhead():
    assert len(Header(b"1234", 0, 768, 512).pack()) == 21
    assert len(Header(b"1234", 0, 16384, 2**21, 15).pack()) <= 24


def test_every_flipped_bit_of_a_header_is_noticed():
    data = Header(b"1234", 77, 768, 512, 3).pack()
    for bit in range(8 * len(data)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            container.unpack_header(Reader(bytes(bad)))


@pytest.mark.parametrize(
    "data, word",
    [
        (b"", "not an .aej"),
        (b"\x89PNG\r\n\x1a\n", "not an .aej"),
        (container.MAGIC.replace(b"\r\n", b"\n") + bytes(20), "line ends"),
        (container.MAGIC + b"\x03" + bytes(20), "newer"),
        (container.MAGIC + b"\x01ab", "ends within"),
    ],
)
def test_what_is_no_header_is_named(data, word):
    with pytest.raises(CodecError, match=word):
        container.unpack_header(Reader(data))


def test_tiles_cover_the_grid_once():
    header = Header(b"1234", 0, 16 * 200 - 3, 16 * 97)
    seen = np.zeros(header.grid, int)
    for i, j, h, w in header.tiles:
        assert 0 < h <= 96 and 0 < w <= 96
        seen[i : i + h, j : j + w] += 1
    assert header.grid == (97, 200) and (seen == 1).all()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_sections_and_chunks(content):
    section = container.pack_section(container.XMP, content)
    assert container.read_section(Reader(section)) == (container.XMP, content)
    chunk = Chunk(content, 77 if content else 0)
    assert container.read_chunk(Reader(chunk.pack()), "it") == chunk
    for data, read in ((section, container.read_section), (chunk.pack(), container.read_chunk)):
        for cut in range(len(data)):
            with pytest.raises(container.EndOfData):
                read(Reader(data[:cut]), *(["it"] if read is container.read_chunk else []))


def test_damage_of_sections_and_chunks_is_named():
    section = bytearray(container.pack_section(container.ICC, b"profile" * 9))
    section[-1] ^= 1
    with pytest.raises(CodecError, match="icc_profile section is damaged"):
        container.read_section(Reader(bytes(section)))
    chunk = bytearray(Chunk(b"data", 5).pack())
    chunk[-1] ^= 1
    with pytest.raises(CodecError, match="scan 2 is damaged"):
        container.read_chunk(Reader(bytes(chunk)), "scan 2")


def test_a_bomb_is_not_inflated():
    bomb = container.pack_section(container.EXIF, bytes(10**6))
    with pytest.raises(CodecError, match="exceeds"):
        container.read_section(Reader(bomb), limit=10**5)


@pytest.mark.parametrize("dtype", (np.uint8, np.uint16))
def test_planes_are_lossless(dtype):
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (7, 1), (13, 17)):
        plane = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
        found = container.unpack_plane(container.pack_plane(plane), *shape, dtype == np.uint16)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, plane)
    with pytest.raises(CodecError, match="does not fit"):
        container.unpack_plane(b"123", 2, 2, False)
