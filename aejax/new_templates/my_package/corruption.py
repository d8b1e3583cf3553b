"""Corruptions (key, x, **levels) -> x_tilde. The contract is aejax.contracts.Corruption."""

import jax
import jax.numpy as jnp

from aejax.corrupt import level


def lighting(key, x, strength=0.2):
    """Adds a linear gradient of brightness in a random direction.

    `strength` is the change of brightness at the border: a number, or (low, high) to draw one per
    image.
    """
    angle_key, level_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, (x.shape[0], 1, 1, 1), maxval=2 * jnp.pi)
    rows = jnp.linspace(-1, 1, x.shape[1])[None, :, None, None]
    columns = jnp.linspace(-1, 1, x.shape[2])[None, None, :, None]
    slope = rows * jnp.cos(angle) + columns * jnp.sin(angle)
    return x + level(level_key, strength, x.shape[0])[:, None, None, None] * slope
