"""Splits a lossless file into its parts (version 2 of docs/aej-format.md), without a model."""

import dataclasses
import zlib

from aejax.codec import container
from aejax.codec.container import Chunk, Header, Reader
from aejax.codec.errors import CodecError

NETWORK, PLAIN, GRAY_NETWORK = 0, 1, 2  # modes: network, deflate, network with R = G = B


def is_lossless(data: bytes) -> bool:
    """Whether a file is a lossless .aej file, by magic and version."""
    return data.startswith(container.MAGIC + bytes([container.LOSSLESS]))


def tiles_of(header: Header) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of each tile in pixels, row by row."""
    from aejax.codec.lossless.runtime import TILE

    h, w = header.height, header.width
    return [
        (i, j, min(TILE, h - i), min(TILE, w - j))
        for i in range(0, h, TILE)
        for j in range(0, w, TILE)
    ]


def scans_of(header: Header) -> tuple[int, list[int]]:
    """Scans of a file of a network mode.

    Returns:
      (number of scans: one of the coarsest samples and one for each level of the largest tile; the
      first scan of each tile, counted from 0: smaller tiles have fewer levels and begin later).
    """
    from aejax.codec.lossless.runtime import count_levels

    levels = [count_levels(h, w) for _, _, h, w in tiles_of(header)]
    return 1 + max(levels), [max(levels) - n for n in levels]


def _computed_pixels(header: Header) -> int:
    """Pixels that decoding computes: a strip is computed at least 32 wide."""
    return max(header.width, 32) * max(header.height, 32)


@dataclasses.dataclass(frozen=True)
class Parsed:
    """The parts of a file, not decoded.

    Attributes:
      crc: crc32 of the samples.
      metadata: "icc_profile", "exif", "xmp" -> bytes.
      tiles: the chunks of each tile, in network modes; fewer than its levels if truncated.
      plain: the content of mode PLAIN.
      low: the section of low bytes of 16-bit images; alpha: that of the alpha plane, both inflated.
      complete: False if the file was truncated.
      sizes: bytes of each part, by name.
    """

    header: Header
    crc: int
    metadata: dict[str, bytes]
    tiles: list[list[Chunk]]
    plain: bytes | None
    low: bytes | None
    alpha: bytes | None
    complete: bool
    sizes: dict[str, int]


def parse(data: bytes, max_pixels: int) -> Parsed:
    """Splits a file into its parts and verifies all checksums.

    Args:
      max_pixels: larger images are refused.

    Raises:
      CodecError: the file is damaged, or too large.
    """
    reader = Reader(bytes(data))
    header = container.unpack_header(reader)
    if header.version != container.LOSSLESS or header.quality > GRAY_NETWORK:
        raise CodecError(f"mode {header.quality} is unknown; install a newer aejax")
    if _computed_pixels(header) > max_pixels + 1024:
        raise CodecError(
            f"an image of {header.width} x {header.height} is more than the limit of {max_pixels} "
            "pixels; raise max_pixels if you trust the file"
        )
    crc, complete, sizes = 0, False, {"header": reader.position}
    metadata: dict[str, bytes] = {}
    tiles: list[list[Chunk]] = [[] for _ in tiles_of(header)]
    body = low = alpha = None
    try:
        if header.flags & container.METADATA:
            container.read_metadata(reader, metadata)
        sizes["metadata"] = reader.position - sizes["header"]
        crc = int.from_bytes(reader.take(4), "little")
        if header.quality == PLAIN:
            length, check = reader.number(), int.from_bytes(reader.take(4), "little")
            body = reader.data[reader.position : reader.position + length]
            reader.take(length)
            if zlib.crc32(body) != check:
                raise CodecError("the pixel data are damaged")
            sizes["pixels"] = len(body)
        else:
            _read_chunks(reader, header, tiles, sizes)
            low, alpha = _read_planes(reader, header, sizes)
        complete = True
    except container.EndOfData:
        pass
    if complete and reader.position != len(data):
        raise CodecError(
            f"{len(data) - reader.position} extra bytes at the end; the file is damaged"
        )
    return Parsed(header, crc, metadata, tiles, body, low, alpha, complete, sizes)


def _read_chunks(
    reader: Reader, header: Header, tiles: list[list[Chunk]], sizes: dict[str, int]
) -> None:
    """Appends the chunks of all scans to `tiles`."""
    scans, first = scans_of(header)
    for scan in range(scans):
        start = reader.position
        for n, tile in enumerate(tiles):
            where = f"scan {scan + 1}" + (f" of tile {n + 1}" if len(tiles) > 1 else "")
            chunk = container.read_chunk(reader, where)
            if (scan >= first[n]) != bool(chunk.data):
                raise CodecError(f"{where} is damaged")
            if chunk.data:
                tile.append(chunk)
        sizes[f"scan {scan + 1}"] = reader.position - start


def _read_planes(
    reader: Reader, header: Header, sizes: dict[str, int]
) -> tuple[bytes | None, bytes | None]:
    """The sections (low bytes, alpha); None if the flags say that there is none."""
    low = alpha = None
    pixels, deep = header.width * header.height, header.flags & container.DEEP
    if deep:
        start, channels = reader.position, 1 if header.flags & container.GRAY else 3
        kind, low = container.read_section(reader, 1 + pixels * channels)
        if kind != container.LOW_BYTES or len(low) != 1 + pixels * channels:
            raise CodecError("the section of low bytes is missing; the file is damaged")
        sizes["low bytes"] = reader.position - start
    if header.flags & container.ALPHA:
        start = reader.position
        kind, alpha = container.read_section(reader, pixels * (2 if deep else 1))
        if kind != container.ALPHA_PLANE:
            raise CodecError("the alpha section is missing; the file is damaged")
        sizes["alpha"] = reader.position - start
    return low, alpha
