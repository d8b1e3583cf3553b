"""How the bytes of a lossy file lie: version 1 of docs/aej-format.md. No pixels, no model."""

import dataclasses
from collections.abc import Callable

from aejax.codec import container
from aejax.codec.container import Chunk, Header, Reader
from aejax.codec.errors import CodecError
from aejax.codec.transforms import STRIDE
from aejax.codec.windows import SHAPES

MAX_PIXELS = 1 << 27  # by default: what the header of a hostile file can make us allocate
NO_LIMIT = 1 << 40  # of pixels, where none is computed


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A file's parts, none decoded.

    Attributes:
      tiles: the chunks of each tile, one per scan, fewer if the file was cut.
      alpha: the inflated alpha plane.
      complete: False if the file was cut.
      sizes: bytes of each part, by name.
    """

    header: Header
    metadata: dict[str, bytes]
    tiles: list[list[Chunk]]
    alpha: bytes | None
    complete: bool
    sizes: dict[str, int]


def _computed(header: Header) -> int:
    """Pixels to compute. A strip longer than a tile counts as wide as the smallest window: else a
    header could ask for 64 times the work that it seems to."""
    short, long = sorted((header.width, header.height))
    return max(short, SHAPES[0] * STRIDE if long > container.TILE * STRIDE else 0) * long


def parse(data: bytes, scans_of: Callable[[bytes], int], max_pixels: int = MAX_PIXELS) -> Parsed:
    """Takes a file apart and checks every byte of it.

    Args:
      scans_of: model id -> its number of scans.
      max_pixels: refuse images that are more to compute.

    Raises:
      CodecError: the file is damaged, and how, or too large.
    """
    reader = Reader(bytes(data))
    header = container.unpack_header(reader)
    pixels = _computed(header)
    if pixels > max_pixels:
        raise CodecError(
            f"an image of {header.width} x {header.height} is as much to compute as "
            f"{pixels} pixels, more than the limit of {max_pixels}; raise max_pixels if you trust "
            "the file"
        )
    scans = scans_of(header.model)
    sizes = {"header": reader.at}
    metadata: dict[str, bytes] = {}
    alpha, complete = None, False
    tiles: list[list[Chunk]] = [[] for _ in header.tiles]
    try:
        if header.flags & container.METADATA:
            container.read_metadata(reader, metadata)
        sizes["metadata"] = reader.at - sizes["header"]
        for scan in range(scans):
            start = reader.at
            for n, tile in enumerate(tiles):
                where = f"scan {scan + 1}" + (f" of tile {n + 1}" if len(tiles) > 1 else "")
                tile.append(container.read_chunk(reader, where))
            sizes[f"scan {scan + 1}"] = reader.at - start
        if header.flags & container.ALPHA:
            start = reader.at
            limit = header.width * header.height * (2 if header.flags & container.DEEP else 1)
            kind, alpha = container.read_section(reader, limit)
            if kind != container.ALPHA_PLANE:
                raise CodecError("the alpha section is missing; the file is damaged")
            sizes["alpha"] = reader.at - start
        complete = True
    except container.EndOfData:
        pass
    if complete and reader.at != len(data):
        raise CodecError(f"{len(data) - reader.at} bytes too many at the end; the file is damaged")
    return Parsed(header, metadata, tiles, alpha, complete, sizes)
