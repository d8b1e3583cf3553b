"""The .aej file: docs/aej-format.md in code. Bytes in, bytes out; no model, no arrays of pixels.

    89 41 45 4A 0D 0A 1A 0A   magic: high bit, "AEJ", line ends and end of file of old systems
    version, model id (4), flags, quality byte, width - 1, height - 1 (base 128), crc (2)
    metadata sections, if flagged; then the chunks, scan by scan and within it tile by tile;
    then the alpha section, if flagged

Numbers of more than one byte are little-endian; "base 128" is low digits first, with 128 added to
every byte but the last.
"""

import dataclasses
import zlib
from collections.abc import Mapping

from aejax.codec.errors import CodecError

MAGIC = b"\x89AEJ\r\n\x1a\n"
VERSION = 1  # of lossy files
LOSSLESS = 2  # of lossless ones, codec/lossless/layout.py
GRAY, ALPHA, DEEP, METADATA = 1, 2, 4, 8  # flags; DEEP: 16 bits per sample
ICC, EXIF, XMP, ALPHA_PLANE, LOW_BYTES = 1, 2, 3, 4, 5  # sections
METADATA_NAMES = {ICC: "icc_profile", EXIF: "exif", XMP: "xmp"}
NAMES = METADATA_NAMES | {ALPHA_PLANE: "alpha", LOW_BYTES: "low bytes"}
SECTION_LIMIT = 1 << 26  # bytes of a section once inflated (but for the alpha plane)
TILE = 96  # latents per side: 1536 pixels
STRIDE = 16


def base128(n: int) -> bytes:
    """A whole number, low digits first."""
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def crc16(data: bytes) -> int:
    """The low half of CRC-32."""
    return zlib.crc32(data) & 0xFFFF


class EndOfData(Exception):
    """The stream ends before what was asked for."""


@dataclasses.dataclass
class Reader:
    """Bytes with a position."""

    data: bytes
    at: int = 0

    def take(self, n: int) -> bytes:
        """The next n bytes.

        Raises:
          EndOfData: there are fewer.
        """
        if n > len(self.data) - self.at:
            raise EndOfData
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, most: int = 5) -> int:
        """A base 128 number of at most `most` bytes."""
        n = 0
        for i in range(most):
            byte = self.take(1)[0]
            n |= (byte & 127) << (7 * i)
            if byte < 128:
                if i and not byte:
                    break  # no number has two spellings
                return n
        raise CodecError(f"a number at byte {self.at} is malformed; the file is damaged")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    model: bytes  # 4
    quality: int  # 0..255; of a lossless file its mode
    width: int
    height: int
    flags: int = 0
    version: int = VERSION

    @property
    def grid(self) -> tuple[int, int]:
        """Latents per column and per row."""
        return -(-self.height // STRIDE), -(-self.width // STRIDE)

    @property
    def channels(self) -> str:
        """What the channels are, in words."""
        return ("RGB", "gray", "RGB + alpha", "gray + alpha")[self.flags & (GRAY | ALPHA)]

    @property
    def tiles(self) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) in latents of each tile, in the order of reading."""
        h, w = self.grid
        return [
            (i, j, min(TILE, h - i), min(TILE, w - j))
            for i in range(0, h, TILE)
            for j in range(0, w, TILE)
        ]

    def pack(self) -> bytes:
        """The header's bytes: 21 to 25 (a side of 2^21 pixels has four digits)."""
        body = MAGIC + bytes([self.version]) + self.model + bytes([self.flags, self.quality])
        body += base128(self.width - 1) + base128(self.height - 1)
        return body + crc16(body).to_bytes(2, "little")


def unpack_header(reader: Reader) -> Header:
    """Reads a header.

    Raises:
      CodecError: it is none, or damaged, or of a later version.
    """
    start = reader.data[: len(MAGIC)]
    if start != MAGIC:
        if start[:4] == MAGIC[:4]:
            raise CodecError("the file was changed in transfer (line ends); copy it as binary")
        raise CodecError("not an .aej file")
    reader.at = len(MAGIC)
    try:
        version = reader.take(1)[0]
        if version not in (VERSION, LOSSLESS):
            raise CodecError(f"format version {version} is unknown; install a newer aejax")
        model = reader.take(4)
        flags, quality = reader.take(2)
        width, height = reader.number() + 1, reader.number() + 1
        body = reader.data[: reader.at]
        if int.from_bytes(reader.take(2), "little") != crc16(body):
            raise CodecError("the header is damaged")
    except EndOfData:
        raise CodecError("the file ends within its header") from None
    if flags & ~(GRAY | ALPHA | DEEP | METADATA):
        raise CodecError(f"unknown flags {flags:#04x}; install a newer aejax")
    return Header(model, quality, width, height, flags, version)


