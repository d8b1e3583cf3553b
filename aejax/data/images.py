"""Reads and writes image files; no other module does.

Arrays are uint8 or uint16 [h, w, c]: c = 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha.

- 16 bits per sample (PNG, TIFF, PPM, gray JPEG 2000) stay 16 bits; 9 to 15 are scaled to 16.
  AVIF and JPEG 2000 colour of more than 8 bits is read as 8 bits, with an entry in `Meta.notes`.
- Floating-point, signed and 32-bit samples are refused: the file does not tell which value is
  white.
- CMYK is converted to sRGB by the profile in the file (relative colorimetric, with black point
  compensation), without a profile by Pillow's formula; Lab is converted to sRGB. Other colours are
  left as they are and keep their ICC profile.
- The EXIF orientation is applied and then removed from the metadata.
- Of several frames or pages the first is read; `Meta.notes` has their number.
- ICC profile, EXIF and XMP are written to every format that can store them.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aejax import files
from aejax.data import deep, modes, tags
from aejax.data.deep import Unsupported, to_uint8
from aejax.data.modes import from_pillow
from aejax.data.tags import Meta
from aejax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp")  # read and written
READ = (*SUFFIXES, ".ppm", ".pgm", ".gif", ".jp2")  # read only: the last four
DEEP = (".png", ".tif", ".tiff")  # can store 16 bits per sample
OPAQUE = (".jpg", ".jpeg", ".bmp")  # cannot store alpha
# Formats that Pillow may try, whatever the suffix: no PostScript, for example.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000")
_GRAY = ("1", "L", "LA", "La", "I")


class BadImage(UserError):
    """An image file that cannot be used. `reason` is the message without the name of the file."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self):  # to be raised in worker processes
        return BadImage, (self.name, self.reason)


# --- reading --------------------------------------------------------------------------------------


def read_image(
    source: str | os.PathLike | bytes,
    keep_depth: bool = False,
    name: str | None = None,
    at_least: int = 0,
) -> tuple[np.ndarray, Meta]:
    """Reads an image file and applies its EXIF orientation.

    Args:
      source: path of a file, or its content.
      keep_depth: return uint16 for files with more than 8 bits per sample, instead of rounding to
        uint8.
      name: of the image in errors; default: the path.
      at_least: decode a JPEG at a half, a quarter or an eighth of its size (which is faster) if
        both sides keep at least this many pixels; 0 = never. Ignored if a side is not a multiple of
        8, because padding of the last blocks would stretch the image.

    Returns:
      (uint8 or uint16 [h, w, c], with an alpha channel if the file has one; metadata).

    Raises:
      BadImage: not an image, damaged, or of an unsupported kind (see the docstring of the module).
      UserError: no such file.

    >>> x, meta = read_image("photo.png")
    >>> x.shape, x.dtype, meta.has_alpha
    ((64, 96, 3), dtype('uint8'), False)
    """
    with _opened(source, name) as file:
        page = deep.tiff_page(file)
        by_tifffile = page is not None and (not page.plain or not _pillow_knows(file))
        picture = _read_tiff(file, page) if page and by_tifffile else None
        x, meta = picture or _read_pillow(file, page, at_least)
    if x.dtype == np.uint16 and not keep_depth:
        x = to_uint8(x)
    return x, dataclasses.replace(meta, has_alpha=x.shape[2] in (2, 4))


def header(source: str | os.PathLike | bytes, name: str | None = None) -> tuple[int, int, int]:
    """(h, w, c) of the upright image without alpha, from the header of the file.

    Raises:
      BadImage, UserError: as `read_image`, as far as the header tells.

    >>> header("photo.png")
    (64, 96, 3)
    """
    with _opened(source, name) as file:
        page = deep.tiff_page(file)
        if page and not _pillow_knows(file):
            h, w = page.shape if page.orientation < 5 else page.shape[::-1]
            return h, w, 1 if page.photometric in (0, 1) else 3
        with _pillow(file) as im:
            w, h = im.size
            gray = im.mode in _GRAY or im.mode.startswith("I;16")
            gray |= deep.raw_mode(im).startswith("LA;")
            if tags.orientation_of(im) >= 5:
                h, w = w, h
            return h, w, 1 if gray else 3


