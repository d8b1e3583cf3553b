"""One picture at one size by every codec, side by side."""

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

SHOWN = ("jpeg", "webp", "avif", "jpeg 2000", "jpeg xl")  # besides ours, as far as they are there
SIDE = 320  # pixels of the crops
SMALLEST = 176  # pixels a side, which MS-SSIM needs


@dataclasses.dataclass(frozen=True)
class Panel:
    """What one codec made of the picture.

    Attributes:
      image: decoded, uint8 [h, w, 3].
      bytes: of the whole file; psnr in dB; ms_ssim.
    """

    name: str
    image: np.ndarray
    bytes: int
    psnr: float
    ms_ssim: float

    @property
    def text(self) -> str:
        """Name and numbers in a line."""
        return f"{self.name}: {self.bytes:,} bytes, {self.psnr:.2f} dB, MS-SSIM {self.ms_ssim:.4f}"


def largest_within(
    encode: Callable[[Any], bytes], settings: Sequence[Any], size: int
) -> tuple[Any, bytes] | None:
    """(setting, file) of the largest file of at most `size` bytes, or None if none is that small.

    Args:
      encode: setting -> file.
      settings: from small files to large ones; bisected.
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
    """A codec's settings; of whole numbers (Pillow's qualities) all between the ends."""
    first, last = codec.settings[0], codec.settings[-1]
    whole = all(isinstance(s, int) for s in codec.settings) and first < last
    return range(first, last + 1) if whole else codec.settings


def panels(x: np.ndarray, size: int, codecs: Mapping[str, Contender]) -> list[Panel]:
    """The picture that each of `codecs` makes of x, uint8 [h, w, 3], in at most `size` bytes, ours
    last.

    Raises:
      UserError: x is too small to be measured.
    """
    if min(x.shape[:2]) < SMALLEST:
        raise UserError(
            f"a picture of {x.shape[1]} x {x.shape[0]} pixels: {SMALLEST} a side at least"
        )
    files: dict[str, bytes] = {}
    for name in filter(SHOWN.__contains__, codecs):
        codec = codecs[name]
        if best := largest_within(partial(codec.encode, x), _settings(codec), size):
            files[name] = best[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TargetMissed)  # the panel says the size
        sized = codecs["aejax"].sized
        assert sized is not None
        files["aejax"] = sized(x, size)
    made = []
    for name, data in files.items():
        y = codecs[name].decode(data)
        made.append(Panel(name, y, len(data), *quality_of(x, y)))
    return made


def sheet(x: np.ndarray, made: Sequence[Panel]) -> np.ndarray:
    """The middles of the original and of every panel, with their numbers under them."""
    from aejax.pictures import common_crop, grid

    captions = ["original", *(f"{p.name}, {p.bytes:,} B, {p.psnr:.2f} dB" for p in made)]
    crops = list(common_crop([x, *(p.image for p in made)], SIDE))
    return grid(crops, columns=3, captions=captions, scale=1)


def compare(source: pathlib.Path, target: pathlib.Path, size: int | None, jpeg: int) -> list[Panel]:
    """Writes the sheet of a picture file.

    Args:
      size: bytes; None = those of a JPEG of quality `jpeg`.

    Raises:
      UserError: not a picture, or too small.
    """
    from aejax.data.decode import flatten
    from aejax.data.images import read_image, write_image

    x = flatten(read_image(source)[0], 3)
    codecs = contenders()
    made = panels(x, size or len(codecs["jpeg"].encode(x, jpeg)), codecs)
    write_image(target, sheet(x, made))
    return made
