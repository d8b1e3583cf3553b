"""Quality, 0 to 100: what it means for the rate, and tables of numbers that depend on it.

One model serves all rates. `cond["quality"]` is used in steps of 1/2.55, as a file stores it in one
byte, and chooses each number of a table by linear interpolation between nine learned ones.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

KNOTS = 9  # quality nodes, 32 steps of the byte apart
RATES = (0.0009, 0.15)  # lambda of bpp + lambda * MSE on 0..255, at quality 0 and 100


def quality_byte(quality: Float[Array, " b"]) -> Float[Array, " b"]:
    """Quality 0..100 -> the whole number 0..255 that the file stores."""
    return jnp.clip(jnp.floor(quality * 2.55 + 0.5), 0, 255)


def lagrangian(quality: Float[Array, " b"], rates: Sequence[float] = RATES) -> Float[Array, " b"]:
    """lambda of a quality, log-spaced between the `rates` of quality 0 and 100.

    >>> [round(float(v), 4) for v in lagrangian(jnp.array([0.0, 100.0]))]
    [0.0009, 0.15]
    """
    t = quality_byte(quality) / 255.0
    return rates[0] * (rates[1] / rates[0]) ** t


def at_quality(table: Float[Array, "k c"], quality: Float[Array, " b"]) -> Float[Array, "b 1 1 c"]:
    """Linear interpolation between the nodes of a table.

    Exact if the nodes are integers below 2^18 times a power of two: the interpolation's weights are
    multiples of 1/32, and sums of products, not a product of matrices, are taken.
    """
    t = quality_byte(quality) / 32.0
    w = jnp.maximum(0.0, 1.0 - jnp.abs(t[:, None] - jnp.arange(KNOTS)))  # [b, k]
    return jnp.sum(w[:, :, None] * table, axis=1)[:, None, None]
