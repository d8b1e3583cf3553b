"""Runs a network on images of any size in bounded memory, tile by tile.

Tiles start at multiples of the network's stride and overlap; a margin of each is discarded. If the
margin is at least the radius of the receptive field, the result equals that of the whole image,
away from its border and up to float rounding. All tiles have the same shape, so the network is
compiled once for all large images.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

# The sides of small images are padded (mirrored) to the next of these, or to the tile: compiling
# for a new shape takes seconds, longer than computing the additional pixels.
SIDES = (64, 128, 256, 384, 512, 768)


class Tile(NamedTuple):
    """A tile [y0, y1) x [x0, x1), of whose output [ky0, ky1) x [kx0, kx1) is kept (coordinates of
    the image)."""

    y0: int
    y1: int
    x0: int
    x1: int
    ky0: int
    ky1: int
    kx0: int
    kx1: int


def _axis(n: int, tile: int, margin: int, stride: int) -> list[tuple[int, int, int, int]]:
    """(start, end, start of the kept part, its end) of the tiles along an axis of n pixels."""
    if n <= tile:
        return [(0, n, 0, n)]
    step = (tile - 2 * margin) // stride * stride
    intervals, keep_start, start = [], 0, 0
    while True:
        start = min(start, n - tile)
        last = start + tile >= n
        keep_end = n if last else start + tile - margin
        intervals.append((start, start + tile, keep_start, keep_end))
        if last:
            return intervals
        keep_start, start = keep_end, start + step


def tiles(h: int, w: int, tile: int, margin: int, stride: int) -> Iterator[Tile]:
    """Tiles that cover h x w pixels (both multiples of `stride`); each pixel is kept once.

    Args:
      tile: side of a tile in pixels, a multiple of `stride`.
      margin: discarded pixels at each side of a tile, except at the border of the image.
      stride: tiles start at multiples of it.

    Raises:
      ValueError: `tile` is no multiple of `stride` or not larger than 2 * margin.
    """
    if tile % stride or tile <= 2 * margin:
        raise ValueError(f"tile = {tile} is not a multiple of {stride} above {2 * margin}")
    for y0, y1, ky0, ky1 in _axis(h, tile, margin, stride):
        for x0, x1, kx0, kx1 in _axis(w, tile, margin, stride):
            yield Tile(y0, y1, x0, x1, ky0, ky1, kx0, kx1)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _padded_side(n: int, tile: int, stride: int) -> int:
    """The length that an axis of n pixels is padded to."""
    if n > tile:
        return _round_up(n, stride)
    return min(s for s in (*(_round_up(s, stride) for s in SIDES), tile) if n <= s)


def tiled(
    f: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    *,
    tile: int,
    margin: int,
    stride: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """f applied to an image [h, w, c] of any size, tile by tile.

    Args:
      f: [h', w', c] -> [h', w', c] for sides among SIDES, rounded up to multiples of `stride`, and
        `tile` itself.
      tile: side of a tile in pixels, which bounds the memory.
      margin: pixels discarded at each side of a tile; the result is exact if it is at least the
        radius of the receptive field.
      stride: of the network, in pixels.
      progress: called with the completed fraction of the tiles, 0 to 1.

    >>> x = np.random.default_rng(0).random((100, 150, 3), np.float32)
    >>> y = aejax.denoising.tiling.tiled(lambda part: 2 * part, x, tile=64, margin=8, stride=4)
    >>> bool((y == 2 * x).all())
    True
    """
    h, w = x.shape[:2]
    margin = _round_up(margin, stride)
    tile = max(tile // stride * stride, 2 * margin + stride, _round_up(SIDES[0], stride))
    pads = [(0, _padded_side(n, tile, stride) - n) for n in (h, w)]
    padded = np.pad(x, (*pads, (0, 0)), mode="symmetric") if any(p for _, p in pads) else x
    parts = list(tiles(padded.shape[0], padded.shape[1], tile, margin, stride))
    if len(parts) == 1:
        y = np.asarray(f(padded))
        progress(1.0)
        return y[:h, :w]
    y = np.empty(padded.shape, np.float32)
    for i, t in enumerate(parts):
        out = np.asarray(f(np.ascontiguousarray(padded[t.y0 : t.y1, t.x0 : t.x1])))
        y[t.ky0 : t.ky1, t.kx0 : t.kx1] = out[
            t.ky0 - t.y0 : t.ky1 - t.y0, t.kx0 - t.x0 : t.kx1 - t.x0
        ]
        progress((i + 1) / len(parts))
    return y[:h, :w]