@contextlib.contextmanager
def _opened(source: str | os.PathLike | bytes, name: str | None) -> Generator[BinaryIO]:
    """Opens a file, and raises all errors inside the context as BadImage or UserError."""
    from PIL import Image, UnidentifiedImageError

    if name is None:
        name = "image" if isinstance(source, bytes) else str(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            if not file.read(1):
                raise BadImage(name, "empty")
            yield file
    except UserError:
        raise
    except FileNotFoundError as e:
        raise UserError(f"no such file: {name}") from e
    except Unsupported as e:
        raise BadImage(name, str(e)) from e
    except UnidentifiedImageError as e:
        raise BadImage(name, "not an image of a known kind") from e
    except Image.DecompressionBombError as e:
        raise BadImage(name, "has more pixels than Pillow allows") from e
    except Exception as e:
        if isinstance(e, OSError) and e.strerror:  # of the system: a folder, no permission, ...
            raise BadImage(name, e.strerror.lower()) from e
        # Decoders raise nearly anything on damaged input (struct.error, SyntaxError, ...).
        what = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise BadImage(name, f"damaged ({what})") from e


def _pillow(file: BinaryIO):
    from PIL import Image

    Image.init()  # registers all formats, once
    file.seek(0)
    return Image.open(file, "r", [f for f in _FORMATS if f in Image.OPEN])


def _pillow_knows(file: BinaryIO) -> bool:
    """Whether Pillow recognises the format of a file."""
    from PIL import UnidentifiedImageError

    file.seek(0)
    if file.read(4) == b"MM\0+":  # big-endian BigTIFF, which Pillow misreads
        return False
    try:
        with _pillow(file):
            return True
    except UnidentifiedImageError:
        return False


def _read_tiff(file: BinaryIO, page: deep.Page) -> tuple[np.ndarray, Meta] | None:
    """Reads a page that Pillow cannot read correctly; None if tifffile lacks its compression but
    Pillow has it."""
    from PIL import Image

    x = deep.tiff_samples(file, page)
    if x is None:
        if page.planar or not _pillow_knows(file):
            raise Unsupported(
                "is a TIFF whose compression needs the package imagecodecs: pip install imagecodecs"
            )
        return None
    about = deep.tiff_tags(file)
    icc, exif = about.get(34675), tags.exif_of_tiff(about)
    notes = _page_notes(page)
    mode = ""
    if page.photometric == 5:
        cmyk = np.ascontiguousarray(to_uint8(x) if x.dtype == np.uint16 else x)
        x, note = modes.to_srgb(Image.frombytes("CMYK", cmyk.shape[1::-1], cmyk.tobytes()), icc)
        notes += [note] if note else []
        notes += ["16-bit CMYK is read as 8 bits"] if page.bits > 8 else []
        mode, icc = "CMYK", None
    elif page.samples > x.shape[2]:
        notes += ["a channel that is not said to be alpha is left out"]
    meta = Meta(mode, icc, exif, tags.xmp_upright(about.get(700), page.orientation))
    return tags.upright(x, page.orientation), dataclasses.replace(meta, notes=tuple(notes))


def _page_notes(page: deep.Page) -> list[str]:
    return [f"the first of {page.count} pages"] if page.count > 1 else []


def _read_pillow(
    file: BinaryIO, page: deep.Page | None, at_least: int = 0
) -> tuple[np.ndarray, Meta]:
    with _pillow(file) as im:
        if at_least and im.format in ("JPEG", "MPO") and not (im.width % 8 or im.height % 8):
            im.draft(None, (at_least, at_least))
        mode, info, notes = im.mode, im.info, []
        raw = deep.raw_mode(im)
        x = deep.read_ppm(im, file)
        if x is None and ";16" in raw and not mode.startswith("I") and mode != "CMYK":
            with _pillow(file) as same:
                x = deep.read_16_bits(im, same)
            x = modes.with_colour_key(x, info.get("transparency"))
        elif x is None:
            x, notes = from_pillow(im)
            if page and page.bits == 12:
                x = deep.scale_to_16_bits(x, 4095)
            if page and page.photometric == 0 and x.dtype == np.uint16:
                x = 65535 - x  # Pillow inverts 8-bit images only
        orientation = tags.orientation_of(im)  # only now, as it may load the image
        icc = info.get("icc_profile") if mode not in ("CMYK", "LAB") else None
        exif, xmp = info.get("exif"), info.get("xmp")
        turned = page.orientation if page else orientation
        if page:  # Pillow has applied the orientation
            exif = tags.exif_of_tiff(im.getexif())
        elif orientation != 1 or "Raw profile type exif" in info:
            exif = tags.exif_upright(im)
        exif = tags.with_exif_prefix(exif)
        several = _page_notes(page) if page else _frame_notes(im)
        notes = (*several, *notes, *_depth_notes(im, file))
        meta = Meta(mode, icc, exif, tags.xmp_upright(xmp, turned), notes=notes)
    return tags.upright(x, orientation), meta


def picture_of(im) -> tuple[np.ndarray, Meta]:
    """A Pillow image of any mode as an array, with its EXIF orientation applied.

    Returns:
      (uint8 or uint16 [h, w, c], metadata).

    Raises:
      Unsupported: floating point, or whole numbers that are not 0 to 65535.
    """
    x, notes = from_pillow(im)
    orientation = tags.orientation_of(im)
    icc = im.info.get("icc_profile") if im.mode not in ("CMYK", "LAB") else None
    exif = im.info.get("exif") if orientation == 1 else tags.exif_upright(im)
    xmp = tags.xmp_upright(im.info.get("xmp"), orientation)
    x = tags.upright(x, orientation)
    return x, Meta(
        im.mode, icc, tags.with_exif_prefix(exif), xmp, x.shape[2] in (2, 4), tuple(notes)
    )


def _frame_notes(im) -> list[str]:
    try:
        count = getattr(im, "n_frames", 1)
    except Exception:  # damaged after the first frame
        return []
    return [f"the first of {count} {'pictures' if im.format == 'MPO' else 'frames'}"] * (count > 1)


def _depth_notes(im, file: BinaryIO) -> list[str]:
    """A note if the samples have more than 8 bits, of which Pillow reads 8."""
    if im.format not in ("AVIF", "JPEG2000") or im.mode.startswith("I"):
        return []
    file.seek(0)
    start, bits = file.read(1 << 14), 8
    if im.format == "AVIF" and (at := start.find(b"av1C")) >= 0 and len(start) > at + 6:
        bits = 12 if start[at + 6] & 0x20 else 10 if start[at + 6] & 0x40 else 8
    elif (at := start.find(b"\xff\x4f\xff\x51")) >= 0 and len(start) > at + 42:
        bits = (start[at + 42] & 0x7F) + 1  # Ssiz of the first component
    return [f"{bits} bits per sample are read as 8"] if bits > 8 else []


# --- writing --------------------------------------------------------------------------------------


def check_container(path: str | os.PathLike, channels: int) -> None:
    """Checks that the format of a file name can store an image of so many channels.

    Raises:
      UserError: an unknown suffix, or alpha in a format without it.
    """
    suffix, name = Path(path).suffix.lower(), Path(path).name
    if suffix not in SUFFIXES:
        raise UserError(f'"{name}": unknown suffix; one of {" ".join(SUFFIXES)}')
    if channels in (2, 4) and suffix in OPAQUE:
        raise UserError(f'"{name}" cannot hold transparency; write .png, .webp or .avif')


def write_image(
    path: str | os.PathLike, x: np.ndarray, meta: Meta | None = None, quality: int = 95
) -> list[str]:
    """Writes an image file, in the format of its suffix. The file appears when it is complete.

    Args:
      x: uint8 or uint16 [h, w, 1..4] or [h, w]; uint16 is rounded to uint8 if the format has 8
        bits.
      meta: ICC profile, EXIF and XMP to store.
      quality: 1 to 100, for JPEG, WebP and AVIF.

    Returns:
      messages for the user about what the format cannot store.

    Raises:
      UserError: an unknown suffix; alpha in JPEG or BMP; a missing folder; a full disk.

    >>> write_image("copy.jpg", photo)
    []
    """
    path, meta = Path(path), meta or Meta()
    x = np.asarray(x)[..., None] if np.ndim(x) == 2 else np.asarray(x)
    suffix = path.suffix.lower()
    if x.dtype not in (np.uint8, np.uint16) or x.ndim != 3 or not 1 <= x.shape[2] <= 4:
        raise ValueError(f"uint8 or uint16 [h, w, 1..4], not {x.dtype} {x.shape}")
    check_container(path, x.shape[2])
    notes = []
    if x.dtype == np.uint16 and suffix not in DEEP:
        x = to_uint8(x)
        notes.append(f"16 bits per sample are reduced to the 8 that {suffix} holds")
    kept, lost = tags.storable(meta, suffix, x.shape[2])
    try:
        with files.replacing(path) as part:
            if suffix in (".tif", ".tiff"):
                part.write_bytes(deep.encode_tiff(x, **kept))
            elif x.dtype == np.uint16:
                part.write_bytes(deep.encode_png(x, **kept))
            else:
                _write_pillow(part, x, suffix, quality, **kept)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e
    except Exception as e:  # limits of an encoder, such as 16,383 pixels of WebP
        raise UserError(f"cannot write {path}: {e or type(e).__name__}") from e
    return notes + lost


def _write_pillow(path: Path, x, suffix: str, quality: int, icc, exif, xmp) -> None:
    from PIL import Image, PngImagePlugin

    options = {k: v for k, v in (("icc_profile", icc), ("exif", exif), ("xmp", xmp)) if v}
    if suffix == ".png" and options.pop("xmp", None):
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    if suffix in (".jpg", ".jpeg"):
        options |= {"quality": quality, "subsampling": 0}
    elif suffix in (".webp", ".avif"):
        options |= {"quality": quality}
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG"}
    Image.fromarray(x[..., 0] if x.shape[2] == 1 else x).save(
        path, kinds.get(suffix, suffix[1:].upper()), **options
    )
