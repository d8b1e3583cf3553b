"""The codec: arrays <-> .aej bytes.

    >>> data = aejax.codec.encode(photo, quality=50)
    >>> aejax.codec.decode(data).shape
    (64, 96, 3)

Arrays are uint8 or uint16, [h, w], [h, w, 1] (gray), [h, w, 2] (gray, alpha), [h, w, 3] (RGB) or
[h, w, 4] (RGB, alpha), of any size from 1x1. The decoded array has the same dtype and channels;
alpha is lossless. Large images are coded in tiles of 1536x1536 pixels, without visible seams.
`encode(array, lossless=True)` keeps every sample exactly; `decode` reads both kinds of files.
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
    """Encodes an image; returns the bytes of an .aej file.

    Args:
      image: uint8 or uint16 array, see the module, or a Pillow image of any mode. A Pillow image is
        encoded as displayed: palette and CMYK images as RGB, rotated as its EXIF says.
      quality: 0 to 100, by default 50. At most one of quality, bpp, size, psnr and ssim is given.
      bpp: target bits per pixel of the whole file.
      size: target bytes of the file.
      psnr: target PSNR of the decoded image in dB.
      ssim: target SSIM of the decoded image, between 0 and 1.
      effort: 0 to 9: how many steps optimise the symbols of this image (effort.py). It takes longer
        and saves bits; decoding does not change. No effect on images of more than one tile.
      metric: "mse" or "ms-ssim": what the model was trained for.
      lossless: keep every sample exactly; not with quality, targets or effort.
      metadata: "icc_profile", "exif", "xmp" -> bytes to store; by default those of a Pillow image.
      runtime: other weights, from `use` (lossless: from `lossless.installed.use`).
      progress: called with the fraction of the work done.

    A target is met within 2 % (psnr, and ssim as -10 log10(1 - ssim): within 0.1 dB) with at most 5
    encodings. If no quality reaches it, the nearest file is returned with the warning
    `TargetMissed`.

    Raises:
      CodecError: the image cannot be encoded, or an option is invalid.

    >>> data = aejax.codec.encode(photo, quality=30)
    >>> len(data) < photo.size // 8
    True
    """
    if hasattr(image, "getexif"):  # a Pillow image
        image, image_metadata = picture_of(image)
        metadata = image_metadata if metadata is None else metadata
    stored = {k: v for k, v in (metadata or {}).items() if v}
    targets = {"quality": quality, "bpp": bpp, "size": size, "psnr": psnr, "ssim": ssim}
    given = {name: v for name, v in targets.items() if v is not None}
    if lossless:
        if given or effort:
            raise CodecError(f"lossless takes no {', '.join(given) or 'effort'}")
        return lossless_file(checked(image), stored, runtime, progress)
    planes = planes_of(image)
    runtime = runtime or runtime_for(metric)
    name, value = _target(given)
    if not (isinstance(effort, int) and 0 <= effort <= 9):
        raise CodecError(f"effort is 0 to 9, not {effort}")
    if name == "quality" and value > 100:
        raise CodecError(f"quality is 0 to 100, not {value}")

    def encode_at(byte: int) -> bytes:
        return lossy_file(planes, byte, stored, runtime, effort, progress)

    if name == "quality":
        return encode_at(int(math.floor(value * 2.55 + 0.5)))
    return nearest(encode_at, planes, name, value)


def _target(given: dict[str, float]) -> tuple[str, float]:
    """(name, value) of the only target that is given, by default quality 50.

    Raises:
      CodecError: several are given, or the value is out of range.
    """
    if len(given) > 1:
        raise CodecError(f"give one of {', '.join(given)}, not {len(given)}")
    name, value = next(iter(given.items()), ("quality", 50.0))
    if name == "ssim" and not 0 < value < 1:
        raise CodecError(f"ssim is above 0 and below 1, not {value}")
    if not (math.isfinite(value) and (value > 0 or name == "quality" and value == 0)):
        raise CodecError(f"{name} = {value} is out of range")
    return name, value


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, strict: bool = False) -> np.ndarray:
    """Decodes an .aej file to its image, uint8 or uint16, [h, w] or [h, w, 2 to 4].

    A truncated file gives a coarser image and the warning `CutFile`.

    Args:
      max_pixels: larger images are refused. A strip longer than 1536 pixels counts as at least 64
        wide, which is what decoding it costs.
      strict: refuse truncated files.

    Raises:
      CodecError: the file is damaged, too large, or made with a model that is not installed.

    >>> aejax.codec.decode(aejax.codec.encode(photo, lossless=True)).shape
    (64, 96, 3)
    """
    decoded = read(data, max_pixels=max_pixels)
    if not decoded.complete:
        if strict:
            raise CodecError("the file was truncated; strict=False decodes it to a coarser image")
        warnings.warn(
            f"the file was truncated: the image is coarser ({decoded.scans} of {decoded.of_scans} "
            "scans)",
            CutFile,
            stacklevel=2,
        )
    return decoded.image


def read(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decodes an .aej file with its metadata and header; arguments and errors as `decode`.
    Truncated files give no warning but `complete` False.

    >>> aejax.codec.read(aejax.codec.encode(photo)).complete
    True
    """
    if is_lossless(data):
        return lossless_reading.read(data, max_pixels)
    return reading.read(data, max_pixels)


def verify(data: bytes) -> None:
    """Verifies all checksums of a file without decoding it.

    Raises:
      CodecError: the file is damaged or truncated.
    """
    if is_lossless(data):
        complete = parse_lossless(data, NO_LIMIT).complete
    else:
        complete = parse(data, reading.scans_of, NO_LIMIT).complete
    if not complete:
        raise CodecError("the file was truncated")


def info(data: bytes) -> JsonObject:
    """Describes an .aej file without decoding it: "version", "model", "width", "height",
    "channels", "bits", "quality" (lossy files), "bytes", "bpp", "complete", and the bytes of each
    part ("parts", "metadata").

    Raises:
      CodecError: not an .aej file, or damaged.

    >>> aejax.codec.info(aejax.codec.encode(photo, quality=30))["channels"]
    'RGB'
    """
    return lossless_reading.info(data) if is_lossless(data) else reading.info(data)
