"""What a picture file says beside its samples: ICC profile, EXIF, XMP, and how it is turned."""

import dataclasses
import re

import numpy as np

from aejax.data import deep

ORIENTATION = 0x0112
TAGGED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
JPEG_LIMITS = {"exif": 65533, "xmp": 65504}  # bytes that one segment holds


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a file says beside its samples.

    Attributes:
      mode: Pillow's name of how it was stored; "" where Pillow has none.
      exif: begins with "Exif\\0\\0".
      notes: what a user should know of how it was read, such as "the first of 3 pages".
    """

    mode: str = ""
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    has_alpha: bool = False
    notes: tuple[str, ...] = ()


def orientation_of(im) -> int:
    """1 to 8, how Pillow's image must still be turned; asking may load it."""
    if im.format == "TIFF":  # Pillow turns these itself
        return 1
    if im.format == "PNG" and not TAGGED & set(im.info):
        return 1  # asking would decode the picture, in search of tags after it
    try:
        value = im.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make a picture unreadable
        return 1
    return value if value in range(1, 9) else 1


def prefixed(exif: bytes | None) -> bytes | None:
    """With the six bytes in front that some formats leave out and JPEG needs."""
    return exif if not exif or exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif


def exif_upright(im) -> bytes | None:
    """The EXIF of a picture that is being turned; None if it is damaged."""
    try:
        about = im.getexif()
        if ORIENTATION in about:
            about[ORIENTATION] = 1
        return about.tobytes() if len(about) else None
    except Exception:
        return None


def exif_of_tiff(about) -> bytes | None:
    """A TIFF's tags without those about its own layout; None if they are damaged."""
    from PIL import Image

    try:
        kept = Image.Exif()
        kept.update({tag: about[tag] for tag in deep.DESCRIBES & set(about)})
        for block in (deep.EXIF_IFD, deep.GPS_IFD):
            if values := about.get_ifd(block):
                kept.get_ifd(block).update(values)
                kept[block] = dict(values)
        return kept.tobytes() if len(kept) else None
    except Exception:
        return None


def xmp_upright(xmp: bytes | str | None, orientation: int) -> bytes | None:
    """XMP of a picture that is being turned."""
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    if not isinstance(xmp, bytes) or orientation == 1:
        return xmp or None
    return re.sub(rb'(tiff:Orientation(="|>))\d', rb"\g<1>1", xmp)


def upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientations 1 to 8: where row 0 and column 0 of the stored array belong."""
    if orientation >= 5:
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return np.ascontiguousarray(x)


def held(meta: Meta, suffix: str, channels: int) -> tuple[dict[str, bytes | None], list[str]]:
    """The metadata that a format holds, and what is lost."""
    kept = {"icc": meta.icc, "exif": prefixed(meta.exif), "xmp": meta.xmp}
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
