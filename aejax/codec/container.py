"""The parts of an .aej file as bytes: header, sections, chunks. The format is specified in
docs/aej-format.md.

    89 41 45 4A 0D 0A 1A 0A   magic, which detects transfers that change line ends, as PNG's
    version, model id (4), flags, quality byte, width - 1, height - 1 (base 128), crc (2)
    metadata sections, if flagged
    chunks: for each scan, for each tile, one chunk
    alpha section, if flagged

Integers are little-endian. "base 128" has the low digits first and 128 added to every byte but the
last (LEB128).
"""

import dataclasses
import zlib
from collections.abc import Mapping

from aejax.codec.errors import CodecError

MAGIC = b"\x89AEJ\r\n\x1a\n"
VERSION = 1  # lossy files
LOSSLESS = 2  # version of lossless files, codec/lossless/layout.py
GRAY, ALPHA, DEEP, METADATA = 1, 2, 4, 8  # flags; DEEP: 16 bits per sample
ICC, EXIF, XMP, ALPHA_PLANE, LOW_BYTES = 1, 2, 3, 4, 5  # kinds of sections
METADATA_NAMES = {ICC: "icc_profile", EXIF: "exif", XMP: "xmp"}
NAMES = METADATA_NAMES | {ALPHA_PLANE: "alpha", LOW_BYTES: "low bytes"}
SECTION_LIMIT = 1 << 26  # inflated bytes of a metadata section
TILE = 96  # latents per side: 1536 pixels
STRIDE = 16  # pixels per latent position, in each direction


def base128(n: int) -> bytes:
    """A non-negative integer in base 128, low digits first.

    >>> list(base128(300))
    [172, 2]
    """
    digits = bytearray()
    while n >= 128:
        digits.append(n & 127 | 128)
        n >>= 7
    return bytes([*digits, n])


def crc16(data: bytes) -> int:
    """The low 16 bits of CRC-32."""
    return zlib.crc32(data) & 0xFFFF


class EndOfData(Exception):
    """The data ends early: the file was truncated."""


@dataclasses.dataclass
class Reader:
    """Bytes with a read position."""

    data: bytes
    position: int = 0

    def take(self, n: int) -> bytes:
        """The next n bytes.

        Raises:
          EndOfData: there are fewer.
        """
        if n > len(self.data) - self.position:
            raise EndOfData
        self.position += n
        return self.data[self.position - n : self.position]

    def number(self, max_bytes: int = 5) -> int:
        """The next base 128 number.

        Raises:
          EndOfData: the data ends within it.
          CodecError: it is longer than `max_bytes`, or has a leading zero digit.
        """
        n = 0
        for i in range(max_bytes):
            byte = self.take(1)[0]
            n |= (byte & 127) << (7 * i)
            if byte < 128:
                if i and not byte:
                    break  # every number has a single valid encoding
                return n
        raise CodecError(f"a number at byte {self.position} is malformed; the file is damaged")


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
      model: id of the model, 4 bytes.
      quality: quality byte, 0 to 255; of a lossless file its mode.
      width, height: in pixels.
      flags: sum of GRAY, ALPHA, DEEP, METADATA.
      version: VERSION (lossy) or LOSSLESS.

    >>> Header(b"abcd", 128, width=100, height=50).grid
    (4, 7)
    """

    model: bytes
    quality: int
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
        """The channels, for `aejax codec info`."""
        return ("RGB", "gray", "RGB + alpha", "gray + alpha")[self.flags & (GRAY | ALPHA)]

    @property
    def tiles(self) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) of each tile in latents, row by row."""
        h, w = self.grid
        return [
            (i, j, min(TILE, h - i), min(TILE, w - j))
            for i in range(0, h, TILE)
            for j in range(0, w, TILE)
        ]

    def pack(self) -> bytes:
        """The header as bytes."""
        body = MAGIC + bytes([self.version]) + self.model + bytes([self.flags, self.quality])
        body += base128(self.width - 1) + base128(self.height - 1)
        return body + crc16(body).to_bytes(2, "little")


def unpack_header(reader: Reader) -> Header:
    """Reads a header.

    Raises:
      CodecError: not an .aej file, damaged, or of an unknown version.
    """
    magic = reader.data[: len(MAGIC)]
    if magic != MAGIC:
        if magic[:4] == MAGIC[:4]:
            raise CodecError("line ends were changed in transfer; copy the file in binary mode")
        raise CodecError("not an .aej file")
    reader.position = len(MAGIC)
    try:
        version = reader.take(1)[0]
        if version not in (VERSION, LOSSLESS):
            raise CodecError(f"format version {version} is unknown; install a newer aejax")
        model = reader.take(4)
        flags, quality = reader.take(2)
        width, height = reader.number() + 1, reader.number() + 1
        body = reader.data[: reader.position]
        if int.from_bytes(reader.take(2), "little") != crc16(body):
            raise CodecError("the header is damaged")
    except EndOfData:
        raise CodecError("the file ends within its header") from None
    if flags & ~(GRAY | ALPHA | DEEP | METADATA):
        raise CodecError(f"unknown flags {flags:#04x}; install a newer aejax")
    return Header(model, quality, width, height, flags, version)


