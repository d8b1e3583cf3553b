"""Files <-> arrays: every kind of picture that a folder may hold, to 8 or 16 bits per sample.

Arrays are [h, w, c], c = 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha. Training takes uint8 without
alpha (`flatten`); the codec and the denoiser keep depth, alpha and the metadata of what they read.
"""

import dataclasses
import io
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from aejax import files
from aejax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp")  # read and written
READ = (*SUFFIXES, ".ppm", ".pgm", ".gif", ".jp2")  # those, and what is only read
# What Pillow may try, whatever the file is called: no PostScript, no fonts, no network formats.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000")
_ORIENTATION = 0x0112
_DESCRIBES = {270, 271, 272, 305, 306, 315, 33432}  # description, make, model, artist, ...
_TAGGED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
_GRAY = ("1", "L", "LA", "La", "I")


class BadImage(UserError):
    """A picture that cannot be used; `reason` without its name, for lists."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self):  # crosses from worker processes
        return BadImage, (self.name, self.reason)


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a file says beside its samples. `mode` is Pillow's name of how it was stored."""

    mode: str = ""
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    has_alpha: bool = False


def read_image(
    source: str | os.PathLike | bytes, keep_depth: bool = False, name: str | None = None
) -> tuple[np.ndarray, Meta]:
    """The picture in a file (or in the bytes of one), turned upright.

    Args:
      keep_depth: 16-bit files give uint16; otherwise they are rounded to uint8.
      name: what to call it in errors; by default the path.

    Returns:
      uint8 or uint16 [h, w, c] with alpha if it has any, and its metadata.

    Raises:
      BadImage: not a picture, damaged, or of a kind that is not read (floating-point TIFF).
      UserError: no such file.
    """
    with _opened(source, name) as (im, name):
        mode, x = im.mode, _samples(im, source, name)
        orientation = _orientation(im)  # only now: asking may load the picture
        icc = im.info.get("icc_profile") if mode not in ("CMYK", "LAB") else None
        exif, xmp = im.info.get("exif"), im.info.get("xmp")
        if orientation != 1 or im.format == "TIFF":
            exif = _exif_upright(im)
        if orientation != 1 and isinstance(xmp, bytes):
            xmp = re.sub(rb'(tiff:Orientation(="|>))\d', rb"\g<1>1", xmp)
    x = _upright(x, orientation)
    if x.dtype == np.uint16 and not keep_depth:
        x = to_uint8(x)
    return x, Meta(mode, icc, exif, xmp, x.shape[2] in (2, 4))


def header(source: str | os.PathLike | bytes, name: str | None = None) -> tuple[int, int, int]:
    """(h, w, c) of a picture once upright and without alpha, from its first bytes only.

    Raises:
      BadImage, UserError: as `read_image`, for what the header shows.
    """
    with _opened(source, name) as (im, name):
        w, h = im.size
        gray = im.mode in _GRAY or im.mode.startswith("I;16") or _raw_mode(im).startswith("LA;")
        if _orientation(im) >= 5:
            h, w = w, h
        return h, w, 1 if gray else 3


class _opened:
    """`with _opened(source, name) as (im, name)`: all that Pillow raises inside, as BadImage."""

    def __init__(self, source, name):
        self.source, self.name = source, str(source) if name is None else name
        if name is None and isinstance(source, bytes):
            self.name = "image"

    def __enter__(self):
        is_bytes = isinstance(self.source, bytes)
        try:
            if (len(self.source) if is_bytes else os.stat(self.source).st_size) == 0:
                raise BadImage(self.name, "empty")
            self.im = _open(self.source)
            return self.im, self.name
        except Exception as e:
            self._raise(e)

    def __exit__(self, kind, error, trace):
        self.im.close()
        if isinstance(error, Exception):
            self._raise(error)

    def _raise(self, e: Exception):
        from PIL import Image, UnidentifiedImageError

        if isinstance(e, UserError):
            raise e
        if isinstance(e, FileNotFoundError):
            raise UserError(f"no such file: {self.name}") from e
        if isinstance(e, (IsADirectoryError, PermissionError)):
            raise BadImage(self.name, e.strerror.lower()) from e
        if isinstance(e, UnidentifiedImageError):
            raise BadImage(self.name, "not an image of a known kind") from e
        if isinstance(e, Image.DecompressionBombError):
            raise BadImage(self.name, "has more pixels than Pillow allows") from e
        # Decoders raise nearly anything on damaged input (struct.error, SyntaxError, ...).
        what = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise BadImage(self.name, f"damaged ({what})") from e


def _open(source):
    from PIL import Image

    Image.init()  # registers all formats, once
    formats = [f for f in _FORMATS if f in Image.OPEN]
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, "r", formats)


