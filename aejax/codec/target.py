"""Searches the quality whose file has a given size, rate, PSNR or SSIM."""

import math
import warnings
from collections.abc import Callable

import numpy as np

from aejax.codec import reading
from aejax.codec.errors import CodecError
from aejax.codec.layout import MAX_PIXELS
from aejax.codec.planes import Planes, planes_of
from aejax.data.deep import to_uint8
from aejax.metrics import host

TOLERANCE = 0.02  # relative, of a size or rate
DB_TOLERANCE = 0.1  # of PSNR, and of SSIM in dB
# Typical slopes on photographs: dB, or log bytes, per step of the quality byte.
SLOPES = {"psnr": 14.0 / 255.0, "ssim": 9.5 / 255.0, "size": 3.3 / 255.0}


class TargetMissed(UserWarning):
    """No quality gives the target size, rate, PSNR or SSIM; the message says what the nearest file
    has."""


def nearest(encode: Callable[[int], bytes], planes: Planes, name: str, value: float) -> bytes:
    """The file nearest to a target, with the warning TargetMissed if it is outside the tolerance.

    Args:
      encode: quality byte, 0 to 255 -> file.
      planes: the image.
      name: "bpp" (bits per pixel), "size" (bytes), "psnr" (dB) or "ssim" (0 to 1), which is
        searched as -10 log10(1 - SSIM) in dB.
      value: the target.

    Raises:
      CodecError: ssim of an image with a side below 11 pixels.
    """
    pixels = planes.rgb.shape[0] * planes.rgb.shape[1]
    if name in ("psnr", "ssim"):
        measure, wanted = (_psnr, value) if name == "psnr" else (_ssim_db, _in_db(value))
        data, reached = _search(
            encode, lambda data: measure(planes, data), wanted, DB_TOLERANCE, SLOPES[name]
        )
        is_hit = abs(reached - wanted) <= DB_TOLERANCE
        asked, got = f"{value:g} dB", f"{reached:.2f} dB"
        if name == "ssim":
            asked, got = f"SSIM {value:g}", f"{1 - 10 ** (-reached / 10):.4f}"
    else:
        size = value * pixels / 8 if name == "bpp" else value
        data, reached = _search(encode, len, size, TOLERANCE * size, SLOPES["size"])
        is_hit = abs(reached - size) <= TOLERANCE * size
        asked = f"{value:g} bpp" if name == "bpp" else f"{value:,} bytes"
        got = f"{8 * reached / pixels:.3f} bpp" if name == "bpp" else f"{reached:,.0f} bytes"
    if not is_hit:
        message = f"{asked} cannot be reached; the nearest file has {got}"
        warnings.warn(message, TargetMissed, stacklevel=3)  # points at the caller of `encode`
    return data


def _psnr(planes: Planes, data: bytes) -> float:
    """PSNR in dB of the decoded file."""
    decoded = reading.read(data, MAX_PIXELS).image
    error = planes_of(decoded).rgb.astype(np.float32) - planes.rgb.astype(np.float32)
    error /= 65535.0 if decoded.dtype == np.uint16 else 255.0
    return -10.0 * math.log10(float(np.mean(np.square(error))) + 1e-12)


def _in_db(ssim: float) -> float:
    return -10.0 * math.log10(1.0 - ssim + 1e-12)


def _ssim_db(planes: Planes, data: bytes) -> float:
    """-10 log10(1 - SSIM) of the decoded file."""
    decoded = planes_of(reading.read(data, MAX_PIXELS).image).rgb
    if min(decoded.shape[:2]) < 11:
        raise CodecError("ssim needs images of at least 11x11 pixels")
    x, y = (to_uint8(v) if v.dtype == np.uint16 else v for v in (planes.rgb, decoded))
    return _in_db(host.ssim(x, y))


def _search(
    encode: Callable[[int], bytes],
    measure: Callable[[bytes], float],
    target: float,
    tolerance: float,
    typical_slope: float,
    max_encodes: int = 5,
) -> tuple[bytes, float]:
    """(file, its measure) whose measure is nearest to the target.

    dB and log bytes are nearly linear in the quality, since log lambda is. The first step uses the
    typical slope, the next ones the slope between the two nearest files, within limits. Once two
    files bracket the target, the search interpolates linearly between them (regula falsi).
    """
    scale = math.log if measure is len else float
    tried: dict[int, tuple[float, bytes]] = {}  # quality byte -> (measure, file)
    byte = 128
    while len(tried) < max_encodes:
        data = encode(byte)
        tried[byte] = measure(data), data
        if abs(tried[byte][0] - target) <= 0.2 * tolerance:
            break
        gap = {b: scale(v) - scale(target) for b, (v, _) in tried.items()}
        low = max((b for b in gap if gap[b] <= 0), default=-1)
        high = min((b for b in gap if gap[b] > 0), default=256)
        if high - low <= 1:
            break
        if low in gap and high in gap:
            guess = round(low - gap[low] * (high - low) / (gap[high] - gap[low]))
        else:
            guess = _secant(gap, typical_slope)
        byte = min(max(guess, low + 1, 0), high - 1, 255)
    reached, data = min(tried.values(), key=lambda result: abs(result[0] - target))
    return data, reached


def _secant(gap: dict[int, float], typical_slope: float) -> int:
    """The quality byte where the line through the two nearest files reaches the target.

    Args:
      gap: quality byte -> distance to the target; all of one sign.
      typical_slope: used for a single file; the measured slope is limited to 1/2 to 2 times it,
        since files of similar quality may differ by chance.
    """
    nearest_two = sorted(gap, key=lambda byte: abs(gap[byte]))[:2]
    slope = typical_slope
    if len(nearest_two) == 2:
        a, b = nearest_two
        slope = (gap[a] - gap[b]) / (a - b)
    slope = min(max(slope, typical_slope / 2), typical_slope * 2)
    return round(nearest_two[0] - gap[nearest_two[0]] / slope)
