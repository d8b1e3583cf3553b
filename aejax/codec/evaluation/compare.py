"""One picture at one size by every codec, side by side."""

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from aejax.codec.evaluation.contenders import Contender, contenders
from aejax.codec.evaluation.measure import quality_of
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


def largest_within(x: np.ndarray, codec: Contender, size: int) -> bytes | None:
    """The largest file of at most `size` bytes that a codec's settings give, or None.

    Whole numbers between neighbouring settings are tried too (qualities of Pillow's codecs).
    """
    settings: Sequence = codec.settings
    if all(isinstance(s, int) for s in settings) and settings[0] < settings[-1]:
        settings = range(settings[0], settings[-1] + 1)
    low, high, best = 0, len(settings) - 1, None
    while low <= high:
        middle = (low + high) // 2
        data = codec.encode(x, settings[middle])
        if len(data) <= size:
            low, best = middle + 1, data
        else:
            high = middle - 1
    return best


def panels(x: np.ndarray, size: int) -> list[Panel]:
    """Every codec's picture of x, uint8 [h, w, 3], in at most `size` bytes, ours last.

    Raises:
      UserError: x is too small to be measured.
    """
    from aejax.codec import api as codec

    if min(x.shape[:2]) < SMALLEST:
        raise UserError(
            f"a picture of {x.shape[1]} x {x.shape[0]} pixels: {SMALLEST} a side at least"
        )
    out = []
    for name, contender in contenders().items():
        if name in SHOWN and (data := largest_within(x, contender, size)) is not None:
            y = contender.decode(data)
            out.append(Panel(name, y, len(data), *quality_of(x, y)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", codec.TargetMissed)  # the panel says the size
        data = codec.encode(x, size=size)
    y = codec.decode(data)
    return [*out, Panel("aejax", y, len(data), *quality_of(x, y))]


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
    made = panels(x, size or len(contenders()["jpeg"].encode(x, jpeg)))
    write_image(target, sheet(x, made))
    return made
