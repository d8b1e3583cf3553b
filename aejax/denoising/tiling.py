"""Images of any size through a network in bounded memory.

A tile is cut with a margin, at multiples of the network's stride, and only the inside is kept. With
a margin as wide as the network reaches the result is that of the whole picture at once, away from
the outer border and up to float rounding. All tiles have one shape, so there is one compilation
whatever the photo.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

# Sides of small images are mirrored up to the next of these, or to the tile: a new shape costs
# seconds of compilation, more than the pixels added.
SIDES = (64, 128, 256, 384, 512, 768)


class Tile(NamedTuple):
    """A window [y0, y1) x [x0, x1) to be computed, of which [ky0, ky1) x [kx0, kx1) is kept."""

    y0: int
    y1: int
    x0: int
    x1: int
    ky0: int
    ky1: int
    kx0: int
    kx1: int


def _axis(n: int, tile: int, margin: int, stride: int) -> list[tuple[int, int, int, int]]:
    """(from, to, keep from, keep to) of the windows along one axis of n pixels."""
    if n <= tile:
        return [(0, n, 0, n)]
    step = (tile - 2 * margin) // stride * stride
    windows, kept, start = [], 0, 0
    while True:
        start = min(start, n - tile)
        last = start + tile >= n
        to = n if last else start + tile - margin
        windows.append((start, start + tile, kept, to))
        if last:
            return windows
        kept, start = to, start + step


def tiles(h: int, w: int, tile: int, margin: int, stride: int) -> Iterator[Tile]:
    """Windows of side `tile` that cover h x w (both multiples of `stride`), each pixel kept once.

    Windows start at multiples of `stride`; at the image's own border there is no margin.
    """
    if tile % stride or tile <= 2 * margin:
        raise ValueError(f"tile {tile}: a multiple of {stride} above {2 * margin}")
    for y0, y1, ky0, ky1 in _axis(h, tile, margin, stride):
        for x0, x1, kx0, kx1 in _axis(w, tile, margin, stride):
            yield Tile(y0, y1, x0, x1, ky0, ky1, kx0, kx1)


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _side(n: int, tile: int, stride: int) -> int:
    """What n pixels are mirrored up to."""
    if n > tile:
        return _up(n, stride)
    return min(s for s in (*(_up(s, stride) for s in SIDES), tile) if n <= s)


def tiled(
    f: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    *,
    tile: int,
    margin: int,
    stride: int,
    progress: Callable[[float], None] = lambda done: None,
) -> np.ndarray:
    """f over an image [h, w, c] of any size, window by window.

    Args:
      f: [h', w', c] -> [h', w', c] for sides among SIDES, rounded up to multiples of `stride`, and
        `tile` itself.
      tile: side of a window in pixels; what bounds the memory.
      margin: pixels of context around what is kept; the network's reach for an exact result.
      progress: called with the share of windows done.
    """
    h, w = x.shape[:2]
    margin = _up(margin, stride)
    tile = max(tile // stride * stride, 2 * margin + stride, _up(SIDES[0], stride))
    pads = [(0, _side(n, tile, stride) - n) for n in (h, w)]
    padded = np.pad(x, (*pads, (0, 0)), mode="symmetric") if any(p for _, p in pads) else x
    windows = list(tiles(padded.shape[0], padded.shape[1], tile, margin, stride))
    if len(windows) == 1:
        y = np.asarray(f(padded))
        progress(1.0)
        return y[:h, :w]
    y = np.empty(padded.shape, np.float32)
    for done, t in enumerate(windows):
        part = np.asarray(f(np.ascontiguousarray(padded[t.y0 : t.y1, t.x0 : t.x1])))
        y[t.ky0 : t.ky1, t.kx0 : t.kx1] = part[
            t.ky0 - t.y0 : t.ky1 - t.y0, t.kx0 - t.x0 : t.kx1 - t.x0
        ]
        progress((done + 1) / len(windows))
    return y[:h, :w]
