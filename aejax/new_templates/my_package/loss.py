"""Losses (x, y) -> [b]. The contract is aejax.contracts.Loss."""

import jax.numpy as jnp


def edges(x, y):
    """Mean squared error of the differences between neighbouring pixels."""
    d = x - y
    rows, columns = jnp.diff(d, axis=1), jnp.diff(d, axis=2)
    return jnp.mean(rows**2, (1, 2, 3)) + jnp.mean(columns**2, (1, 2, 3))
