"""Pictures that Pillow does not hold: 16-bit colour in PNG and PPM, and the TIFF files of science.

Pillow has no mode for more than 8 bits of colour. TIFF is read by tifffile; where a compression
needs the package imagecodecs, which is optional, Pillow decodes twice (`twice`).
"""

import struct
import sys
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a TIFF or BigTIFF file begins
EXIF_IFD, GPS_IFD = 34665, 34853
# TIFF tags about a picture rather than its layout: title, camera, software, artist, rating, ...
DESCRIBES = {269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432}
DESCRIBES |= set(range(40091, 40096))
STRIP = 1 << 20  # bytes of samples per strip of a TIFF


class Unsupported(Exception):
    """A picture of a kind that is not read; the text says which, after its name."""


def to_uint8(x: np.ndarray) -> np.ndarray:
    """uint16 -> uint8 with rounding: 65535 = 257 * 255, so no value lies between two."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)


def scaled(x: np.ndarray, top: int) -> np.ndarray:
    """uint16 samples of which `top` is white, to white at 65535, with rounding."""
    if top == 65535:
        return x.astype(np.uint16)
    return ((x.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


# --- reading --------------------------------------------------------------------------------------


def raw_mode(im) -> str:
    """How Pillow will read the samples, e.g. "RGB;16B"; "" if the plugin does not say."""
    args = im.tile[0].args if getattr(im, "tile", None) else ""
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def twice(im, again) -> np.ndarray:
    """uint16 samples of 16-bit colour, of which Pillow keeps one byte: the high one if told the
    true byte order, the low one if told the other.

    Args:
      im: opened, not loaded; again: the same file, opened once more.
    """
    raw = raw_mode(im)
    if raw == "LA;16B":  # four bytes a pixel: what RGBA has
        im._mode = "RGBA"  # Pillow has no public way to say how the bytes are to be read
        im.tile = [t._replace(args="RGBA") for t in im.tile]
        x = np.asarray(im)
        return x[..., 0::2].astype(np.uint16) << 8 | x[..., 1::2]
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
    other = raw[:-1] + ("B" if little else "L")
    again.tile = [
        t._replace(args=other if isinstance(t.args, str) else (other, *t.args[1:]))
        for t in again.tile
    ]
    return np.asarray(im).astype(np.uint16) << 8 | np.asarray(again)


def ppm16(im, file: BinaryIO) -> np.ndarray | None:
    """The samples of a PPM or PGM with more than 8 bits, white at 65535; None of any other."""
    if im.format != "PPM" or im.mode not in ("I", "RGB"):
        return None
    tile = im.tile[0]
    top = tile.args[1] if isinstance(tile.args, tuple) else 65535 if im.mode == "I" else 255
    if top < 256:
        return None
    shape = (im.height, im.width, 1 if im.mode == "I" else 3)
    file.seek(tile.offset)
    if tile.codec_name == "ppm_plain":
        lines = [line.partition(b"#")[0] for line in file.read().splitlines()]
        x = np.array(b" ".join(lines).split()[: np.prod(shape)], np.uint32)
    else:
        x = np.frombuffer(file.read(2 * int(np.prod(shape))), ">u2")
    return scaled(np.minimum(x, top).reshape(shape), top)


class Page(NamedTuple):
    """The first page of a TIFF, as its tags tell it."""

    shape: tuple[int, int]  # as stored, before it is turned
    bits: int
    kind: str  # "u" whole numbers, "i" with sign, "f" floating point
    samples: int
    photometric: int
    planar: bool
    extra: int | None  # what the first extra sample is: 1 alpha in the colours, 2 alpha, 0 unknown
    orientation: int
    count: int  # of pages

    @property
    def plain(self) -> bool:
        """Whether Pillow reads it right: whole numbers of at most 8 bits, not in planes (with alpha
        it reads those wrongly), unless tifffile leaves them as they are (YCbCr, palettes, Lab)."""
        in_planes = self.planar and self.photometric in (0, 1, 2, 5)
        return self.bits <= 8 and self.kind == "u" and not in_planes


def tiff_page(file: BinaryIO) -> Page | None:
    """None of what is no TIFF, or one that tifffile cannot parse."""
    file.seek(0)
    if file.read(4) not in TIFF:
        return None
    import tifffile

    file.seek(0)
    try:
        with _quiet(), tifffile.TiffFile(file) as tif:
            page = tif.pages.first
            count = len(tif.pages)
            if tif.is_imagej and tif.imagej_metadata:  # many pictures under one tag
                count = max(count, int(tif.imagej_metadata.get("images", 1)))
            turn = page.tags.valueof(274, 1)
    except Exception:  # whatever a damaged file does to a parser; Pillow says what is wrong
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
        int(turn) if turn in range(1, 9) else 1,
        count,
    )


def tiff_samples(file: BinaryIO, page: Page) -> np.ndarray | None:
    """uint8 or uint16 [h, w, c] of a page as stored, not turned: gray or RGB with or without
    alpha, or CMYK; None if its compression needs imagecodecs.

    Raises:
      Unsupported: other samples than that.
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
    x = scaled(x, white) if page.bits > 8 else (x.astype(np.uint32) * 255 // white).astype(np.uint8)
    top = np.iinfo(x.dtype).max
    if page.photometric == 0:  # white is zero
        x = np.concatenate([top - x[..., :1], x[..., 1:]], 2)
    if page.samples > colours and (page.extra not in (1, 2) or colours == 4):
        x = x[..., :colours]
    elif page.samples > colours and page.extra == 1:  # colours multiplied by alpha
        alpha = np.maximum(x[..., -1:].astype(np.float64), 1)
        colour = np.minimum(np.rint(x[..., :-1] * (top / alpha)), top).astype(x.dtype)
        x = np.concatenate([colour, x[..., -1:]], 2)
    return x


def tiff_tags(file: BinaryIO):
    """All tags of a TIFF's first page, as Pillow's Exif; of a big-endian BigTIFF, which Pillow
    cannot parse, those without the EXIF block."""
    from PIL import Image

    file.seek(0)
    head = file.read(16)
    tags = Image.Exif()
    if head[:4] == b"MM\0+":
        import tifffile

        file.seek(0)
        with _quiet(), tifffile.TiffFile(file) as tif:
            kept = DESCRIBES - {282, 283} | {700, 34675}
            tags.update({t.code: t.value for t in tif.pages.first.tags if t.code in kept})
        return tags
    tags.endian = "<" if head[:2] == b"II" else ">"
    tags.bigtiff = b"+" in head[2:4]
    place = struct.unpack_from(f"{tags.endian}{'Q' if tags.bigtiff else 'L'}", head,
                               8 if tags.bigtiff else 4)  # fmt: skip
    tags.load_from_fp(file, place[0])
    return tags


def _quiet():
    """tifffile logs what it finds odd; it is said in the error or not at all."""
    import contextlib
    import logging

    @contextlib.contextmanager
    def quiet():
        log = logging.getLogger("tifffile")
        was, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = was

    return quiet()


# --- writing --------------------------------------------------------------------------------------


def png16(x: np.ndarray, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """uint16 [h, w, 1..4] as PNG, which Pillow writes of gray only. Each row takes the filter
    (none, sub, up, average, Paeth) of least absolute sum, as libpng does."""
    h, w, c = x.shape
    row = x.astype(">u2").tobytes()
    row = np.frombuffer(row, np.uint8).reshape(h, w, 2 * c).astype(np.int16)
    a, b, ab = np.zeros_like(row), np.zeros_like(row), np.zeros_like(row)
    a[:, 1:], b[1:], ab[1:, 1:] = row[:, :-1], row[:-1], row[:-1, :-1]
    pa, pb, pc = abs(b - ab), abs(a - ab), abs(a + b - 2 * ab)
    paeth = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, ab))
    forms = np.stack([row, row - a, row - b, row - (a + b) // 2, row - paeth]).astype(np.uint8)
    forms = forms.reshape(5, h, -1)
    best = abs(forms.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64).argmin(0)
    rows = np.concatenate([best[:, None].astype(np.uint8), forms[best, np.arange(h)]], axis=1)

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


def tiff(x: np.ndarray, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """uint8 or uint16 [h, w, 1..4] as TIFF: deflate, horizontal differences, and all metadata.
    Pillow writes no 16-bit colour, and no EXIF with compression; tifffile no EXIF."""
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    h, w, c = x.shape
    step = max(1, STRIP // (w * c * x.itemsize))
    strips = []
    for top in range(0, h, step):
        part = x[top : top + step]
        rest = part.copy()
        rest[:, 1:] -= part[:, :-1]
        strips.append(zlib.compress(rest.astype(x.dtype.newbyteorder("<")).tobytes(), 7))
    ends = np.cumsum([0, *map(len, strips)])
    tags = ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    about = Image.Exif()
    about.load(exif or b"")
    for tag in DESCRIBES & set(about):
        tags[tag] = about[tag]
    for block in (EXIF_IFD, GPS_IFD):
        if values := about.get_ifd(block):
            tags[block] = dict(values)
    tags[256], tags[257], tags[258], tags[259] = w, h, (8 * x.itemsize,) * c, 8
    tags[262], tags[277], tags[278] = (1 if c < 3 else 2), c, step
    tags[273], tags[279] = tuple(map(int, ends[:-1])), tuple(map(len, strips))
    tags[274], tags[284], tags[317] = about.get(274, 1), 1, 2
    if c in (2, 4):
        tags[338] = 2  # alpha, not multiplied into the colours
    for tag, value in ((34675, icc), (700, xmp)):
        if value:
            tags.tagtype[tag] = 7 if tag == 34675 else 1
            tags[tag] = value
    return b"II*\0\x08\0\0\0" + tags.tobytes(8) + b"".join(strips)
