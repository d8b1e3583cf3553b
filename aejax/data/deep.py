"""Images that Pillow cannot represent: 16-bit colour in PNG and PPM, and scientific TIFF files.

Pillow has no mode for more than 8 bits of colour. TIFF is read by tifffile; if its compression
needs the optional package imagecodecs, Pillow decodes the file twice (`read_16_bits`).
"""

import struct
import sys
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes of a TIFF or BigTIFF file
EXIF_IFD, GPS_IFD = 34665, 34853
# TIFF tags that describe the image, not its layout: title, camera, software, artist, rating, ...
DESCRIPTIVE_TAGS = {269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432}
DESCRIPTIVE_TAGS |= set(range(40091, 40096))
STRIP = 1 << 20  # bytes of samples per strip of a TIFF


class Unsupported(Exception):
    """An image of an unsupported kind. The message continues the name of the file."""


def to_uint8(x: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, rounded: x / 257 (65535 = 257 * 255).

    >>> to_uint8(np.array([0, 128, 129, 65535], np.uint16)).tolist()
    [0, 0, 1, 255]
    """
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)


def scale_to_16_bits(x: np.ndarray, white: int) -> np.ndarray:
    """Samples from 0 to `white` (at most 65535) as uint16 from 0 to 65535, rounded."""
    if white == 65535:
        return x.astype(np.uint16)
    return ((x.astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)


# --- reading --------------------------------------------------------------------------------------


def raw_mode(im) -> str:
    """Pillow's raw mode of the samples, such as "RGB;16B"; "" if the plugin does not tell."""
    args = im.tile[0].args if getattr(im, "tile", None) else ""
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def read_16_bits(im, same) -> np.ndarray:
    """uint16 samples of 16-bit colour.

    Pillow keeps one byte of each sample: the high one if it is given the true byte order, the low
    one if it is given the other. So the file is decoded twice.

    Args:
      im, same: the file, opened twice by Pillow and not loaded yet.
    """
    raw = raw_mode(im)
    if raw == "LA;16B":  # four bytes per pixel, as in RGBA
        im._mode = "RGBA"  # Pillow has no public way to reinterpret the bytes
        im.tile = [t._replace(args="RGBA") for t in im.tile]
        x = np.asarray(im)
        return x[..., 0::2].astype(np.uint16) << 8 | x[..., 1::2]
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
    swapped = raw[:-1] + ("B" if little else "L")
    same.tile = [
        t._replace(args=swapped if isinstance(t.args, str) else (swapped, *t.args[1:]))
        for t in same.tile
    ]
    return np.asarray(im).astype(np.uint16) << 8 | np.asarray(same)


def read_ppm(im, file: BinaryIO) -> np.ndarray | None:
    """uint16 samples [h, w, c] of a PPM or PGM with more than 8 bits, white at 65535; None for
    other files."""
    if im.format != "PPM" or im.mode not in ("I", "RGB"):
        return None
    tile = im.tile[0]
    white = tile.args[1] if isinstance(tile.args, tuple) else 65535 if im.mode == "I" else 255
    if white < 256:
        return None
    shape = (im.height, im.width, 1 if im.mode == "I" else 3)
    file.seek(tile.offset)
    if tile.codec_name == "ppm_plain":
        lines = [line.partition(b"#")[0] for line in file.read().splitlines()]
        x = np.array(b" ".join(lines).split()[: np.prod(shape)], np.uint32)
    else:
        x = np.frombuffer(file.read(2 * int(np.prod(shape))), ">u2")
    return scale_to_16_bits(np.minimum(x, white).reshape(shape), white)


class Page(NamedTuple):
    """The first page of a TIFF, according to its tags.

    Attributes:
      shape: (h, w) as stored, orientation not applied.
      bits: per sample.
      kind: "u" unsigned, "i" signed, "f" floating point.
      samples: per pixel.
      photometric: TIFF tag 262: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, ...
      planar: whether each channel is stored by itself.
      extra: type of the first extra sample: 1 premultiplied alpha, 2 alpha, 0 unknown.
      orientation: 1 to 8, as in EXIF.
      count: number of pages of the file.
    """

    shape: tuple[int, int]
    bits: int
    kind: str
    samples: int
    photometric: int
    planar: bool
    extra: int | None
    orientation: int
    count: int

    @property
    def plain(self) -> bool:
        """Whether Pillow reads the page correctly: unsigned samples of at most 8 bits, and not
        planar gray, RGB or CMYK (which Pillow reads wrongly if they have alpha)."""
        in_planes = self.planar and self.photometric in (0, 1, 2, 5)
        return self.bits <= 8 and self.kind == "u" and not in_planes


def tiff_page(file: BinaryIO) -> Page | None:
    """The first page of a TIFF; None if the file is not a TIFF or tifffile cannot parse it."""
    file.seek(0)
    if file.read(4) not in TIFF:
        return None
    import tifffile

    file.seek(0)
    try:
        with _quiet(), tifffile.TiffFile(file) as tif:
            page = tif.pages.first
            count = len(tif.pages)
            if tif.is_imagej and tif.imagej_metadata:  # many images, one tag
                count = max(count, int(tif.imagej_metadata.get("images", 1)))
            orientation = page.tags.valueof(274, 1)
    except Exception:  # damaged files raise nearly anything; Pillow's error will say what is wrong
        return None
    bits = page.bitspersample
    return Page(
        (page.imagelength, page.imagewidth),
        max(bits) if isinstance(bits, tuple) else bits,
        {2: "i", 3: "f"}.get(int(page.sampleformat), "u"),
        page.samplesperpixel,
        int(page.photometric),
        page.planarconfig == 2 and page.samplesperpixel > 1,
        int(page.extrasamples[0]) if page.extrasamples else None,
        int(orientation) if orientation in range(1, 9) else 1,
        count,
    )


def tiff_samples(file: BinaryIO, page: Page) -> np.ndarray | None:
    """The samples of a page, uint8 or uint16 [h, w, c], as stored (orientation not applied): gray
    or RGB with or without alpha, or CMYK. None if the compression needs imagecodecs.

    Raises:
      Unsupported: samples of another kind.
    """
    if page.kind == "f":
        raise Unsupported(
            "has floating-point samples; 8 and 16 bits are read: scale it to whole numbers first"
        )
    if page.bits > 16 or page.kind == "i":
        sign = "signed " if page.kind == "i" else ""
        raise Unsupported(f"has {sign}{page.bits}-bit samples; 8 and 16 bits are read")
    colours = {0: 1, 1: 1, 2: 3, 5: 4}.get(page.photometric)
    if colours is None:
        raise Unsupported(f"has {page.bits}-bit samples of photometric kind {page.photometric}")
    if page.samples not in (colours, colours + 1):
        raise Unsupported(f"has {page.samples} samples per pixel; gray, RGB and alpha are read")
    import tifffile

    file.seek(0)
    try:
        with _quiet(), tifffile.TiffFile(file) as tif:
            x = tif.pages.first.asarray()
    except (ValueError, NotImplementedError) as e:
        if "imagecodecs" in str(e):
            return None
        raise
    x = np.moveaxis(x, 0, 2) if page.planar else x
    x = x.reshape(*page.shape, page.samples)
    white = 2**page.bits - 1
    if page.bits > 8:
        x = scale_to_16_bits(x, white)
    else:
        x = (x.astype(np.uint32) * 255 // white).astype(np.uint8)
    white = np.iinfo(x.dtype).max
    if page.photometric == 0:  # white is zero
        x = np.concatenate([white - x[..., :1], x[..., 1:]], 2)
    if page.samples > colours and (page.extra not in (1, 2) or colours == 4):
        x = x[..., :colours]
    elif page.samples > colours and page.extra == 1:  # premultiplied alpha
        alpha = np.maximum(x[..., -1:].astype(np.float64), 1)
        colour = np.minimum(np.rint(x[..., :-1] * (white / alpha)), white).astype(x.dtype)
        x = np.concatenate([colour, x[..., -1:]], 2)
    return x


def tiff_tags(file: BinaryIO):
    """All tags of the first page of a TIFF as Pillow's Exif. For a big-endian BigTIFF, which Pillow
    cannot parse, descriptive tags without the EXIF block."""
    from PIL import Image

    file.seek(0)
    head = file.read(16)
    tags = Image.Exif()
    if head[:4] == b"MM\0+":
        import tifffile

        file.seek(0)
        with _quiet(), tifffile.TiffFile(file) as tif:
            kept = DESCRIPTIVE_TAGS - {282, 283} | {700, 34675}
            tags.update({t.code: t.value for t in tif.pages.first.tags if t.code in kept})
        return tags
    tags.endian = "<" if head[:2] == b"II" else ">"
    tags.bigtiff = b"+" in head[2:4]
    (offset,) = struct.unpack_from(f"{tags.endian}{'Q' if tags.bigtiff else 'L'}", head,
                               8 if tags.bigtiff else 4)  # fmt: skip
    tags.load_from_fp(file, offset)
    return tags


def _quiet():
    """Turns off the log of tifffile; errors reach the user as exceptions."""
    import contextlib
    import logging

    @contextlib.contextmanager
    def quiet():
        log = logging.getLogger("tifffile")
        before, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = before

    return quiet()


# --- writing --------------------------------------------------------------------------------------


def encode_png(x: np.ndarray, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """uint16 [h, w, 1..4] as PNG; Pillow writes 16 bits of gray only.

    Each row has the filter (none, sub, up, average, Paeth) with the smallest sum of absolute
    values, as in libpng.
    """
    h, w, c = x.shape
    row = x.astype(">u2").tobytes()
    row = np.frombuffer(row, np.uint8).reshape(h, w, 2 * c).astype(np.int16)
    # The names of the PNG specification: a = left, b = above, c = above left.
    a, b, c_ = np.zeros_like(row), np.zeros_like(row), np.zeros_like(row)
    a[:, 1:], b[1:], c_[1:, 1:] = row[:, :-1], row[:-1], row[:-1, :-1]
    pa, pb, pc = abs(b - c_), abs(a - c_), abs(a + b - 2 * c_)
    paeth = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c_))
    filtered = np.stack([row, row - a, row - b, row - (a + b) // 2, row - paeth]).astype(np.uint8)
    filtered = filtered.reshape(5, h, -1)
    best = abs(filtered.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64).argmin(0)
    rows = np.concatenate([best[:, None].astype(np.uint8), filtered[best, np.arange(h)]], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    out = b"\x89PNG\r\n\x1a\n"
    out += chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, (0, 4, 2, 6)[c - 1], 0, 0, 0))
    if icc:
        out += chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc, 9))
    if exif:
        out += chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        out += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    return out + chunk(b"IDAT", zlib.compress(rows.tobytes(), 7)) + chunk(b"IEND", b"")


