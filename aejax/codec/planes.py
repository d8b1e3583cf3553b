"""Checks the images given to `encode` and splits them into colour and alpha planes."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from aejax.codec import container
from aejax.codec.errors import CodecError


@dataclasses.dataclass(frozen=True)
class Planes:
    """An image as the lossy codec takes it.

    Attributes:
      rgb: uint8 or uint16 [h, w, 3]; gray images have three equal channels.
      alpha: [h, w] of the same dtype, or None.
      flags: of the header, see container.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    flags: int


def picture_of(image: ArrayLike) -> tuple[np.ndarray, dict[str, bytes | None]]:
    """The array of a Pillow image, rotated as its EXIF says, and its metadata.

    Raises:
      CodecError: the image has floating point or 32-bit samples.
    """
    from aejax.data import images

    try:
        x, meta = images.picture_of(image)
    except images.Unsupported as e:
        raise CodecError(f"the image {e}") from e
    return x, {"icc_profile": meta.icc, "exif": meta.exif, "xmp": meta.xmp}


def checked(image: ArrayLike) -> np.ndarray:
    """The image as uint8 or uint16 [h, w, 1 to 4], in native byte order.

    Raises:
      CodecError: another dtype or shape.
    """
    image = np.asarray(image)
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        hint = "; convert [0, 1] by np.round(255 * x).astype(np.uint8)"
        hint *= image.dtype.kind == "f"
        raise CodecError(f"images are uint8 or uint16 arrays, not {image.dtype}{hint}")
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or 0 in image.shape:
        hint = "; move the channels to the end" * (image.ndim == 3 and image.shape[0] in (1, 3))
        raise CodecError(f"images are [h, w] or [h, w, 1 to 4], not {list(image.shape)}{hint}")
    return image


def flags_of(image: np.ndarray) -> int:
    """The header flags of an image, uint8 or uint16 [h, w, 1 to 4]."""
    c = image.shape[2]
    flags = container.DEEP if image.dtype == np.uint16 else 0
    return flags | (container.GRAY if c < 3 else 0) | (container.ALPHA if c in (2, 4) else 0)


def planes_of(image: ArrayLike) -> Planes:
    """The planes of an array; errors as of `checked`."""
    image = checked(image)
    c = image.shape[2]
    rgb = image[..., :3] if c >= 3 else np.broadcast_to(image[..., :1], (*image.shape[:2], 3))
    return Planes(rgb, image[..., -1] if c in (2, 4) else None, flags_of(image))
