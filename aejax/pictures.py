"""Sheets of images, as uint8 arrays [h, w, 3]: grids, originals over reconstructions, captions.

Images are uint8 or float in [0, 1], [h, w, c] with c 1 or 3 (or [h, w]), of any sizes. Small ones
are enlarged by a whole factor without smoothing: every pixel of a 28x28 digit stays a square.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Sheet = np.ndarray  # uint8 [h, w, 3]
LIGHT = {"paper": (255, 255, 255), "ink": (28, 28, 30), "quiet": (110, 110, 115)}
DARK = {"paper": (22, 23, 26), "ink": (236, 236, 239), "quiet": (160, 160, 168)}
GAP = 4
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of R'G'B' (ITU-R BT.601)


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


def common_crop(images: Sequence[np.ndarray], side: int = 256) -> np.ndarray:
    """[n, h, w, c]: the centres of images of any sizes, as large as all of them allow."""
    h, w = (min(side, *(i.shape[axis] for i in images)) for axis in (0, 1))
    tops = [((i.shape[0] - h) // 2, (i.shape[1] - w) // 2) for i in images]
    return np.stack([i[t : t + h, s : s + w] for i, (t, s) in zip(images, tops, strict=True)])


def fitting_scale(images: Sequence[np.ndarray], side: int = 96) -> int:
    """The whole factor that brings the largest image to about `side` pixels; 1 for large ones."""
    largest = max((max(np.shape(i)[:2]) for i in images), default=side)
    return max(1, round(side / largest))


def rows_sheet(
    rows: Sequence[tuple[str, str, Sequence[np.ndarray]] | None],
    side: int = 96,
    gap: int = GAP,
    theme: Mapping[str, tuple[int, int, int]] = LIGHT,
) -> Sheet:
    """Rows of images under each other, each with a caption and a quieter note at its left.

    Args:
      rows: (caption, note, images); the i-th images of all rows stand in one column. None leaves a
        wider gap.
      side: pixels to which small images are enlarged, nearly.
      gap: pixels between images.
    """
    full = [(c, n, [rgb(i) for i in images]) for c, n, images in filter(None, rows)]
    scale = fitting_scale([i for *_, images in full for i in images], side)
    full = [(c, n, [enlarge(i, scale) for i in images]) for c, n, images in full]
    count = max((len(images) for *_, images in full), default=0)
    widths = [max(r[2][k].shape[1] for r in full if k < len(r[2])) for k in range(count)]
    size = 13
    left = max((text_width(t, size) for c, n, _ in full for t in (c, n)), default=0)
    left = left + 4 * gap if left else gap
    heights = [
        max([(size + 4) * sum(map(bool, (c, n))), *(i.shape[0] for i in images)])
        for c, n, images in full
    ]
    space = 3 * gap * sum(row is None for row in rows)
    canvas = np.full(
        (gap + sum(heights) + gap * len(full) + space, left + sum(widths) + gap * count, 3),
        theme["paper"],
        np.uint8,
    )
    top, following = gap, iter(zip(full, heights, strict=True))
    for row in rows:
        if row is None:
            top += 3 * gap
            continue
        (caption, note, images), height = next(following)
        words = [(t, theme[c]) for t, c in ((caption, "ink"), (note, "quiet")) if t]
        first = top + (height - len(words) * (size + 4)) // 2
        for k, (text, colour) in enumerate(words):
            write(canvas, text, (left - 2 * gap, first + k * (size + 4)), size, colour, "ra")
        across = left
        for image, width in zip(images, widths, strict=False):
            _paste(canvas, image, top + (height - image.shape[0]) // 2, across)
            across += width + gap
        top += height + gap
    return canvas


def contact_sheet(
    pictures: Sequence[Mapping[str, np.ndarray]], columns: int = 16, width: int = 1600
) -> Sheet:
    """Originals above inputs and outputs: one row per name ("x", "x_tilde", ..., "y").

    Args:
      pictures: per example its images by name; x comes first and y last, whatever the order.
      columns: examples at most; fewer if the images are large.
      width: of the sheet in pixels; it is exceeded by one image at most.
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
    colour: tuple[int, int, int] = LIGHT["ink"],
    anchor: str = "la",
) -> None:
    """Writes into `canvas` at (x, y), anchored as PIL has it ("la": left, top of the letters)."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text(place, text, colour, _font(size), anchor)
    canvas[:] = np.asarray(picture)


def _paste(canvas: Sheet, image: np.ndarray, top: int, left: int) -> None:
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image


def save(path, sheet: Sheet, kind: str = "PNG") -> None:
    """To a path or an open file; `kind` "JPEG" takes a fifth of the bytes for photographs."""
    from PIL import Image

    Image.fromarray(sheet).save(path, kind, quality=90)
