"""Prepares clean targets for training on camera noise: versions of train/photos without grain.

    python experiments/denoise/clean_photos.py $AEJAX_DATA/train/photos OUT

With grain in the targets, a denoiser learns to keep grain. OUT/train gets these versions of all
photographs but every 20th (those go to OUT/test, the split of `data.holdout = 20`):

    NAME.half.png     the 293 larger ones downsampled to 1/2: sharp and clean
    NAME.full.png     the 293 larger ones unchanged (45 dB from lossless sources)
    NAME.less.png     the 400 of BSDS downsampled to 2/3, which removes most of their JPEG artefacts
    NAME.soft.png     all of them downsampled by 1.5 to 2.5 and upsampled again: clean, and as soft
                      as the pixels of a camera with many megapixels
    NAME.softer.png   the same by 2.5 to 3.5

OUT/test gets the versions "half" and "less".

Cost: about 45 s of one core and 600 MB (20 of the 693 photographs took 1.3 s and 17 MB).
"""

import pathlib
import sys

import numpy as np
from PIL import Image


def versions(picture: Image.Image, small: bool, factor: float) -> dict[str, Image.Image]:
    """{version: picture} of one photograph.

    Args:
      small: one of BSDS, which is downsampled less.
      factor: of the version "soft".
    """

    def to(scale, of=picture):
        size = tuple(round(n * scale) for n in picture.size)
        return of.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)

    soft = {"soft": to(1.0, to(1 / factor)), "softer": to(1.0, to(1 / (factor + 1)))}
    if small:
        return {"less": to(2 / 3), **soft}
    return {"half": to(0.5), "full": picture, **soft}


def main(source: str, out: str) -> None:
    files = sorted(p for p in pathlib.Path(source).iterdir() if p.is_file())
    factors = np.random.default_rng(0).uniform(1.5, 2.5, len(files))
    for i, file in enumerate(files):
        picture = Image.open(file).convert("RGB")
        small = min(picture.size) < 512
        part = "test" if i % 20 == 19 else "train"
        for name, image in versions(picture, small, factors[i]).items():
            if part == "test" and name in ("full", "soft", "softer"):
                continue
            path = pathlib.Path(out, part, f"{file.stem}.{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, compress_level=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