def _orientation(im) -> int:
    if im.format == "TIFF":  # Pillow turns these itself
        return 1
    if im.format == "PNG" and not _TAGGED & set(im.info):
        return 1  # asking would decode the picture, in search of tags after it
    try:
        value = im.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make a picture unreadable
        return 1
    return value if value in range(1, 9) else 1


def _exif_upright(im) -> bytes | None:
    """The EXIF of a picture that is being turned; of a TIFF what is not about its own layout."""
    from PIL import Image

    tags = im.getexif()
    if im.format != "TIFF":
        if _ORIENTATION in tags:
            tags[_ORIENTATION] = 1
        return tags.tobytes() if len(tags) else None
    kept = Image.Exif()
    kept.update({tag: tags[tag] for tag in _DESCRIBES & set(tags)})
    for block in (34665, 34853):  # EXIF, GPS
        if values := tags.get_ifd(block):
            kept.get_ifd(block).update(values)
            kept[block] = dict(values)
    return kept.tobytes() if len(kept) else None


def _upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientations 1 to 8: where row 0 and column 0 of the stored array belong."""
    if orientation >= 5:
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return np.ascontiguousarray(x)


def _raw_mode(im) -> str:
    """How Pillow will read the samples, e.g. "RGB;16B"; "" if the plugin does not say."""
    args = im.tile[0].args if getattr(im, "tile", None) else ""
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def _samples(im, source, name: str) -> np.ndarray:
    if im.mode.startswith("I;16"):
        return np.asarray(im).astype(np.uint16)[..., None]
    if im.mode == "I":
        x = np.asarray(im)[..., None]
        if x.min() < 0 or x.max() > 65535:
            raise BadImage(name, "has 32-bit samples; 8 and 16 bits are read")
        return x.astype(np.uint16)
    if im.mode == "F":
        raise BadImage(name, "has floating-point samples; 8 and 16 bits are read")
    raw = _raw_mode(im)
    if im.format == "TIFF" and im.tag_v2.get(284) == 2 and 16 in im.tag_v2.get(258, ()):
        raise BadImage(name, "is a 16-bit TIFF in separate planes, which is not read")
    if ";16" in raw:
        return _deep(im, raw, source)
    if im.mode == "PA" or (im.mode == "P" and "transparency" in im.info):
        im = im.convert("RGBA")
    elif im.mode in ("1", "La"):
        im = im.convert("L" if im.mode == "1" else "LA")
    elif "transparency" in im.info and im.mode in ("L", "RGB"):
        im = im.convert(im.mode + "A" if im.mode == "RGB" else "LA")
    elif im.mode not in ("L", "LA", "RGB", "RGBA"):
        im = im.convert("RGBA" if im.mode == "RGBa" else "RGB")
    x = np.asarray(im)
    return x[..., None] if x.ndim == 2 else x


def _deep(im, raw: str, source) -> np.ndarray:
    """16-bit samples. Pillow has no such mode for colour and keeps one byte of the two: the high
    one if told the true byte order, the low one if told the other. So it decodes twice."""
    if raw == "LA;16B":  # four bytes a pixel: what RGBA has
        im._mode = "RGBA"
        im.tile = [t._replace(args="RGBA") for t in im.tile]
        x = np.asarray(im)
        return x[..., 0::2].astype(np.uint16) << 8 | x[..., 1::2]
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
    other = raw[:-1] + ("B" if little else "L")
    with _open(source) as low:
        low.tile = [
            t._replace(args=other if isinstance(t.args, str) else (other, *t.args[1:]))
            for t in low.tile
        ]
        return np.asarray(im).astype(np.uint16) << 8 | np.asarray(low)


def to_uint8(x: np.ndarray) -> np.ndarray:
    """uint16 -> uint8 with rounding: 65535 = 257 * 255, so no value lies between two."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)


