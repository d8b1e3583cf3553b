"""`aejax codec compare`: one picture in every codec at equal file size, side by side."""

import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from aejax.codec.evaluation.contenders import Contender, contenders
from aejax.codec.evaluation.measure import quality_of
from aejax.codec.target import TargetMissed
from aejax.errors import UserError

SHOWN = ("jpeg", "webp", "avif", "jpeg 2000", "jpeg xl")  # besides aejax, if installed
SIDE = 320  # side of the crops in pixels
SMALLEST = 176  # smallest side in pixels: MS-SSIM needs it


@dataclasses.dataclass(frozen=True)
class Panel:
    """The picture in one codec.

    Attributes:
      name: of the codec.
      image: decoded, uint8 [h, w, 3].
      bytes: of the whole file.
      psnr: in dB; ms_ssim: 0 to 1.
    """

    name: str
    image: np.ndarray
    bytes: int
    psnr: float
    ms_ssim: float

    @property
    def text(self) -> str:
        """One line for the terminal."""
        return f"{self.name}: {self.bytes:,} bytes, {self.psnr:.2f} dB, MS-SSIM {self.ms_ssim:.4f}"


def largest_within(
    encode: Callable[[Any], bytes], settings: Sequence[Any], size: int
) -> tuple[Any, bytes] | None:
    """(setting, file) of the largest file of at most `size` bytes, or None if all are larger.

    Args:
      encode: setting -> file.
      settings: in order of increasing file size; searched by bisection.

    >>> largest_within(lambda quality: bytes(quality), range(1, 101), 30)[0]
    30
    """
    low, high, best = 0, len(settings) - 1, None
    while low <= high:
        middle = (low + high) // 2
        data = encode(settings[middle])
        if len(data) <= size:
            low, best = middle + 1, (settings[middle], data)
        else:
            high = middle - 1
    return best


def _settings(codec: Contender) -> Sequence[Any]:
    """A codec's settings; if they are integers (qualities), all from the first to the last."""
    first, last = codec.settings[0], codec.settings[-1]
    are_qualities = all(isinstance(s, int) for s in codec.settings) and first < last
    return range(first, last + 1) if are_qualities else codec.settings


def panels(x: np.ndarray, size: int, codecs: Mapping[str, Contender]) -> list[Panel]:
    """A picture in each of `codecs` that is in SHOWN, and last in aejax.

    Args:
      x: uint8 [h, w, 3].
      size: bytes of each file, at most (aejax: nearest). Codecs whose files are all larger are left
        out.

    Raises:
      UserError: x is smaller than SMALLEST.
    """
    if min(x.shape[:2]) < SMALLEST:
        raise UserError(
            f"the picture has {x.shape[1]} x {x.shape[0]} pixels; at least {SMALLEST} x {SMALLEST} "
            "are needed to measure MS-SSIM"
        )
    files: dict[str, bytes] = {}
    for name in filter(SHOWN.__contains__, codecs):
        codec = codecs[name]
        if best := largest_within(partial(codec.encode, x), _settings(codec), size):
            files[name] = best[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TargetMissed)  # the panel shows the size
        sized = codecs["aejax"].sized
        assert sized is not None
        files["aejax"] = sized(x, size)
    result = []
    for name, data in files.items():
        y = codecs[name].decode(data)
        result.append(Panel(name, y, len(data), *quality_of(x, y)))
    return result


def sheet(x: np.ndarray, panels: Sequence[Panel]) -> np.ndarray:
    """Centre crops of the original and of every panel with captions, uint8 [h, w, 3]."""
    from aejax.pictures import common_crop, grid

    captions = ["original", *(f"{p.name}, {p.bytes:,} B, {p.psnr:.2f} dB" for p in panels)]
    crops = list(common_crop([x, *(p.image for p in panels)], SIDE))
    return grid(crops, columns=3, captions=captions, scale=1)


def compare(source: pathlib.Path, target: pathlib.Path, size: int | None, jpeg: int) -> list[Panel]:
    """Compares the codecs on a picture file and writes the sheet of crops.

    Args:
      source, target: picture file, and the file to write.
      size: bytes of each file; None = those of a JPEG of quality `jpeg`.

    Raises:
      UserError: the source is no picture, or too small.
    """
    from aejax.data.decode import flatten
    from aejax.data.images import read_image, write_image

    x = flatten(read_image(source)[0], 3)
    codecs = contenders()
    compared = panels(x, size or len(codecs["jpeg"].encode(x, jpeg)), codecs)
    write_image(target, sheet(x, compared))
    return compared
