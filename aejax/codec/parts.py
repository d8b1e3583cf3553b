"""The steps of coding a tile, as pure functions of (model, variables, ...) that Runtime compiles.
All take one tile, [1, ...].
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from aejax.codec import container
from aejax.codec.entropy import MAX_SYMBOL
from aejax.codec.nets import Codec
from aejax.codec.passes import checkerboard, code_passes, merge_colours
from aejax.nets.applied import applied
from aejax.types import Variables

Latents = Float[Array, "1 h w k"]
Quality = Float[Array, "1"]


def as_quality(byte: int) -> np.ndarray:
    """The quality byte of a header, 0 to 255, as a quality 0 to 100, float32 [1]."""
    return np.array([byte / 2.55], np.float32)


def to_float(pixels: Any) -> Any:
    """uint8 or uint16 -> float32 in [0, 1]; floats are returned as float32, not scaled."""
    white = {np.dtype("uint8"): 255.0, np.dtype("uint16"): 65535.0}.get(pixels.dtype, 1.0)
    return pixels.astype(np.float32) / white


# --- pixels <-> latents ---------------------------------------------------------------------------


def analyse(
    model: Codec, variables: Variables, pixels: Num[Array, "1 H W 3"], quality: Quality
) -> Latents:
    """Pixels (uint8, uint16, or float in [0, 1]), sides multiples of 16 -> y [1, H/16, W/16, k]."""
    cond = {"quality": quality}

    def run(m, x):
        return m.bottleneck.scaled(m.f_E(x, cond), cond)

    return applied(model, variables, to_float(pixels), method=run)


def synthesise(
    model: Codec, variables: Variables, y_hat: Latents, quality: Quality
) -> Float[Array, "1 H W 3"]:
    """y_hat [1, H/16, W/16, k] -> float pixels about in [0, 1], not clipped."""
    cond = {"quality": quality}

    def run(m, y_hat):
        return m.f_D(m.bottleneck.unscaled(y_hat, cond), cond)

    return applied(model, variables, y_hat, method=run)


def to_samples(
    model: Codec, variables: Variables, y_hat: Latents, quality: Quality, flags: int
) -> Int[Array, "1 H W *c"]:
    """y_hat -> samples of the type that a file's flags say: uint8 or uint16, [1, H, W, 3], or
    [1, H, W] if gray."""
    x = jnp.clip(synthesise(model, variables, y_hat, quality), 0.0, 1.0)
    x = x.mean(-1) if flags & container.GRAY else x
    if flags & container.DEEP:
        return jnp.floor(x * 65535.0 + 0.5).astype(jnp.uint16)
    return jnp.floor(x * 255.0 + 0.5).astype(jnp.uint8)


# --- latents <-> symbols --------------------------------------------------------------------------


def hyper_symbols(
    model: Codec, variables: Variables, y: Latents, mask: Array, quality: Quality
) -> Int[Array, "h2 w2 z"]:
    """y of a padded tile -> symbols of z (z_hat - mean), int32, at half the resolution.

    Args:
      mask: [h/2, w/2, 1], 1 inside the tile, 0 in the padding.
    """
    cond = {"quality": quality}

    def run(m, y):
        mean, level = m.bottleneck.z_prior(cond)
        s = jnp.floor(m.bottleneck.hyper_analysis(y, cond) - mean + 0.5)
        s = jnp.clip(s, -MAX_SYMBOL, MAX_SYMBOL) * (level > 0)
        return s[0].astype(jnp.int32) * mask

    return applied(model, variables, y, method=run)


def hyper_decode(
    model: Codec,
    variables: Variables,
    z_symbols: Int[Array, "h2 w2 z"],
    mask: Array,
    quality: Quality,
) -> tuple[Float[Array, "1 h w f"], Float[Array, "1 1 1 k"]]:
    """Symbols of z -> (features, base levels), which the passes of a tile start from.

    Args:
      mask: as of `hyper_symbols`.
    """
    cond = {"quality": quality}

    def run(m, s):
        mean, _ = m.bottleneck.z_prior(cond)
        z_hat = (s.astype(jnp.float32) + mean) * mask
        shape = (2 * s.shape[0], 2 * s.shape[1])
        return m.bottleneck.hyper_synthesis(z_hat, shape, cond), m.bottleneck.base_levels(cond)

    return applied(model, variables, z_symbols, method=run)


def z_levels(model: Codec, variables: Variables, quality: Quality) -> Int[Array, " z"]:
    """Levels of the channels of z, uint8."""

    def run(m):
        return m.bottleneck.z_prior({"quality": quality})[1][0, 0, 0].astype(jnp.uint8)

    return applied(model, variables, method=run)


def shared(
    model: Codec, variables: Variables, features: Array, earlier: Sequence[Latents], i: int
) -> Array:
    """What both colours of slice i share; earlier: y_hat of each slice before it."""

    def run(m):
        return m.bottleneck.shared(i, features, earlier)

    return applied(model, variables, method=run)


def slice_parameters(
    model: Codec, variables: Variables, shared: Array, base: Array, anchors: Latents | None, i: int
) -> tuple[Latents, Int[Array, "h w k"]]:
    """(mu, level uint8) of slice i.

    Args:
      base: base levels of all channels.
      anchors: y_hat of the slice at colour 0, or None to predict colour 0.
    """

    def run(m):
        start = sum(model.slices[:i])
        slice_base = base[..., start : start + model.slices[i]]
        mu, level = m.bottleneck.parameters(i, shared, slice_base, anchors)
        return mu, level[0].astype(jnp.uint8)

    return applied(model, variables, method=run)


def symbols_of(
    model: Codec, variables: Variables, y: Latents, features: Array, base: Array, mask: Array
) -> tuple[Int[Array, "h w k"], Int[Array, "h w k"], Latents]:
    """All passes of the encoder: y -> (symbols int32, levels uint8, y_hat).

    Args:
      features, base: of `hyper_decode`.
      mask: [h, w, 1], 1 inside the tile, 0 in the padding.
    """
    colour0 = checkerboard(*y.shape[1:3]) * mask
    masks = colour0, mask - colour0
    passes: list[tuple[Array, Array]] = []  # (symbols, levels)

    def rounded(i, channels, colour, mu, level):
        s = jnp.floor(y[..., channels] - mu + 0.5)
        s = jnp.clip(s, -MAX_SYMBOL, MAX_SYMBOL) * (level > 0) * masks[colour]
        passes.append((s[0], level))
        return s

    y_hat = code_passes(
        model.slices,
        masks,
        lambda i, earlier: shared(model, variables, features, earlier, i),
        lambda i, channels, shared, anchors: slice_parameters(
            model, variables, shared, base, anchors, i
        ),
        rounded,
    )
    s, level = merge_colours(colour0, passes)
    return s.astype(jnp.int32), level, jnp.concatenate(y_hat, axis=-1)
