"""The order in which the latents of a tile are coded. Training, encoder and decoder all use it.

The channels of y are cut into slices (Minnen and Singh 2020, arXiv 2007.08739) and its positions
into the two colours of a checkerboard (He et al. 2021, arXiv 2103.15306). Each of the
2 * len(slices) passes is predicted from y_hat of all earlier passes.

    slice 0, colour 0 -> slice 0, colour 1 -> slice 1, colour 0 -> ...

A file has one scan for each slice: both its colours, and in the first scan the symbols of z before
them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

COLOURS = 2


def checkerboard(h: int, w: int) -> Float[Array, "h w 1"]:
    """1 at the positions of colour 0 (even row + column), else 0.

    >>> checkerboard(2, 3)[..., 0].tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    return 1.0 - ((jnp.arange(h)[:, None] + jnp.arange(w)) % 2)[..., None].astype(jnp.float32)


def pass_order(slices: Sequence[int]) -> Iterator[tuple[int, slice, int]]:
    """(slice number, its channels, colour) of each pass.

    Args:
      slices: channels of each slice.

    >>> [(i, channels.start, colour) for i, channels, colour in pass_order([8, 16])]
    [(0, 0, 0), (0, 0, 1), (1, 8, 0), (1, 8, 1)]
    """
    start = 0
    for i, size in enumerate(slices):
        for colour in range(COLOURS):
            yield i, slice(start, start + size), colour
        start += size


def add_colour(
    y_hat: Float[Array, "1 h w c"] | None,
    mu: Float[Array, "1 h w c"],
    symbols: Array | np.ndarray,
    mask: Array | np.ndarray,
) -> Float[Array, "1 h w c"]:
    """y_hat of a slice with the positions of one more colour filled in.

    Args:
      y_hat: of the slice so far, zero at positions not coded yet; None before colour 0.
      symbols: [1, h, w, c] or [h w, c]; values outside the mask are ignored.
      mask: 1 at the positions of the colour.
    """
    values = (jnp.asarray(symbols).reshape(mu.shape).astype(jnp.float32) + mu) * mask
    return values if y_hat is None else y_hat + values


def merge_colours(
    colour0: Float[Array, "h w 1"], passes: Sequence[Sequence[Array]]
) -> tuple[Float[Array, "b h w k"], ...]:
    """Arrays of single passes as arrays of all channels and positions.

    Args:
      colour0: `checkerboard`.
      passes: of each pass some arrays [b, h, w, c], such as (mu, level).

    Returns:
      As many arrays [b, h, w, k]: at each position the value of the pass that codes it.
    """
    slices = []
    for i in range(0, len(passes), COLOURS):
        pairs = zip(passes[i], passes[i + 1], strict=True)
        slices.append([jnp.where(colour0 > 0, a, b) for a, b in pairs])
    return tuple(jnp.concatenate(maps, axis=-1) for maps in zip(*slices, strict=True))


def code_passes(
    slices: Sequence[int],
    masks: Sequence[Array | np.ndarray],
    shared_of: Callable[[int, tuple[Array, ...]], Array],
    parameters: Callable[[int, slice, Array, Array | None], tuple[Array, Array]],
    symbols_of: Callable[[int, slice, int, Array, Array], Array | np.ndarray],
    add: Callable[..., Array] = add_colour,
) -> list[Float[Array, "b h w c"]]:
    """Runs all passes in order; returns y_hat of each slice.

    Args:
      masks: for each colour, 1 at its positions, else 0.
      shared_of: (slice, y_hat of the earlier slices) -> what both of its colours share.
      parameters: (slice, channels, shared, y_hat of colour 0 or None) -> (mu, level).
      symbols_of: (slice, channels, colour, mu, level) -> the symbols of the pass, integers: rounded
        latents in training and in the encoder, read from the file in the decoder.
      add: `add_colour`, or the same function compiled.
    """
    y_hat: list[Array] = []
    shared: Any = None
    current: Array | None = None
    for i, channels, colour in pass_order(slices):
        if colour == 0:
            shared, current = shared_of(i, tuple(y_hat)), None
        mu, level = parameters(i, channels, shared, current)
        symbols = symbols_of(i, channels, colour, mu, level)
        current = add(current, mu, symbols, masks[colour])
        if colour == COLOURS - 1:
            y_hat.append(current)
    return y_hat