def encode_tiff(x: np.ndarray, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """uint8 or uint16 [h, w, 1..4] as TIFF with deflate, horizontal differences and all metadata.

    Pillow cannot write 16-bit colour, or EXIF in compressed files; tifffile cannot write EXIF.
    """
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    h, w, c = x.shape
    step = max(1, STRIP // (w * c * x.itemsize))
    strips = []
    for top in range(0, h, step):
        part = x[top : top + step]
        differences = part.copy()
        differences[:, 1:] -= part[:, :-1]
        strips.append(zlib.compress(differences.astype(x.dtype.newbyteorder("<")).tobytes(), 7))
    ends = np.cumsum([0, *map(len, strips)])
    tags = ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    about = Image.Exif()
    about.load(exif or b"")
    for tag in DESCRIPTIVE_TAGS & set(about):
        tags[tag] = about[tag]
    for block in (EXIF_IFD, GPS_IFD):
        if values := about.get_ifd(block):
            tags[block] = dict(values)
    tags[256], tags[257], tags[258], tags[259] = w, h, (8 * x.itemsize,) * c, 8
    tags[262], tags[277], tags[278] = (1 if c < 3 else 2), c, step
    tags[273], tags[279] = tuple(map(int, ends[:-1])), tuple(map(len, strips))
    tags[274], tags[284], tags[317] = about.get(274, 1), 1, 2
    if c in (2, 4):
        tags[338] = 2  # alpha, not premultiplied
    for tag, value in ((34675, icc), (700, xmp)):
        if value:
            tags.tagtype[tag] = 7 if tag == 34675 else 1
            tags[tag] = value
    return b"II*\0\x08\0\0\0" + tags.tobytes(8) + b"".join(strips)