def flatten(x: np.ndarray, channels: int = 0) -> np.ndarray:
    """uint8 [h, w, 1..4] -> [h, w, 1 or 3]: alpha laid over white, gray <-> RGB.

    Args:
      channels: 1 gray (luma of ITU-R 601), 3 RGB, 0 as stored.
    """
    if x.shape[2] in (2, 4):
        a = x[..., -1:].astype(np.uint32)
        x = ((x[..., :-1] * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)
    if channels == 3 and x.shape[2] == 1:
        x = np.repeat(x, 3, axis=2)
    elif channels == 1 and x.shape[2] == 3:
        luma = x.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
        x = ((luma + 32768) >> 16).astype(np.uint8)[..., None]
    return x


def resized_shape(h: int, w: int, size: int | tuple[int, int]) -> tuple[int, int]:
    """The (h, w) that `resize` gives."""
    if not isinstance(size, int):
        return tuple(size)
    scale = size / min(h, w)
    return max(size, round(h * scale)), max(size, round(w * scale))


def resize(x: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Lanczos. An int is the new short side; (h, w) is filled and what is over is cut evenly off.

    Args:
      x: uint8 [h, w, 1 or 3].
    """
    from PIL import Image

    h, w = x.shape[:2]
    to = resized_shape(h, w, size)
    if to == (h, w):
        return x
    scale = max(to[0] / h, to[1] / w)
    cut_h, cut_w = max(0, h - to[0] / scale) / 2, max(0, w - to[1] / scale) / 2
    im = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
    box = (cut_w, cut_h, w - cut_w, h - cut_h)
    y = np.asarray(im.resize(to[::-1], Image.Resampling.LANCZOS, box=box))
    return y[..., None] if y.ndim == 2 else y


def write_image(
    path: str | os.PathLike, x: np.ndarray, meta: Meta | None = None, quality: int = 95
) -> None:
    """Writes a picture in the format its suffix names; never leaves half a file under that name.

    Args:
      x: uint8 or uint16 [h, w, 1..4] or [h, w]; uint16 to PNG and TIFF only.
      meta: ICC profile, EXIF (not into 16-bit TIFF) and XMP to carry.
      quality: 1 to 100, for JPEG, WebP and AVIF.

    Raises:
      UserError: what the format cannot hold; a folder that is missing; a full disk.
    """
    path, meta = Path(path), meta or Meta()
    x = np.asarray(x)[..., None] if np.ndim(x) == 2 else np.asarray(x)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f'"{path.name}": unknown suffix; one of {" ".join(SUFFIXES)}')
    if x.dtype not in (np.uint8, np.uint16) or x.ndim != 3 or not 1 <= x.shape[2] <= 4:
        raise ValueError(f"uint8 or uint16 [h, w, 1..4], not {x.dtype} {x.shape}")
    if x.dtype == np.uint16 and suffix not in (".png", ".tif", ".tiff"):
        raise UserError(f'"{path.name}" cannot hold 16 bits per sample; write .png or .tiff')
    if x.shape[2] in (2, 4) and suffix in (".jpg", ".jpeg", ".bmp"):
        raise UserError(f'"{path.name}" cannot hold transparency; write .png, .webp or .avif')
    try:
        with files.replacing(path) as part:
            if x.dtype == np.uint8:
                _write_pillow(part, x, meta, suffix, quality)
            elif suffix == ".png":
                part.write_bytes(_png16(x, meta))
            else:
                _write_tiff16(part, x, meta)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e


def _write_pillow(path: Path, x: np.ndarray, meta: Meta, suffix: str, quality: int) -> None:
    from PIL import Image, PngImagePlugin

    options = {k: v for k, v in (("icc_profile", meta.icc), ("exif", meta.exif)) if v}
    if suffix == ".png" and meta.xmp:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", meta.xmp.decode("utf-8", "replace"))
    elif meta.xmp:
        options["xmp"] = meta.xmp
    if suffix in (".jpg", ".jpeg"):
        options |= {"quality": quality, "subsampling": 0}
    elif suffix in (".webp", ".avif"):
        options |= {"quality": quality}
    elif suffix in (".tif", ".tiff"):
        tags = Image.Exif()
        tags.load(meta.exif or b"")
        tags.update({700: meta.xmp} if meta.xmp else {})
        # libtiff, which compresses, cannot write the EXIF block
        options |= {"compression": "raw" if meta.exif else "tiff_lzw", "exif": tags}
    elif suffix == ".bmp":
        options = {}
    Image.fromarray(x[..., 0] if x.shape[2] == 1 else x).save(path, **options)


def _png16(x: np.ndarray, meta: Meta) -> bytes:
    """Pillow writes no 16-bit colour PNG. Each row takes the filter (none, sub, up, average,
    Paeth) of least absolute sum, as libpng does."""
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
    if meta.icc:
        out += chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(meta.icc, 9))
    if meta.exif:
        out += chunk(b"eXIf", meta.exif.removeprefix(b"Exif\0\0"))
    if meta.xmp:
        out += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + meta.xmp)
    return out + chunk(b"IDAT", zlib.compress(rows.tobytes(), 7)) + chunk(b"IEND", b"")


def _write_tiff16(path: Path, x: np.ndarray, meta: Meta) -> None:
    import tifffile  # comes with scikit-image

    if x.shape[2] == 2:  # readers refuse gray with alpha
        x = x[..., [0, 0, 0, 1]]
    tifffile.imwrite(
        path,
        x[..., 0] if x.shape[2] == 1 else x,
        photometric="minisblack" if x.shape[2] == 1 else "rgb",
        extrasamples=["unassalpha"] if x.shape[2] == 4 else None,
        compression="zlib",
        iccprofile=meta.icc,
        extratags=[(700, 1, len(meta.xmp), meta.xmp, True)] if meta.xmp else (),
        metadata=None,
    )
