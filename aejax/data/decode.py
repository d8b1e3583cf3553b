"""Conversion of decoded images: number of channels, and size."""

import numpy as np


def flatten(x: np.ndarray, channels: int = 0) -> np.ndarray:
    """uint8 [h, w, 1..4] -> [h, w, 1 or 3]: composites alpha over white, converts gray <-> RGB.

    Args:
      channels: 1 = gray (luma of ITU-R BT.601), 3 = RGB, 0 = as stored.

    >>> flatten(np.array([[[255, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)).tolist()
    [[[255, 0, 0], [255, 255, 255]]]
    """
    if x.shape[2] in (2, 4):
        a = x[..., -1:].astype(np.uint32)
        x = ((x[..., :-1] * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)
    if channels == 3 and x.shape[2] == 1:
        x = np.repeat(x, 3, axis=2)
    elif channels == 1 and x.shape[2] == 3:
        luma = x.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
        x = ((luma + 32768) >> 16).astype(np.uint8)[..., None]
    return x


def resized_shape(h: int, w: int, size: int | tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the result of `resize` for an image of h x w pixels."""
    if not isinstance(size, int):
        return tuple(size)
    scale = size / min(h, w)
    return max(size, round(h * scale)), max(size, round(w * scale))


def resize(x: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes with a Lanczos filter.

    Args:
      x: uint8 [h, w, 1 or 3].
      size: the new short side in pixels; or (h, w), for which the image is first cropped around its
        centre to that aspect ratio.

    >>> resize(photo, 32).shape, resize(photo, (40, 40)).shape
    ((32, 48, 3), (40, 40, 3))
    """
    from PIL import Image

    h, w = x.shape[:2]
    to = resized_shape(h, w, size)
    if to == (h, w):
        return x
    scale = max(to[0] / h, to[1] / w)
    cut_h, cut_w = max(0, h - to[0] / scale) / 2, max(0, w - to[1] / scale) / 2
    im = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
    box = (cut_w, cut_h, w - cut_w, h - cut_h)
    y = np.asarray(im.resize(to[::-1], Image.Resampling.LANCZOS, box=box))
    return y[..., None] if y.ndim == 2 else y
