"""Sheets of images, as uint8 arrays [h, w, 3]: grids, originals over reconstructions, captions.

Images are uint8 or float in [0, 1], [h, w, c] with c 1 or 3 (or [h, w]), of any sizes. Small ones
are enlarged by a whole factor without smoothing: every pixel of a 28x28 digit stays a square.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Sheet = np.ndarray  # uint8 [h, w, 3]
PAPER, INK, QUIET = (255, 255, 255), (28, 28, 30), (110, 110, 115)
GAP = 4


def rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] of any image."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    image = image[..., None] if image.ndim == 2 else image
    return image.repeat(3, -1) if image.shape[-1] == 1 else image[..., :3]


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel a square of factor x factor."""
    return image.repeat(factor, 0).repeat(factor, 1) if factor > 1 else image


def fitting_scale(images: Sequence[np.ndarray], side: int = 96) -> int:
    """The whole factor that brings the largest image to about `side` pixels; 1 for large ones."""
    largest = max((max(np.shape(i)[:2]) for i in images), default=side)
    return max(1, round(side / largest))


def rows_sheet(
    rows: Sequence[tuple[str, str, Sequence[np.ndarray]]], scale: int | None = None, gap: int = GAP
) -> Sheet:
    """Rows of images under each other, each with a caption and a quieter note at its left.

    Args:
      rows: (caption, note, images); the i-th images of all rows stand in one column.
      scale: whole factor of enlargement; None = so that images are about 96 pixels.
      gap: pixels between images.
    """
    rows = [(caption, note, [rgb(i) for i in images]) for caption, note, images in rows]
    scale = scale or fitting_scale([i for *_, images in rows for i in images])
    rows = [(c, n, [enlarge(i, scale) for i in images]) for c, n, images in rows]
    count = max((len(images) for *_, images in rows), default=0)
    widths = [max(r[2][k].shape[1] for r in rows if k < len(r[2])) for k in range(count)]
    size = 13
    texts = [t for caption, note, _ in rows for t in (caption, note) if t]
    left = 2 * gap + max(map(lambda t: text_width(t, size), texts), default=0) if texts else 0
    left = left + gap if left else gap
    lines = 2 if any(note for _, note, _ in rows) else 1
    least = lines * (size + 4) if texts else 0
    heights = [max([least, *(i.shape[0] for i in images)]) for *_, images in rows]
    canvas = _canvas(left + sum(widths) + gap * count, gap + sum(heights) + gap * len(rows))
    top = gap
    for (caption, note, images), height in zip(rows, heights, strict=True):
        words = [(caption, INK)] if caption else []
        words += [(note, QUIET)] if note else []
        first = top + (height - len(words) * (size + 4)) // 2
        for k, (text, colour) in enumerate(words):
            write(canvas, text, (left - 2 * gap, first + k * (size + 4)), size, colour, "ra")
        across = left
        for image, width in zip(images, widths, strict=False):
            _paste(canvas, image, top + (height - image.shape[0]) // 2, across)
            across += width + gap
        top += height + gap
    return canvas


def over(
    pictures: Sequence[Mapping[str, np.ndarray]], columns: int = 16, width: int = 1600
) -> Sheet:
    """Originals over what became of them: one row per name ("x", "x_tilde", ..., "y").

    Args:
      pictures: per example its images by name; x comes first and y last, whatever the order.
      columns: examples at most; large images make fewer, so that
      width: of the sheet, in pixels, is not passed by more than one image.
    """
    order = {"x": 0, "y": 2}
    names = sorted(pictures[0], key=lambda name: order.get(name, 1)) if pictures else []
    spelled = {"x": "original", "y": "output", "x_tilde": "input"}
    widest = max((np.shape(p["x"])[1] for p in pictures if "x" in p), default=1)
    shown = pictures[: max(1, min(columns, math.ceil(width / max(widest, 90))))]
    return rows_sheet([(spelled.get(n, n), "", [p[n] for p in shown]) for n in names])


def grid(
    images: Sequence[np.ndarray],
    columns: int | None = None,
    captions: Sequence[str] = (),
    title: str = "",
    scale: int | None = None,
    gap: int = GAP,
) -> Sheet:
    """Images in reading order, nearly as wide as high; captions under them, a title above."""
    images = [rgb(i) for i in images]
    scale = scale or fitting_scale(images)
    images = [enlarge(i, scale) for i in images]
    columns = columns or max(1, math.ceil(math.sqrt(len(images))))
    width = max((i.shape[1] for i in images), default=1)
    height = max((i.shape[0] for i in images), default=1)
    size = 11
    below = size + 5 if any(captions) else 0
    above = 26 if title else 0
    count_rows = math.ceil(len(images) / columns)
    wide = gap + columns * (width + gap)
    wide = max(wide, text_width(title, 15) + 2 * gap) if title else wide
    canvas = _canvas(wide, above + gap + count_rows * (height + below + gap))
    if title:
        write(canvas, title, (gap, gap + 1), 15, INK)
    for k, image in enumerate(images):
        top = above + gap + (k // columns) * (height + below + gap)
        left = gap + (k % columns) * (width + gap)
        spare_h, spare_w = height - image.shape[0], width - image.shape[1]
        _paste(canvas, image, top + spare_h // 2, left + spare_w // 2)
        if k < len(captions) and captions[k]:
            text = fit(str(captions[k]), width, size)
            write(canvas, text, (left + width // 2, top + height + 2), size, QUIET, "ma")
    return canvas


def strip(images: Sequence[np.ndarray], scale: int | None = None, gap: int = 2) -> Sheet:
    """Images side by side."""
    return grid(images, columns=len(images), scale=scale, gap=gap)


# --- text -----------------------------------------------------------------------------------------


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Pixels."""
    return math.ceil(_font(size).getlength(text)) if text else 0


def fit(text: str, width: int, size: int) -> str:
    """`text`, or as much of it as fits into `width` pixels, with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "...", size) > width:
        text = text[:-1]
    return text + "..." if text else ""


def write(
    canvas: Sheet,
    text: str,
    place: tuple[int, int],
    size: int = 13,
    colour: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> None:
    """Writes into `canvas` at (x, y), anchored as PIL has it ("la": left, top of the letters)."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text(place, text, colour, _font(size), anchor)
    canvas[:] = np.asarray(picture)


def _canvas(width: int, height: int) -> Sheet:
    return np.full((max(1, height), max(1, width), 3), PAPER, np.uint8)


def _paste(canvas: Sheet, image: np.ndarray, top: int, left: int) -> None:
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image


def save(path, sheet: Sheet) -> None:
    """As PNG."""
    from PIL import Image

    Image.fromarray(sheet).save(path, optimize=True)
