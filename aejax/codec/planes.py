"""What `encode` takes: arrays and Pillow images as the planes of a file."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from aejax.codec import container
from aejax.codec.errors import CodecError


@dataclasses.dataclass(frozen=True)
class Planes:
    """An image as the codec sees it: rgb [h, w, 3], alpha [h, w] or None, flags."""

    rgb: np.ndarray
    alpha: np.ndarray | None
    flags: int


def picture_of(image: ArrayLike) -> tuple[np.ndarray, dict[str, bytes | None]]:
    """The array of a Pillow image, upright, and its metadata.

    Raises:
      CodecError: floating point or 32 bits.
    """
    from aejax.data import images

    try:
        x, meta = images.picture_of(image)
    except images.Unsupported as e:
        raise CodecError(f"the image {e}") from e
    return x, {"icc_profile": meta.icc, "exif": meta.exif, "xmp": meta.xmp}


def checked(image: ArrayLike) -> np.ndarray:
    """uint8 or uint16 [h, w, 1 to 4].

    Raises:
      CodecError: it is something else.
    """
    image = np.asarray(image)
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        scale = ": from [0, 1], np.round(255 * x).astype(np.uint8)" * (image.dtype.kind == "f")
        raise CodecError(f"images are uint8 or uint16 arrays, not {image.dtype}{scale}")
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or 0 in image.shape:
        last = "; move the channels to the end" * (image.ndim == 3 and image.shape[0] in (1, 3))
        raise CodecError(f"images are [h, w] or [h, w, 1 to 4], not {list(image.shape)}{last}")
    return image


def flags_of(image: np.ndarray) -> int:
    """The flags of a file of uint8 or uint16 [h, w, 1 to 4]."""
    c = image.shape[2]
    flags = container.DEEP if image.dtype == np.uint16 else 0
    return flags | (container.GRAY if c < 3 else 0) | (container.ALPHA if c in (2, 4) else 0)


def planes_of(image: ArrayLike) -> Planes:
    """The planes of an array, see `checked`."""
    image = checked(image)
    c = image.shape[2]
    rgb = image[..., :3] if c >= 3 else np.broadcast_to(image[..., :1], (*image.shape[:2], 3))
    return Planes(rgb, image[..., -1] if c in (2, 4) else None, flags_of(image))
