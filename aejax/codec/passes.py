"""The order in which the latents of a tile are coded, written once for training, writing, reading.

The channels of y are cut into slices, and the grid into the two colours of a chequerboard: each of
the 2 * len(slices) passes knows y_hat of all earlier ones (Minnen and Singh 2020, arXiv 2007.08739;
He et al. 2021, arXiv 2103.15306).

    slice 0, colour 0 -> slice 0, colour 1 -> slice 1, colour 0 -> ...

A file has one scan for each slice: the symbols of z in front of the first, then both its colours.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

COLOURS = 2


def chequer(h: int, w: int) -> Float[Array, "h w 1"]:
    """1 on the first colour, which holds the corner, else 0."""
    return 1.0 - ((jnp.arange(h)[:, None] + jnp.arange(w)) % 2)[..., None].astype(jnp.float32)


def order(slices: Sequence[int]) -> Iterator[tuple[int, slice, int]]:
    """(number of the slice, its channels, colour) of each pass.

    >>> [(i, channels.start, colour) for i, channels, colour in order([8, 16])]
    [(0, 0, 0), (0, 0, 1), (1, 8, 0), (1, 8, 1)]
    """
    start = 0
    for i, size in enumerate(slices):
        for colour in range(COLOURS):
            yield i, slice(start, start + size), colour
        start += size


def settled(
    own: Float[Array, "1 h w c"] | None,
    mu: Float[Array, "1 h w c"],
    symbols: Array | np.ndarray,
    colour: Array | np.ndarray,
) -> Float[Array, "1 h w c"]:
    """y_hat of a slice with one more colour.

    Args:
      own: y_hat of the slice so far, zero where it is not known; None before its first colour.
      symbols: of this colour, [1, h, w, c] or [h w, c]; what is elsewhere is not used.
      colour: 1 where this colour is.
    """
    fresh = (jnp.asarray(symbols).reshape(mu.shape).astype(jnp.float32) + mu) * colour
    return fresh if own is None else own + fresh


def by_colour(
    first: Float[Array, "h w 1"], of_passes: Sequence[Sequence[Array]]
) -> tuple[Float[Array, "b h w k"], ...]:
    """What a pass has ([b, h, w, c] each, such as its mu and level), of all passes as whole maps:
    that of a slice's first pass where the first colour is, else that of its second."""
    slices = []
    for i in range(0, len(of_passes), COLOURS):
        pairs = zip(of_passes[i], of_passes[i + 1], strict=True)
        slices.append([jnp.where(first > 0, a, b) for a, b in pairs])
    return tuple(jnp.concatenate(maps, axis=-1) for maps in zip(*slices, strict=True))


def in_order(
    slices: Sequence[int],
    colours: Sequence[Array | np.ndarray],
    known: Callable[[int, tuple[Array, ...]], Array],
    parameters: Callable[[int, slice, Array, Array | None], tuple[Array, Array]],
    symbols_of: Callable[[int, slice, int, Array, Array], Array | np.ndarray],
    settle: Callable[..., Array] = settled,
) -> list[Float[Array, "b h w c"]]:
    """Goes through all passes; y_hat of each slice.

    Args:
      colours: 1 where the first colour is, 1 where the second is.
      known: (slice, y_hat of the earlier slices) -> what both of its colours share.
      parameters: (slice, channels, shared, y_hat of its first colour or None) -> (mu, level).
      symbols_of: (slice, channels, colour, mu, level) -> the symbols of the pass, whole numbers:
        rounded latents where a file is written, and what is read from it elsewhere.
      settle: `settled`, or the same compiled.
    """
    done: list[Array] = []
    shared: Any = None
    own: Array | None = None
    for i, channels, colour in order(slices):
        if colour == 0:
            shared, own = known(i, tuple(done)), None
        mu, level = parameters(i, channels, shared, own)
        symbols = symbols_of(i, channels, colour, mu, level)
        own = settle(own, mu, symbols, colours[colour])
        if colour == COLOURS - 1:
            done.append(own)
    return done
