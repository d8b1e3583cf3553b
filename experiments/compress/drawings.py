"""How small are lossless files of images that are no photographs? Draws ten of them: plots, text,
bilevel scans, a palette image, a terminal, a screenshot with a photograph in it.

    python experiments/compress/drawings.py FOLDER
    aejax eval-codec FOLDER --lossless

Cost: drawing takes 1.5 s of one core; the second command encodes and decodes with every installed
codec. Results: README.md beside this file.
"""

import io
import pathlib
import sys

import numpy as np


def plots():
    """Yields (name, uint8 [h, w, 3]) of four matplotlib figures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(0)
    t = np.linspace(0, 10, 400)
    draw = {
        "lines": lambda ax: [ax.plot(t, np.sin(t * k) / k, label=f"k = {k}") for k in range(1, 6)],
        "points": lambda ax: ax.scatter(*rng.normal(size=(2, 500)), c=rng.random(500), s=30),
        "bars": lambda ax: ax.bar(list("abcdefgh"), rng.random(8), color="C2"),
        "heat": lambda ax: ax.imshow(np.outer(np.sin(t), np.cos(t)), cmap="viridis"),
    }
    for name, paint in draw.items():
        figure, ax = plt.subplots(figsize=(6.4, 4.8), dpi=100)
        paint(ax)
        ax.set_title(f"A figure of {name}")
        file = io.BytesIO()
        figure.savefig(file, format="png")
        plt.close(figure)
        from PIL import Image

        yield name, np.asarray(Image.open(file).convert("RGB"))


def terminal(columns: int = 100, rows: int = 40) -> np.ndarray:
    """Text in four colours on a dark background, uint8 [14 rows, 7 columns, 3]."""
    from PIL import Image, ImageDraw

    lines = pathlib.Path(__file__).read_text().splitlines()
    image = Image.new("RGB", (columns * 7, rows * 14), (20, 20, 24))
    pen = ImageDraw.Draw(image)
    colours = [(220, 220, 220), (120, 200, 120), (220, 180, 90), (110, 160, 230)]
    for n in range(rows):
        pen.text((4, 14 * n), lines[n % len(lines)][:columns], colours[n % 4])
    return np.asarray(image)


def pictures():
    """Yields (name, uint8 array) of all ten images."""
    from PIL import Image
    from skimage import data

    yield from plots()
    yield "terminal", terminal()
    yield "page", data.page()
    yield "horse", 255 * data.horse().astype(np.uint8)
    yield "scan", 255 * (data.text() > 120).astype(np.uint8)
    few = Image.fromarray(data.coffee()).quantize(16, dither=Image.Dither.NONE).convert("RGB")
    yield "palette", np.asarray(few)
    screen = np.full((600, 800, 3), 245, np.uint8)
    screen[:30] = (50, 60, 80)
    screen[60 : 60 + 256, 40 : 40 + 256] = data.astronaut()[:256, 96:352]
    screen[60 : 60 + 448, 340 : 340 + 448] = terminal(64, 32)
    yield "screen", screen


def main(folder: str) -> None:
    """Writes the images to `folder` as PNG files."""
    from PIL import Image

    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for name, x in pictures():
        Image.fromarray(x).save(pathlib.Path(folder) / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
