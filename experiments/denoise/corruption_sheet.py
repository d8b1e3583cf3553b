"""Draws the picture of docs/corruptions.md: every corruption on one crop.

    python experiments/denoise/corruption_sheet.py PHOTO docs/corruptions.jpg

PHOTO is any clean colour photograph. Cost: 44 s of one core, nearly all of it compilation.
"""

import sys

import jax
import numpy as np
from PIL import Image, ImageDraw

from aejax.corrupt import CORRUPTIONS

SIDE, COLUMNS = 176, 5
SHOWN = (
    ("identity", {}), ("gaussian", {"sigma": 25.0}), ("poisson", {"peak": 30.0}),
    ("poisson_gaussian", {}), ("speckle", {}), ("salt_and_pepper", {}), ("film_grain", {}),
    ("camera", {"rms": 6.0}), ("camera", {"rms": 12.0}), ("camera", {"rms": 12.0}),
    ("jpeg", {"quality": 10.0}), ("blur", {}), ("mask", {}), ("quantise", {"levels": 6}),
    ("shuffled", {}),
)  # fmt: skip


def main(photo: str, out: str) -> None:
    picture = Image.open(photo).convert("RGB")
    picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    x = np.asarray(picture, np.float32)[40 : 40 + SIDE, 40 : 40 + SIDE][None] / 255
    rows = -(-len(SHOWN) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 4), rows * (SIDE + 20)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, params) in enumerate(SHOWN):
        y = np.asarray(CORRUPTIONS[name](jax.random.key(i), x, **params))[0]
        at = (i % COLUMNS * (SIDE + 4), i // COLUMNS * (SIDE + 20))
        sheet.paste(Image.fromarray(np.uint8(np.clip(y, 0, 1) * 255 + 0.5)), (at[0], at[1] + 16))
        words = ", ".join(f"{k} {v:g}" for k, v in params.items())
        draw.text((at[0] + 2, at[1] + 2), f"{name} {words}", fill="black")
    sheet.save(out, quality=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
