"""Conversion of Pillow images of any mode to arrays [h, w, c], uint8 or uint16."""

import io

import numpy as np

from aejax.data.deep import Unsupported


def from_pillow(im) -> tuple[np.ndarray, list[str]]:
    """A Pillow image as uint8 or uint16 [h, w, 1..4] as stored (EXIF orientation not applied), and
    notes for the user.

    Raises:
      Unsupported: floating point, or whole numbers that are not 0 to 65535.
    """
    notes: list[str] = []
    if im.mode.startswith("I;16"):
        x = np.asarray(im).astype(np.uint16)[..., None]
        return with_colour_key(x, im.info.get("transparency")), notes
    if im.mode == "I":
        x = np.asarray(im)[..., None]
        if x.size and (x.min() < 0 or x.max() > 65535):
            raise Unsupported("has 32-bit samples; 8 and 16 bits are read")
        return x.astype(np.uint16), notes
    if im.mode == "F":
        raise Unsupported(
            "has floating-point samples; 8 and 16 bits are read: scale it to whole numbers first"
        )
    if im.mode in ("CMYK", "LAB"):
        x, note = to_srgb(im, im.info.get("icc_profile"))
        return x, [note] if note else []
    if im.mode == "1":
        im = im.convert("L")
    if im.mode == "PA" or (im.mode == "P" and "transparency" in im.info):
        im = im.convert("RGBA")
    elif im.mode == "La":
        im = im.convert("LA")
    elif "transparency" in im.info and im.mode in ("L", "RGB"):
        im = im.convert(im.mode + "A" if im.mode == "RGB" else "LA")
    elif im.mode not in ("L", "LA", "RGB", "RGBA"):
        im = im.convert("RGBA" if im.mode == "RGBa" else "RGB")
    x = np.asarray(im)
    return (x[..., None] if x.ndim == 2 else x), notes


def with_colour_key(x: np.ndarray, key: int | tuple[int, ...] | None) -> np.ndarray:
    """uint16 [h, w, c] with an alpha channel for the transparent colour of a PNG, if it has one."""
    if key is None or x.shape[2] in (2, 4):
        return x
    is_clear = (x == np.array(key, np.uint16)).all(2, keepdims=True)
    return np.concatenate([x, np.where(is_clear, 0, 65535).astype(np.uint16)], 2)


def to_srgb(im, icc: bytes | None) -> tuple[np.ndarray, str]:
    """A CMYK or Lab image as sRGB uint8 [h, w, 3], and a note if its profile could not be used
    (then Pillow's formula converts it).

    Args:
      icc: profile of a CMYK image.

    Raises:
      Unsupported: a Lab image that cannot be converted.
    """
    from PIL import ImageCms

    try:
        if im.mode == "LAB":
            profile = ImageCms.createProfile("LAB")
        else:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        converted = ImageCms.profileToProfile(
            im, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        return np.asarray(converted), ""
    except (ImageCms.PyCMSError, OSError) as e:
        if im.mode == "LAB":
            raise Unsupported(f"is a Lab picture that cannot be converted ({e})") from e
        which = "with a profile that cannot be used" if icc else "without a profile"
        return np.asarray(im.convert("RGB")), f"CMYK {which} is converted by a plain formula"
