"""How the bytes of a lossless file lie: version 2 of docs/aej-format.md. No pixels, no model."""

import dataclasses
import zlib

from aejax.codec import container
from aejax.codec.container import Chunk, Header, Reader
from aejax.codec.errors import CodecError

NETWORK, PLAIN, GRAY_NETWORK = 0, 1, 2  # modes; the last: R = G = B everywhere


def is_lossless(data: bytes) -> bool:
    """Whether a file is of this kind, by its version."""
    start = len(container.MAGIC)
    return data[:start] == container.MAGIC and data[start : start + 1] == bytes(
        [container.LOSSLESS]
    )


def tiles_of(header: Header) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) in pixels of each tile, in the order of reading."""
    from aejax.codec.lossless.runtime import TILE

    h, w = header.height, header.width
    return [
        (i, j, min(TILE, h - i), min(TILE, w - j))
        for i in range(0, h, TILE)
        for j in range(0, w, TILE)
    ]


def scans_of(header: Header) -> tuple[int, list[int]]:
    """(scans of a network's file: the coarsest samples, then the levels of its largest tile; in
    which of them each tile begins: small tiles begin later)."""
    from aejax.codec.lossless.runtime import count_levels

    levels = [count_levels(h, w) for _, _, h, w in tiles_of(header)]
    return 1 + max(levels), [max(levels) - n for n in levels]


def _cost(header: Header) -> int:
    """Pixels to compute: a thin strip is computed 32 wide."""
    return max(header.width, 32) * max(header.height, 32)


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A file's parts, none decoded."""

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
    """Takes a file apart and checks every byte of it.

    Raises:
      CodecError: it is damaged, and how.
    """
    reader = Reader(bytes(data))
    header = container.unpack_header(reader)
    if header.version != container.LOSSLESS or header.quality > GRAY_NETWORK:
        raise CodecError(f"mode {header.quality} is unknown; install a newer aejax")
    if _cost(header) > max_pixels + 1024:
        raise CodecError(
            f"an image of {header.width} x {header.height} is more than the limit of {max_pixels} "
            "pixels; raise max_pixels if you trust the file"
        )
    crc, complete, sizes = 0, False, {"header": reader.at}
    metadata: dict[str, bytes] = {}
    tiles: list[list[Chunk]] = [[] for _ in tiles_of(header)]
    body = low = alpha = None
    try:
        if header.flags & container.METADATA:
            container.read_metadata(reader, metadata)
        sizes["metadata"] = reader.at - sizes["header"]
        crc = int.from_bytes(reader.take(4), "little")
        if header.quality == PLAIN:
            length, check = reader.number(), int.from_bytes(reader.take(4), "little")
            body = reader.data[reader.at : reader.at + length]
            reader.take(length)
            if zlib.crc32(body) != check:
                raise CodecError("the pixels are damaged")
            sizes["pixels"] = len(body)
        else:
            _read_chunks(reader, header, tiles, sizes)
            low, alpha = _read_planes(reader, header, sizes)
        complete = True
    except container.EndOfData:
        pass
    if complete and reader.at != len(data):
        raise CodecError(f"{len(data) - reader.at} bytes too many at the end; the file is damaged")
    return Parsed(header, crc, metadata, tiles, body, low, alpha, complete, sizes)


def _read_chunks(reader: Reader, header: Header, tiles, sizes) -> None:
    scans, first = scans_of(header)
    for scan in range(scans):
        start = reader.at
        for n, tile in enumerate(tiles):
            where = f"scan {scan + 1}" + (f" of tile {n + 1}" if len(tiles) > 1 else "")
            chunk = container.read_chunk(reader, where)
            if (scan >= first[n]) != bool(chunk.data):
                raise CodecError(f"{where} is damaged")
            if chunk.data:
                tile.append(chunk)
        sizes[f"scan {scan + 1}"] = reader.at - start


def _read_planes(reader: Reader, header: Header, sizes) -> tuple[bytes | None, bytes | None]:
    """(low bytes, alpha), where the flags have them."""
    low = alpha = None
    pixels, deep = header.width * header.height, header.flags & container.DEEP
    if deep:
        start, channels = reader.at, 1 if header.flags & container.GRAY else 3
        kind, low = container.read_section(reader, 1 + pixels * channels)
        if kind != container.LOW_BYTES or len(low) != 1 + pixels * channels:
            raise CodecError("the section of low bytes is missing; the file is damaged")
        sizes["low bytes"] = reader.at - start
    if header.flags & container.ALPHA:
        start = reader.at
        kind, alpha = container.read_section(reader, pixels * (2 if deep else 1))
        if kind != container.ALPHA_PLANE:
            raise CodecError("the alpha section is missing; the file is damaged")
        sizes["alpha"] = reader.at - start
    return low, alpha
