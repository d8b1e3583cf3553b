"""What a tile goes through, on the weights of a frozen model: pure functions of
(model, variables, ...), which Runtime compiles. Layout: one picture, [1, ...].
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from aejax.codec import container
from aejax.codec.entropy import MAX_SYMBOL
from aejax.codec.nets import Codec
from aejax.codec.passes import by_colour, chequer, in_order
from aejax.nets.applied import applied
from aejax.types import Variables

Latents = Float[Array, "1 h w k"]
Quality = Float[Array, "1"]


def as_quality(byte: int) -> np.ndarray:
    """float32 [1]: the quality 0 to 100 of the byte in the header."""
    return np.array([byte / 2.55], np.float32)


def unit(pixels: Any) -> Any:
    """uint8 or uint16 -> float32 in [0, 1]; floats as they are."""
    top = {np.dtype("uint8"): 255.0, np.dtype("uint16"): 65535.0}.get(pixels.dtype, 1.0)
    return pixels.astype(np.float32) / top


# --- pixels <-> latents ---------------------------------------------------------------------------


def analyse(
    model: Codec, variables: Variables, pixels: Num[Array, "1 H W 3"], quality: Quality
) -> Latents:
    """uint8, uint16 or float pixels, sides multiples of 16 -> y [1, H/16, W/16, k]."""
    cond = {"quality": quality}

    def run(m, x):
        return m.bottleneck.gained(m.f_E(x, cond), cond)

    return applied(model, variables, unit(pixels), method=run)


def synthesise(
    model: Codec, variables: Variables, y_hat: Latents, quality: Quality
) -> Float[Array, "1 H W 3"]:
    """y_hat -> float pixels, 16 times as many a side, not clipped."""
    cond = {"quality": quality}

    def run(m, y_hat):
        return m.f_D(m.bottleneck.ungained(y_hat, cond), cond)

    return applied(model, variables, y_hat, method=run)


def paint(
    model: Codec, variables: Variables, y_hat: Latents, quality: Quality, flags: int
) -> Int[Array, "1 H W *c"]:
    """y_hat -> samples as a file's flags have them: uint8 or uint16, [1, H, W, 3] or, gray,
    [1, H, W]."""
    x = jnp.clip(synthesise(model, variables, y_hat, quality), 0.0, 1.0)
    x = x.mean(-1) if flags & container.GRAY else x
    if flags & container.DEEP:
        return jnp.floor(x * 65535.0 + 0.5).astype(jnp.uint16)
    return jnp.floor(x * 255.0 + 0.5).astype(jnp.uint8)


# --- latents <-> symbols --------------------------------------------------------------------------


def hyper_symbols(
    model: Codec, variables: Variables, y: Latents, mask: Array, quality: Quality
) -> Int[Array, "h2 w2 z"]:
    """y of a padded tile -> symbols of z (z_hat - mean) on half the grid, int32.

    mask [h/2, w/2, 1] is 1 inside the tile.
    """
    cond = {"quality": quality}

    def run(m, y):
        mean, level = m.bottleneck.z_prior(cond)
        s = jnp.floor(m.bottleneck.hyper_analysis(y, cond) - mean + 0.5)
        s = jnp.clip(s, -MAX_SYMBOL, MAX_SYMBOL) * (level > 0)
        return s[0].astype(jnp.int32) * mask

    return applied(model, variables, y, method=run)


def begin(
    model: Codec,
    variables: Variables,
    z_symbols: Int[Array, "h2 w2 z"],
    mask: Array,
    quality: Quality,
) -> tuple[Float[Array, "1 h w f"], Float[Array, "1 1 1 k"]]:
    """Symbols of z -> (features, base levels) for the passes of a tile."""
    cond = {"quality": quality}

    def run(m, s):
        mean, _ = m.bottleneck.z_prior(cond)
        z_hat = (s.astype(jnp.float32) + mean) * mask
        shape = (2 * s.shape[0], 2 * s.shape[1])
        return m.bottleneck.hyper_synthesis(z_hat, shape, cond), m.bottleneck.base_levels(cond)

    return applied(model, variables, z_symbols, method=run)


def z_levels(model: Codec, variables: Variables, quality: Quality) -> Int[Array, " z"]:
    """Levels of z's channels, uint8."""

    def run(m):
        return m.bottleneck.z_prior({"quality": quality})[1][0, 0, 0].astype(jnp.uint8)

    return applied(model, variables, method=run)


def known(
    model: Codec, variables: Variables, features: Array, earlier: Sequence[Latents], i: int
) -> Array:
    """What both colours of slice i share; earlier: y_hat of the slices before it."""

    def run(m):
        return m.bottleneck.known(i, features, earlier)

    return applied(model, variables, method=run)


def levels(
    model: Codec, variables: Variables, shared: Array, base: Array, own: Latents | None, i: int
) -> tuple[Latents, Int[Array, "h w k"]]:
    """(mu, level uint8) of slice i; own: y_hat of its first colour, or None while that is coded."""

    def run(m):
        start = sum(model.slices[:i])
        part = base[..., start : start + model.slices[i]]
        mu, level = m.bottleneck.parameters(i, shared, part, own)
        return mu, level[0].astype(jnp.uint8)

    return applied(model, variables, method=run)


def symbols_of(
    model: Codec, variables: Variables, y: Latents, features: Array, base: Array, mask: Array
) -> tuple[Int[Array, "h w k"], Int[Array, "h w k"], Latents]:
    """The encoder's side of all passes at once: y -> (symbols int32, levels uint8, y_hat).

    mask [h, w, 1] is 1 inside the tile.
    """
    first = chequer(*y.shape[1:3]) * mask
    colours = first, mask - first
    of_passes: list[tuple[Array, Array]] = []  # (symbols, levels)

    def rounded(i, channels, colour, mu, level):
        s = jnp.floor(y[..., channels] - mu + 0.5)
        s = jnp.clip(s, -MAX_SYMBOL, MAX_SYMBOL) * (level > 0) * colours[colour]
        of_passes.append((s[0], level))
        return s

    y_hat = in_order(
        model.slices,
        colours,
        lambda i, earlier: known(model, variables, features, earlier, i),
        lambda i, channels, shared, own: levels(model, variables, shared, base, own, i),
        rounded,
    )
    s, level = by_colour(first, of_passes)
    return s.astype(jnp.int32), level, jnp.concatenate(y_hat, axis=-1)