# --- sections -------------------------------------------------------------------------------------


def pack_section(kind: int, content: bytes) -> bytes:
    """kind, length, crc, deflated content."""
    packed = zlib.compress(content, 9)
    return bytes([kind]) + base128(len(packed)) + zlib.crc32(packed).to_bytes(4, "little") + packed


def read_section(reader: Reader, limit: int = SECTION_LIMIT) -> tuple[int, bytes]:
    """(kind, content); kind 0 ends a list.

    Raises:
      EndOfData, CodecError: cut, damaged.
    """
    kind = reader.take(1)[0]
    if kind == 0:
        return 0, b""
    if kind not in NAMES:
        raise CodecError(f"unknown section {kind}; the file is damaged")
    name = NAMES[kind]
    length = reader.number()
    check = int.from_bytes(reader.take(4), "little")
    packed = reader.take(length)
    if zlib.crc32(packed) != check:
        raise CodecError(f"the {name} section is damaged")
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(packed, limit + 1)
    except zlib.error:
        raise CodecError(f"the {name} section is damaged") from None
    if len(content) > limit or not inflate.eof:
        raise CodecError(f"the {name} section is larger than it may be")
    return kind, content


def pack_metadata(metadata: Mapping[str, bytes]) -> bytes:
    """All sections, and the zero that ends them.

    Raises:
      CodecError: it cannot be carried.
    """
    kinds, out = {v: k for k, v in METADATA_NAMES.items()}, []
    for name, content in metadata.items():
        if name not in kinds:
            raise CodecError(f'metadata "{name}" is not carried; known: {", ".join(kinds)}')
        if len(content) > SECTION_LIMIT:
            raise CodecError(f"{name} has more than {SECTION_LIMIT} bytes")
        out.append(pack_section(kinds[name], bytes(content)))
    return b"".join([*out, b"\0"])


def read_metadata(reader: Reader, into: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """Name -> content of a list of metadata sections.

    Args:
      into: filled as far as the data reach.

    Raises:
      EndOfData, CodecError: cut, damaged.
    """
    metadata = {} if into is None else into
    while True:
        kind, content = read_section(reader)
        if not kind:
            return metadata
        if kind not in METADATA_NAMES or METADATA_NAMES[kind] in metadata:
            raise CodecError("a misplaced section; the file is damaged")
        metadata[METADATA_NAMES[kind]] = content


# --- chunks ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Chunk:
    """One scan of one tile: coded symbols, and a hash of what they decode to. No data: all of the
    scan's symbols are zero."""

    data: bytes
    symbols: int  # crc16 of the symbols as little-endian int32

    def pack(self) -> bytes:
        """length, crc of the data, hash of the symbols, data."""
        if not self.data:
            return b"\0"
        checks = crc16(self.data).to_bytes(2, "little") + self.symbols.to_bytes(2, "little")
        return base128(len(self.data)) + checks + self.data


def read_chunk(reader: Reader, name: str) -> Chunk:
    """Reads a chunk.

    Raises:
      EndOfData, CodecError: cut, damaged.
    """
    length = reader.number()
    if not length:
        return Chunk(b"", 0)
    check = int.from_bytes(reader.take(2), "little")
    symbols = int.from_bytes(reader.take(2), "little")
    data = reader.take(length)
    if crc16(data) != check:
        raise CodecError(f"{name} is damaged")
    return Chunk(data, symbols)


# --- the lossless plane ---------------------------------------------------------------------------


def pack_plane(plane) -> bytes:
    """A uint8 or uint16 [h, w] plane as bytes that deflate well: differences to the row above, the
    first row to the left, high bytes after low bytes."""
    import numpy as np

    previous = np.vstack([np.zeros_like(plane[:1]), plane[:-1]])
    previous[0, 1:] = plane[0, :-1]
    rest = plane - previous  # modulo 2^bits
    if plane.dtype == np.uint16:
        rest = np.stack([rest & 255, rest >> 8])
    return rest.astype(np.uint8).tobytes()


def unpack_plane(content: bytes, height: int, width: int, deep: bool):
    """The plane of `pack_plane`.

    Raises:
      CodecError: it has another size.
    """
    import numpy as np

    if len(content) != height * width * (2 if deep else 1):
        raise CodecError("the alpha section does not fit the image")
    rest = np.frombuffer(content, np.uint8)
    dtype = np.uint16 if deep else np.uint8
    if deep:
        low, high = rest.reshape(2, height, width).astype(np.uint16)
        rest = low | high << 8
    rest = rest.reshape(height, width).copy()
    rest[0] = np.cumsum(rest[0], dtype=dtype)
    return np.cumsum(rest, axis=0, dtype=dtype)
