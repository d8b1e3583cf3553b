"""Splits a lossy file into its parts (version 1 of docs/aej-format.md), without a model."""

import dataclasses
from collections.abc import Callable

from aejax.codec import container
from aejax.codec.container import Chunk, Header, Reader
from aejax.codec.errors import CodecError
from aejax.codec.transforms import STRIDE
from aejax.codec.windows import SHAPES

MAX_PIXELS = 1 << 27  # default limit: a forged header must not make a reader allocate much memory
NO_LIMIT = 1 << 40  # limit in pixels for callers that compute none


@dataclasses.dataclass(frozen=True)
class Parsed:
    """The parts of a file, not decoded.

    Attributes:
      metadata: "icc_profile", "exif", "xmp" -> bytes.
      tiles: the chunks of each tile, one per scan; fewer if the file was truncated.
      alpha: the inflated alpha plane, see container.pack_plane.
      complete: False if the file was truncated.
      sizes: bytes of each part, by name.
    """

    header: Header
    metadata: dict[str, bytes]
    tiles: list[list[Chunk]]
    alpha: bytes | None
    complete: bool
    sizes: dict[str, int]


def _computed_pixels(header: Header) -> int:
    """Pixels that decoding computes. The smallest window is 64 pixels wide, so a narrower strip
    that is longer than a tile counts as 64 wide; otherwise it could cost 64 times its own
    pixels."""
    short, long = sorted((header.width, header.height))
    return max(short, SHAPES[0] * STRIDE if long > container.TILE * STRIDE else 0) * long


def parse(data: bytes, scans_of: Callable[[bytes], int], max_pixels: int = MAX_PIXELS) -> Parsed:
    """Splits a file into its parts and verifies all checksums.

    Args:
      scans_of: model id -> its number of scans.
      max_pixels: larger images are refused.

    Raises:
      CodecError: the file is damaged, or too large.
    """
    reader = Reader(bytes(data))
    header = container.unpack_header(reader)
    pixels = _computed_pixels(header)
    if pixels > max_pixels:
        raise CodecError(
            f"decoding {header.width} x {header.height} pixels computes {pixels} pixels, more than "
            f"the limit of {max_pixels}; raise max_pixels if you trust the file"
        )
    scans = scans_of(header.model)
    sizes = {"header": reader.position}
    metadata: dict[str, bytes] = {}
    alpha, complete = None, False
    tiles: list[list[Chunk]] = [[] for _ in header.tiles]
    try:
        if header.flags & container.METADATA:
            container.read_metadata(reader, metadata)
        sizes["metadata"] = reader.position - sizes["header"]
        for scan in range(scans):
            start = reader.position
            for n, tile in enumerate(tiles):
                where = f"scan {scan + 1}" + (f" of tile {n + 1}" if len(tiles) > 1 else "")
                tile.append(container.read_chunk(reader, where))
            sizes[f"scan {scan + 1}"] = reader.position - start
        if header.flags & container.ALPHA:
            start = reader.position
            limit = header.width * header.height * (2 if header.flags & container.DEEP else 1)
            kind, alpha = container.read_section(reader, limit)
            if kind != container.ALPHA_PLANE:
                raise CodecError("the alpha section is missing; the file is damaged")
            sizes["alpha"] = reader.position - start
        complete = True
    except container.EndOfData:
        pass
    if complete and reader.position != len(data):
        raise CodecError(
            f"{len(data) - reader.position} extra bytes at the end; the file is damaged"
        )
    return Parsed(header, metadata, tiles, alpha, complete, sizes)
