"""results/crops.png: a photograph of a camera and one with white noise, before and after.

    python experiments/denoise/crops.py

Both by the default model, which is told nothing, beside non-local means, which are told a level:
sigma for white noise, and for the photograph the one that is best over PolyU (results/polyu.json).
PSNR is of whole pictures. PolyU's photographs are for research and education; Kodak's were released
for unrestricted use.
"""

import os
import pathlib

import numpy as np
from PIL import Image

import aejax
from aejax.denoising.baselines import baseline
from aejax.denoising.protocol import noisy_image, psnr, rounded
from aejax.pictures import grid, save

RESULTS = pathlib.Path(__file__).with_name("results")
SCENE, BEST = "NikonD800_6-3_125_5000_plant_3", 5.0
SIDE, SIGMA = 256, 25.0


def read(path: pathlib.Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def views(noisy: np.ndarray, clean: np.ndarray, level: float, corner: tuple[int, int], words):
    """(crops, captions) of one picture: noisy, filtered, ours, clean."""
    pictures = [noisy, baseline("nlm")(noisy, level), aejax.denoise(noisy), clean / 255]
    values = [f", {psnr(clean, rounded(y)):.2f} dB" for y in pictures[:3]]
    names = [words[0], f"non-local means, told {level:g}", "aejax, told nothing", words[1]]
    top, left = corner
    crops = [rounded(y)[top : top + SIDE, left : left + SIDE] for y in pictures]
    return crops, [name + value for name, value in zip(names, [*values, ""], strict=True)]


def main() -> None:
    test = pathlib.Path(os.environ["AEJAX_DATA"], "test")
    shot, truth = (read(test / "polyu" / f"{SCENE}_{end}.JPG") for end in ("real", "mean"))
    noisy = shot.astype(np.float32) / 255
    above = views(noisy, truth, BEST, (200, 0), ("PolyU, as shot", "mean of many shots"))
    clean = read(test / "kodak" / "kodim23.png")
    below = views(noisy_image(clean, SIGMA, 22), clean, SIGMA, (80, 160),
                  (f"Kodak 23, white noise of {SIGMA:g}", "original"))  # fmt: skip
    save(RESULTS / "crops.png", grid(above[0] + below[0], 4, above[1] + below[1]))


if __name__ == "__main__":
    main()