# --- sections -------------------------------------------------------------------------------------


def pack_section(kind: int, content: bytes) -> bytes:
    """A section: kind, length, crc, deflated content."""
    packed = zlib.compress(content, 9)
    return bytes([kind]) + base128(len(packed)) + zlib.crc32(packed).to_bytes(4, "little") + packed


def read_section(reader: Reader, limit: int = SECTION_LIMIT) -> tuple[int, bytes]:
    """Reads (kind, content) of a section; kind 0 marks the end of a list and has no content.

    Args:
      limit: inflated bytes that the content may have.

    Raises:
      EndOfData: the data ends within the section.
      CodecError: it is damaged or too large.
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
        raise CodecError(f"the {name} section exceeds its limit of {limit} bytes")
    return kind, content


def pack_metadata(metadata: Mapping[str, bytes]) -> bytes:
    """Metadata ("icc_profile", "exif", "xmp" -> bytes) as sections and the zero byte after them.

    Raises:
      CodecError: another name, or more than SECTION_LIMIT bytes.
    """
    kinds, sections = {v: k for k, v in METADATA_NAMES.items()}, []
    for name, content in metadata.items():
        if name not in kinds:
            raise CodecError(f'metadata "{name}" is not supported; known: {", ".join(kinds)}')
        if len(content) > SECTION_LIMIT:
            raise CodecError(f"{name} has more than {SECTION_LIMIT} bytes")
        sections.append(pack_section(kinds[name], bytes(content)))
    return b"".join([*sections, b"\0"])


def read_metadata(reader: Reader, into: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """The inverse of `pack_metadata`.

    Args:
      into: a dict to fill; it keeps what was read before the data ended.

    Raises:
      EndOfData: the data ends within the sections.
      CodecError: they are damaged.
    """
    metadata = {} if into is None else into
    while True:
        kind, content = read_section(reader)
        if not kind:
            return metadata
        if kind not in METADATA_NAMES or METADATA_NAMES[kind] in metadata:
            raise CodecError("a section is repeated or out of place; the file is damaged")
        metadata[METADATA_NAMES[kind]] = content


# --- chunks ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Chunk:
    """One scan of one tile.

    Attributes:
      data: the coded symbols; empty if all of them are zero.
      symbols: hash of the decoded symbols, crc16 of little-endian int32.
    """

    data: bytes
    symbols: int

    def pack(self) -> bytes:
        """The chunk as bytes: length, crc of the data, hash of the symbols, data."""
        if not self.data:
            return b"\0"
        checks = crc16(self.data).to_bytes(2, "little") + self.symbols.to_bytes(2, "little")
        return base128(len(self.data)) + checks + self.data


def read_chunk(reader: Reader, name: str) -> Chunk:
    """Reads a chunk; name: for errors, such as "scan 2".

    Raises:
      EndOfData: the data ends within it.
      CodecError: it is damaged.
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


# --- alpha ----------------------------------------------------------------------------------------


def pack_plane(plane) -> bytes:
    """A plane, uint8 or uint16 [h, w], as bytes that deflate well: differences to the row above (in
    the first row to the left); of uint16 all low bytes, then all high bytes.

    >>> list(pack_plane(np.array([[5, 6], [5, 9]], np.uint8)))
    [5, 1, 0, 3]
    """
    import numpy as np

    previous = np.vstack([np.zeros_like(plane[:1]), plane[:-1]])
    previous[0, 1:] = plane[0, :-1]
    differences = plane - previous  # modulo 2^bits
    if plane.dtype == np.uint16:
        differences = np.stack([differences & 255, differences >> 8])
    return differences.astype(np.uint8).tobytes()


def unpack_plane(content: bytes, height: int, width: int, deep: bool):
    """The inverse of `pack_plane`; deep: uint16.

    Raises:
      CodecError: the content does not have the size of the plane.
    """
    import numpy as np

    if len(content) != height * width * (2 if deep else 1):
        raise CodecError("the alpha section does not fit the image")
    differences = np.frombuffer(content, np.uint8)
    dtype = np.uint16 if deep else np.uint8
    if deep:
        low, high = differences.reshape(2, height, width).astype(np.uint16)
        differences = low | high << 8
    differences = differences.reshape(height, width).copy()
    differences[0] = np.cumsum(differences[0], dtype=dtype)
    return np.cumsum(differences, axis=0, dtype=dtype)
