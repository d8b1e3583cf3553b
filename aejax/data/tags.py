"""Metadata of image files: ICC profile, EXIF (with its orientation) and XMP."""

import dataclasses
import re

import numpy as np

from aejax.data import deep

ORIENTATION = 0x0112
EXIF_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
JPEG_LIMITS = {"exif": 65533, "xmp": 65504}  # bytes that fit into one segment of a JPEG


@dataclasses.dataclass(frozen=True)
class Meta:
    """The metadata of an image file.

    Attributes:
      mode: Pillow's mode of the stored image; "" if Pillow has none for it.
      icc, exif, xmp: as stored; EXIF begins with "Exif\\0\\0".
      has_alpha: whether the array has an alpha channel.
      notes: remarks for the user on how the file was read, such as "the first of 3 pages".
    """

    mode: str = ""
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    has_alpha: bool = False
    notes: tuple[str, ...] = ()


def orientation_of(im) -> int:
    """The EXIF orientation, 1 to 8, that must still be applied to a Pillow image. May load it."""
    if im.format == "TIFF":  # Pillow turns these itself
        return 1
    if im.format == "PNG" and not EXIF_KEYS & set(im.info):
        return 1  # getexif would decode the image to find tags behind it
    try:
        value = im.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make a picture unreadable
        return 1
    return value if value in range(1, 9) else 1


def with_exif_prefix(exif: bytes | None) -> bytes | None:
    """EXIF with the prefix "Exif\\0\\0", which some formats leave out and JPEG needs."""
    return exif if not exif or exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif


def exif_upright(im) -> bytes | None:
    """The EXIF of a Pillow image with orientation 1, for an image that was turned; None if
    damaged."""
    try:
        about = im.getexif()
        if ORIENTATION in about:
            about[ORIENTATION] = 1
        return about.tobytes() if len(about) else None
    except Exception:
        return None


def exif_of_tiff(about) -> bytes | None:
    """The descriptive tags of a TIFF as EXIF, without those of its layout; None if damaged."""
    from PIL import Image

    try:
        kept = Image.Exif()
        kept.update({tag: about[tag] for tag in deep.DESCRIPTIVE_TAGS & set(about)})
        for block in (deep.EXIF_IFD, deep.GPS_IFD):
            if values := about.get_ifd(block):
                kept.get_ifd(block).update(values)
                kept[block] = dict(values)
        return kept.tobytes() if len(kept) else None
    except Exception:
        return None


def xmp_upright(xmp: bytes | str | None, orientation: int) -> bytes | None:
    """XMP with orientation 1 if the image was turned (`orientation` is not 1)."""
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    if not isinstance(xmp, bytes) or orientation == 1:
        return xmp or None
    return re.sub(rb'(tiff:Orientation(="|>))\d', rb"\g<1>1", xmp)


def upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array [h, w, c] upright.

    Args:
      orientation: of EXIF, 1 to 8, as the file has it; 1 = upright already.

    >>> upright(np.zeros((2, 3, 1)), 6).shape
    (3, 2, 1)
    """
    if orientation >= 5:
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return np.ascontiguousarray(x)


def storable(meta: Meta, suffix: str, channels: int) -> tuple[dict[str, bytes | None], list[str]]:
    """The metadata that a format can store, and a sentence for each item that is lost."""
    kept = {"icc": meta.icc, "exif": with_exif_prefix(meta.exif), "xmp": meta.xmp}
    lost = []
    for name, value in kept.items():
        reason = f"{suffix} holds none" if suffix == ".bmp" else ""
        if suffix in (".jpg", ".jpeg") and len(value or b"") > JPEG_LIMITS.get(name, 1 << 24):
            reason = f"its {len(value or b''):,} bytes are more than {suffix} holds"
        if name == "icc" and channels < 3 and suffix in (".webp", ".avif"):
            if (value or b"")[16:20] == b"GRAY":
                reason = f"it is one for gray, and {suffix} stores RGB"
        if value and reason:
            kept[name] = None
            lost.append(f"the {dict(icc='ICC profile').get(name, name.upper())} is lost: {reason}")
    return kept, lost
