"""Windows of a few fixed shapes, in latents, in which the transforms and the entropy model compute.

Fixed shapes mean few compilations for images of any size, and bounded memory for large ones. For
the entropy model, a tile of at most 96x96 latents is padded with zeros to one of the shapes. That
padding is part of the format, because it affects the levels.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

SHAPES = (4, 8, 16, 32, 48, 64, 80, 96)  # sides of a padded tile
# In large images the transforms compute a core of this size at a time, which is smaller than a
# tile: a window of a whole tile needs 240 MB of temporaries, and malloc keeps several of them.
CORE = (48, 96)
# Latents around a core that its window includes, at most. The receptive fields of the shipped
# transforms reach 6 and 4 latents, but cutting them off at 3 changes the result by at most 0.002 of
# 255 gray levels, and by 0.0007 quantisation steps of a latent.
HALO = 3

Tile = tuple[int, int, int, int]  # (top, left, height, width)
Side = tuple[int, int]  # (first, length) of rows or columns


def fit(n: int, sides: tuple[int, ...]) -> int:
    """The smallest of `sides` that is at least n.

    >>> fit(20, SHAPES)
    32
    """
    return next(s for s in sides if s >= n)


def halo_of(blocks: Sequence[int]) -> int:
    """Latents around a core that the window of a transform includes: its receptive field, but at
    most HALO. A block at 1/8 of the resolution reaches half a latent, one at 1/16 a whole one.

    Args:
      blocks: number of blocks at 1/8 and at 1/16.
    """
    return min(math.ceil(blocks[0] / 2 + blocks[1]), HALO)


def window(start: int, size: int, total: int, halo: int, core: int) -> Side:
    """(first, length) of the window around a core, in one direction.

    If the image fits into one of SHAPES, the window is the whole image; else the core and its halo,
    shifted to lie inside the image.

    Args:
      start, size: of this core.
      total: latents of the image.
      core: size of a core that is not at the border of a tile.
    """
    if total <= SHAPES[-1]:
        return 0, fit(total, SHAPES)
    first, last = max(start - halo, 0), min(start + size + halo, total)
    largest = core + 2 * halo
    length = fit(last - first, (*(s for s in SHAPES if s < largest), largest))
    return min(first, total - length), length


def cores(tile: Tile, grid: tuple[int, int], halo: int) -> Iterator[tuple[Tile, tuple[Side, Side]]]:
    """The cores of a tile, each with its window (rows, columns).

    Args:
      grid: height and width of the image in latents.
      halo: see `halo_of`.
    """
    i, j, h, w = tile
    rows, cols = (c if total > SHAPES[-1] else total for c, total in zip(CORE, grid, strict=True))
    for top in range(i, i + h, rows):
        for left in range(j, j + w, cols):
            height, width = min(rows, i + h - top), min(cols, j + w - left)
            down = window(top, height, grid[0], halo, rows)
            across = window(left, width, grid[1], halo, cols)
            yield (top, left, height, width), (down, across)


def colour_indices(h: int, w: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of each colour of an h x w checkerboard, as indices into a flattened array of
    rows of length `row`.

    >>> [indices.tolist() for indices in colour_indices(2, 2, 8)]
    [[0, 9], [1, 8]]
    """
    index = np.arange(h)[:, None] * row + np.arange(w)
    is_odd = (np.arange(h)[:, None] + np.arange(w)) % 2 == 1
    return index[~is_odd], index[is_odd]


def hyper_size(h: int, w: int) -> tuple[int, int]:
    """Height and width of z for a y of h x w."""
    return -(-h // 2), -(-w // 2)


def padded_tile(h: int, w: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """The shape to which a tile of h x w latents is padded, and its masks.

    Returns:
      (shape, mask of y [*shape, 1] float32, mask of z [*shape / 2, 1] int32); masks are 1 inside
      the tile, 0 in the padding.
    """
    shape = fit(h, SHAPES), fit(w, SHAPES)
    mask = np.zeros((*shape, 1), np.float32)
    mask[:h, :w] = 1
    z_mask = np.zeros((shape[0] // 2, shape[1] // 2, 1), np.int32)
    zh, zw = hyper_size(h, w)
    z_mask[:zh, :zw] = 1
    return shape, mask, z_mask
