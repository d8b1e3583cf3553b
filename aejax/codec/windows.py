"""Where the transforms and the entropy model compute: windows of a few fixed shapes, in latents.

Photographs of any size are then compiled for once, and large ones need little memory. A tile of at
most 96x96 latents is padded with zeros to one of these shapes for the entropy model; that padding
is part of the format, as it has an effect on the levels.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

SHAPES = (4, 8, 16, 32, 48, 64, 80, 96)  # sides of a padded tile
# Large images pass the transforms in cores smaller than a tile: a window of a whole one takes
# 240 MB of temporaries, and malloc keeps several of them.
CORE = (48, 96)
# Latents around a core that its window holds too. The transforms that ship see 6 and 4, but what
# the outer ones do is small: at most 0.002 of a grey level of 256, and 0.0007 of a latent's step.
HALO = 3

Tile = tuple[int, int, int, int]  # (top, left, height, width)
Side = tuple[int, int]  # (first, length)


def fit(n: int, sides: tuple[int, ...]) -> int:
    """The smallest side that holds n."""
    return next(s for s in sides if s >= n)


def reach(blocks: Sequence[int]) -> int:
    """Latents around a core that a transform of so many blocks (at 1/8, at 1/16) is shown: half of
    one for a block at 1/8, one for a block at 1/16, but at most HALO."""
    return min(math.ceil(blocks[0] / 2 + blocks[1]), HALO)


def window(start: int, size: int, total: int, halo: int, core: int) -> Side:
    """(first, length) of the window that a side of a core needs: the whole side if that is one
    shape; else the core and its halo, moved to lie inside."""
    if total <= SHAPES[-1]:
        return 0, fit(total, SHAPES)
    first, last = max(start - halo, 0), min(start + size + halo, total)
    whole = core + 2 * halo
    length = fit(last - first, (*(s for s in SHAPES if s < whole), whole))
    return min(first, total - length), length


def cores(tile: Tile, grid: tuple[int, int], halo: int) -> Iterator[tuple[Tile, tuple[Side, Side]]]:
    """The cores in which a tile passes a transform, each with its window: (rows, columns).

    Args:
      grid: latents per column and per row of the whole image.
      halo: latents around a core that the transform is shown too.
    """
    i, j, h, w = tile
    rows, cols = (c if total > SHAPES[-1] else total for c, total in zip(CORE, grid, strict=True))
    for a in range(i, i + h, rows):
        for b in range(j, j + w, cols):
            high, wide = min(rows, i + h - a), min(cols, j + w - b)
            down, right = window(a, high, grid[0], halo, rows), window(b, wide, grid[1], halo, cols)
            yield (a, b, high, wide), (down, right)


def colours(h: int, w: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of each colour of an h x w chequerboard in a grid that is `row` wide, flattened:
    two arrays of indices."""
    at = np.arange(h)[:, None] * row + np.arange(w)
    odd = (np.arange(h)[:, None] + np.arange(w)) % 2 == 1
    return at[~odd], at[odd]


def half(h: int, w: int) -> tuple[int, int]:
    """The size of z for a y of h x w."""
    return -(-h // 2), -(-w // 2)


def padded(h: int, w: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """The tile in which an h x w one is computed: (its shape, mask of y [*shape, 1] float32, mask
    of z [*shape / 2, 1] int32); masks are 1 inside the h x w one."""
    shape = fit(h, SHAPES), fit(w, SHAPES)
    mask = np.zeros((*shape, 1), np.float32)
    mask[:h, :w] = 1
    z_mask = np.zeros((shape[0] // 2, shape[1] // 2, 1), np.int32)
    zh, zw = half(h, w)
    z_mask[:zh, :zw] = 1
    return shape, mask, z_mask
