"""Metrics (x, y) -> [b], y clipped to [0, 1]. The contract is aejax.contracts.Metric."""

import jax.numpy as jnp


def worst_pixel(x, y):
    """The largest absolute error of a pixel, on the scale 0 to 255; smaller is better."""
    return 255 * jnp.max(jnp.abs(x - y), axis=(1, 2, 3))
