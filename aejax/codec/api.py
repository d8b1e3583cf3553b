"""The codec: arrays <-> .aej bytes.

    >>> data = aejax.codec.encode(photo, quality=50)
    >>> aejax.codec.decode(data).shape
    (64, 96, 3)

Arrays are uint8 or uint16, [h, w], [h, w, 1] (gray), [h, w, 2] (gray, alpha), [h, w, 3] (RGB) or
[h, w, 4] (RGB, alpha), of any size from 1x1. What is decoded has the dtype and the channels of what
was encoded; alpha is exact. Large images are coded in tiles of 1536 pixels, without seams.
`encode(array, lossless=True)` keeps every sample; `decode` reads both kinds of files.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aejax.codec import reading
from aejax.codec.decoded import CutFile, Decoded
from aejax.codec.errors import CodecError
from aejax.codec.installed import runtime_for, use
from aejax.codec.layout import MAX_PIXELS, NO_LIMIT, parse
from aejax.codec.lossless import reading as lossless_reading
from aejax.codec.lossless.layout import is_lossless
from aejax.codec.lossless.layout import parse as parse_lossless
from aejax.codec.lossless.writing import lossless_file
from aejax.codec.planes import checked, picture_of, planes_of
from aejax.codec.target import TargetMissed, nearest
from aejax.codec.writing import lossy_file
from aejax.files import JsonObject

__all__ = ["CodecError", "CutFile", "Decoded", "TargetMissed", "encode", "decode", "read", "info",
           "use", "verify"]  # fmt: skip


def encode(
    image: ArrayLike,
    quality: float | None = None,
    *,
    bpp: float | None = None,
    size: int | None = None,
    psnr: float | None = None,
    ssim: float | None = None,
    effort: int = 0,
    metric: str = "mse",
    lossless: bool = False,
    metadata: Mapping[str, bytes | None] | None = None,
    runtime: Any = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """An image as the bytes of an .aej file.

    Args:
      image: uint8 or uint16 array, see the module, or a Pillow image of any mode, which is encoded
        as it is meant to be seen: palette and CMYK as colour, turned as its EXIF says.
      quality: 0 to 100, the default 50. At most one of quality, bpp, size, psnr and ssim is given.
      bpp: bits per pixel of the whole file; size: bytes of it; psnr: dB of what is decoded, on the
        8-bit scale; ssim: structural similarity of what is decoded, below 1. Hit within 2 % (psnr
        and -10 log10(1 - ssim): 0.1 dB) in at most 5 encodes where the range of qualities allows
        it, else as near as can be with the warning `TargetMissed`.
      effort: 0 to 9: gradient steps on this image's latents, which cost time and save bits; the
        decoder does not notice. Used for images of one tile.
      metric: "mse" or "ms-ssim": the model.
      lossless: every sample is kept; takes no quality, target or effort.
      metadata: "icc_profile", "exif", "xmp" -> bytes to carry; by default what a Pillow image has.
      runtime: of weights of one's own: of `use`, or, for lossless files, of
        `lossless.installed.use`.
      progress: called with the share of the work that is done.

    Raises:
      CodecError: an image, an option or a target that is not possible.

    >>> data = aejax.codec.encode(photo, quality=30)
    >>> len(data) < photo.size // 8
    True
    """
    if hasattr(image, "getexif"):  # Pillow's
        image, own = picture_of(image)
        metadata = own if metadata is None else metadata
    carried = {k: v for k, v in (metadata or {}).items() if v}
    targets = {"quality": quality, "bpp": bpp, "size": size, "psnr": psnr, "ssim": ssim}
    given = {name: v for name, v in targets.items() if v is not None}
    if lossless:
        if given or effort:
            raise CodecError(f"lossless takes no {', '.join(given) or 'effort'}")
        return lossless_file(checked(image), carried, runtime, progress)
    planes = planes_of(image)
    runtime = runtime or runtime_for(metric)
    name, value = _target(given)
    if not (isinstance(effort, int) and 0 <= effort <= 9):
        raise CodecError(f"effort is 0 to 9, not {effort}")
    if name == "quality" and value > 100:
        raise CodecError(f"quality is 0 to 100, not {value}")

    def at(byte: int) -> bytes:
        return lossy_file(planes, byte, carried, runtime, effort, progress)

    if name == "quality":
        return at(int(math.floor(value * 2.55 + 0.5)))
    return nearest(at, planes, name, value)


def _target(given: dict[str, float]) -> tuple[str, float]:
    """The one target that is given, by default quality 50.

    Raises:
      CodecError: several are given, or it is not possible.
    """
    if len(given) > 1:
        raise CodecError(f"give one of {', '.join(given)}, not {len(given)}")
    name, value = next(iter(given.items()), ("quality", 50.0))
    if name == "ssim" and not 0 < value < 1:
        raise CodecError(f"ssim is above 0 and below 1, not {value}")
    if not (math.isfinite(value) and (value > 0 or name == "quality" and value == 0)):
        raise CodecError(f"{name} = {value} is not possible")
    return name, value


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, strict: bool = False) -> np.ndarray:
    """The image of an .aej file: uint8 or uint16, [h, w] or [h, w, 2 to 4].

    A file that was cut gives a coarser one and the warning `CutFile`.

    Args:
      max_pixels: refuse larger images; a strip of more than 1536 pixels counts as 64 wide.
      strict: refuse files that were cut.

    Raises:
      CodecError: the file is damaged, and how.

    >>> aejax.codec.decode(aejax.codec.encode(photo, lossless=True)).shape
    (64, 96, 3)
    """
    decoded = read(data, max_pixels=max_pixels)
    if not decoded.complete:
        if strict:
            raise CodecError("the file was cut; strict=False decodes what is there")
        warnings.warn(
            f"the file was cut: the image is a coarser one ({decoded.scans} of {decoded.of_scans} "
            "scans)",
            CutFile,
            stacklevel=2,
        )
    return decoded.image


def read(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Everything an .aej file holds.

    Raises:
      CodecError: the file is damaged, and how.
    """
    if is_lossless(data):
        return lossless_reading.read(data, max_pixels)
    return reading.read(data, max_pixels)


def verify(data: bytes) -> None:
    """Checks every checksum of a file without decoding it.

    Raises:
      CodecError: the file is damaged or was cut, and how.
    """
    if is_lossless(data):
        complete = parse_lossless(data, NO_LIMIT).complete
    else:
        complete = parse(data, reading.scans_of, NO_LIMIT).complete
    if not complete:
        raise CodecError("the file was cut")


def info(data: bytes) -> JsonObject:
    """What an .aej file says of itself, without decoding it: its format and image, "bytes", "bpp",
    and of each part the bytes ("parts", "metadata").

    Raises:
      CodecError: not an .aej file, or damaged.
    """
    return lossless_reading.info(data) if is_lossless(data) else reading.info(data)
