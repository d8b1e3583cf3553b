"""Sheets of images with captions, as uint8 arrays [h, w, 3]: grids, rows, originals above outputs.

Images are uint8 or float in [0, 1], [h, w, c] with c 1 or 3 (or [h, w]), of any sizes. Small ones
are enlarged by an integer factor without interpolation.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np

Sheet = np.ndarray  # uint8 [h, w, 3]
LIGHT = {"paper": (255, 255, 255), "ink": (28, 28, 30), "quiet": (110, 110, 115)}
DARK = {"paper": (22, 23, 26), "ink": (236, 236, 239), "quiet": (160, 160, 168)}
GAP = 4  # pixels between images
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of R'G'B' (ITU-R BT.601)


def rgb(image: np.ndarray) -> np.ndarray:
    """Any image as uint8 [h, w, 3]; alpha is dropped.

    >>> rgb(np.array([[0.0, 1.0, 2.0]]))[0, :, 0].tolist()
    [0, 255, 255]
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    image = image[..., None] if image.ndim == 2 else image
    return image.repeat(3, -1) if image.shape[-1] == 1 else image[..., :3]


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """The image with every pixel repeated factor x factor times."""
    return image.repeat(factor, 0).repeat(factor, 1) if factor > 1 else image


def common_crop(images: Sequence[np.ndarray], side: int = 256) -> np.ndarray:
    """Centre crops of images [h, w, c] of any sizes, stacked: [n, h, w, c], at most `side` and no
    larger than the smallest image."""
    h, w = (min(side, *(i.shape[axis] for i in images)) for axis in (0, 1))
    tops = [((i.shape[0] - h) // 2, (i.shape[1] - w) // 2) for i in images]
    return np.stack([i[t : t + h, s : s + w] for i, (t, s) in zip(images, tops, strict=True)])


def fitting_scale(images: Sequence[np.ndarray], side: int = 96) -> int:
    """The integer factor that enlarges the largest image to about `side` pixels; at least 1."""
    largest = max((max(np.shape(i)[:2]) for i in images), default=side)
    return max(1, round(side / largest))


def rows_sheet(
    rows: Sequence[tuple[str, str, Sequence[np.ndarray]] | None],
    side: int = 96,
    gap: int = GAP,
    theme: Mapping[str, tuple[int, int, int]] = LIGHT,
) -> Sheet:
    """Rows of images, each with a caption and below it a note in lighter text on the left.

    Args:
      rows: (caption, note, images); the i-th images of all rows form a column. None adds a wider
        gap.
      side: small images are enlarged to about this many pixels.
      gap: pixels between images.
      theme: LIGHT or DARK.
    """
    filled = [(c, n, [rgb(i) for i in images]) for c, n, images in filter(None, rows)]
    scale = fitting_scale([i for *_, images in filled for i in images], side)
    filled = [(c, n, [enlarge(i, scale) for i in images]) for c, n, images in filled]
    count = max((len(images) for *_, images in filled), default=0)
    widths = [max(r[2][k].shape[1] for r in filled if k < len(r[2])) for k in range(count)]
    size = 13
    left = max((text_width(t, size) for c, n, _ in filled for t in (c, n)), default=0)
    left = left + 4 * gap if left else gap
    heights = [
        max([(size + 4) * sum(map(bool, (c, n))), *(i.shape[0] for i in images)])
        for c, n, images in filled
    ]
    space = 3 * gap * sum(row is None for row in rows)
    canvas = np.full(
        (gap + sum(heights) + gap * len(filled) + space, left + sum(widths) + gap * count, 3),
        theme["paper"],
        np.uint8,
    )
    top, remaining = gap, iter(zip(filled, heights, strict=True))
    for row in rows:
        if row is None:
            top += 3 * gap
            continue
        (caption, note, images), height = next(remaining)
        lines = [(t, theme[c]) for t, c in ((caption, "ink"), (note, "quiet")) if t]
        y = top + (height - len(lines) * (size + 4)) // 2
        for k, (text, colour) in enumerate(lines):
            write(canvas, text, (left - 2 * gap, y + k * (size + 4)), size, colour, "ra")
        x = left
        for image, width in zip(images, widths, strict=False):
            _paste(canvas, image, top + (height - image.shape[0]) // 2, x)
            x += width + gap
        top += height + gap
    return canvas


def contact_sheet(
    pictures: Sequence[Mapping[str, np.ndarray]], columns: int = 16, width: int = 1600
) -> Sheet:
    """Originals above inputs and outputs: a column per example, a row per name ("x", "x_tilde",
    ..., "y").

    Args:
      pictures: of each example its images by name; x is the first row and y the last.
      columns: number of examples, at most; fewer if the images are large.
      width: of the sheet in pixels, exceeded by at most one image.
    """
    order = {"x": 0, "y": 2}
    names = sorted(pictures[0], key=lambda name: order.get(name, 1)) if pictures else []
    captions = {"x": "original", "y": "output", "x_tilde": "input"}
    widest = max((np.shape(p["x"])[1] for p in pictures if "x" in p), default=1)
    shown = pictures[: max(1, min(columns, math.ceil(width / max(widest, 90))))]
    return rows_sheet([(captions.get(n, n), "", [p[n] for p in shown]) for n in names])


def grid(
    images: Sequence[np.ndarray],
    columns: int | None = None,
    captions: Sequence[str] = (),
    title: str = "",
    scale: int | None = None,
    gap: int = GAP,
) -> Sheet:
    """A grid of images in reading order, with captions below them and a title above.

    Args:
      columns: by default as many as rows, or one more.
      captions: of the first images; "" for none.
      scale: integer factor of enlargement, by default of `fitting_scale`.
      gap: pixels between images.
    """
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
    high = above + gap + count_rows * (height + below + gap)
    canvas = np.full((high, wide, 3), LIGHT["paper"], np.uint8)
    if title:
        write(canvas, title, (gap, gap + 1), 15, LIGHT["ink"])
    for k, image in enumerate(images):
        top = above + gap + (k // columns) * (height + below + gap)
        left = gap + (k % columns) * (width + gap)
        spare_h, spare_w = height - image.shape[0], width - image.shape[1]
        _paste(canvas, image, top + spare_h // 2, left + spare_w // 2)
        if k < len(captions) and captions[k]:
            text = fit(str(captions[k]), width, size)
            write(canvas, text, (left + width // 2, top + height + 2), size, LIGHT["quiet"], "ma")
    return canvas


def strip(images: Sequence[np.ndarray], scale: int | None = None, gap: int = 2) -> Sheet:
    """Images side by side."""
    return grid(images, columns=len(images), scale=scale, gap=gap)


# --- text -----------------------------------------------------------------------------------------


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """The width of `text` in pixels; size: of the font."""
    return math.ceil(_font(size).getlength(text)) if text else 0


def fit(text: str, width: int, size: int) -> str:
    """`text`, shortened with an ellipsis to at most `width` pixels."""
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
    colour: tuple[int, int, int] = LIGHT["ink"],
    anchor: str = "la",
) -> None:
    """Writes text into `canvas`.

    Args:
      place: (x, y) of the anchor.
      size: of the font.
      anchor: as in Pillow; "la" is the left end of the ascender line.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text(place, text, colour, _font(size), anchor)
    canvas[:] = np.asarray(picture)


def _paste(canvas: Sheet, image: np.ndarray, top: int, left: int) -> None:
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image


def save(path: str | os.PathLike | IO[bytes], sheet: Sheet, kind: str = "PNG") -> None:
    """Writes a sheet to a path or an open file; kind: Pillow's name of the format."""
    from PIL import Image

    Image.fromarray(sheet).save(path, kind, quality=90)
