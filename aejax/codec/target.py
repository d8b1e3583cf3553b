"""The quality that gives a file of a wanted size, rate, PSNR or SSIM."""

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

TOLERANCE = 0.02  # of a size or rate
DB_TOLERANCE = 0.1  # dB
# Of dB, or of the log of bytes, over the quality byte: what photographs have about.
SLOPES = {"psnr": 14.0 / 255.0, "ssim": 9.5 / 255.0, "size": 3.3 / 255.0}


class TargetMissed(UserWarning):
    """A size, rate, PSNR or SSIM that no quality gives; the message says what the nearest has."""


def nearest(encode: Callable[[int], bytes], planes: Planes, name: str, value: float) -> bytes:
    """The file that is nearest to a target, with the warning TargetMissed if that is not near.

    Args:
      encode: quality byte, 0 to 255 -> file.
      name: "bpp" (bits per pixel), "size" (bytes), "psnr" (dB on the 8-bit scale) or "ssim" (0 to
        1), which is sought as -10 log10(1 - SSIM), in dB.
    """
    pixels = planes.rgb.shape[0] * planes.rgb.shape[1]
    if name in ("psnr", "ssim"):
        measure, wanted = (_psnr, value) if name == "psnr" else (_ssim_db, _in_db(value))
        data, reached = _seek(
            encode, lambda data: measure(planes, data), wanted, DB_TOLERANCE, SLOPES[name]
        )
        hit = abs(reached - wanted) <= DB_TOLERANCE
        asked, got = f"{value:g} dB", f"{reached:.2f} dB"
        if name == "ssim":
            asked, got = f"SSIM {value:g}", f"{1 - 10 ** (-reached / 10):.4f}"
    else:
        size = value * pixels / 8 if name == "bpp" else value
        data, reached = _seek(encode, len, size, TOLERANCE * size, SLOPES["size"])
        hit = abs(reached - size) <= TOLERANCE * size
        asked = f"{value:g} bpp" if name == "bpp" else f"{value:,} bytes"
        got = f"{8 * reached / pixels:.3f} bpp" if name == "bpp" else f"{reached:,.0f} bytes"
    if not hit:
        message = f"{asked} cannot be reached; the nearest file has {got}"
        warnings.warn(message, TargetMissed, stacklevel=3)  # of who called `encode`
    return data


def _psnr(planes: Planes, data: bytes) -> float:
    decoded = reading.read(data, MAX_PIXELS).image
    error = planes_of(decoded).rgb.astype(np.float32) - planes.rgb.astype(np.float32)
    error /= 65535.0 if decoded.dtype == np.uint16 else 255.0
    return -10.0 * math.log10(float(np.mean(np.square(error))) + 1e-12)


def _in_db(ssim: float) -> float:
    return -10.0 * math.log10(1.0 - ssim + 1e-12)


def _ssim_db(planes: Planes, data: bytes) -> float:
    decoded = planes_of(reading.read(data, MAX_PIXELS).image).rgb
    if min(decoded.shape[:2]) < 11:
        raise CodecError("ssim needs images of 11 pixels a side at least")
    x, y = (to_uint8(v) if v.dtype == np.uint16 else v for v in (planes.rgb, decoded))
    return _in_db(host.ssim(x, y))


def _seek(
    encode: Callable[[int], bytes],
    measure: Callable[[bytes], float],
    target: float,
    tolerance: float,
    usual: float,
    tries: int = 5,
) -> tuple[bytes, float]:
    """(file, its measure) whose measure is nearest to the target, of at most so many encodes.

    Log bytes, or dB, are nearly straight in the quality (lambda is its exponential): the first
    step has the `usual` slope, the next ones that of the two nearest files as far as it is likely;
    once there is a bracket, the straight line between its ends.
    """
    line = math.log if measure is len else float
    tried: dict[int, tuple[float, bytes]] = {}  # quality byte -> (measure, file)
    byte = 128
    while len(tried) < tries:
        data = encode(byte)
        tried[byte] = measure(data), data
        if abs(tried[byte][0] - target) <= 0.2 * tolerance:
            break
        gap = {b: line(v) - line(target) for b, (v, _) in tried.items()}
        low = max((b for b in gap if gap[b] <= 0), default=-1)
        high = min((b for b in gap if gap[b] > 0), default=256)
        if high - low <= 1:
            break
        if low in gap and high in gap:
            guess = round(low - gap[low] * (high - low) / (gap[high] - gap[low]))
        else:
            guess = _step(gap, usual)
        byte = min(max(guess, low + 1, 0), high - 1, 255)
    reached, data = min(tried.values(), key=lambda one: abs(one[0] - target))
    return data, reached


def _step(gap: dict[int, float], usual: float) -> int:
    """The quality byte where a straight line would reach a gap of zero.

    Args:
      gap: quality byte -> distance to the target; all of one sign.
      usual: the slope to take with one file.
    """
    near = sorted(gap, key=lambda byte: abs(gap[byte]))[:2]
    slope = usual
    if len(near) == 2:
        slope = (gap[near[0]] - gap[near[1]]) / (near[0] - near[1])
    slope = min(max(slope, usual / 2), usual * 2)  # two near files may differ by chance alone
    return round(near[0] - gap[near[0]] / slope)
