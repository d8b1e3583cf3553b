"""Quality, 0 to 100: its lambda, and the learned tables that depend on it.

One model serves all rates. `cond["quality"]` is rounded to steps of 1/2.55, since a file stores it
in one byte. A table has a row at nine qualities; rows in between are interpolated linearly.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

KNOTS = 9  # rows of a table, 32 steps of the byte apart
RATES = (0.0009, 0.15)  # lambda at quality 0 and 100, in bpp + lambda * MSE with pixels in 0..255


def quality_byte(quality: Float[Array, " b"]) -> Float[Array, " b"]:
    """Quality 0..100 -> the integer 0..255 that the file stores, as float."""
    return jnp.clip(jnp.floor(quality * 2.55 + 0.5), 0, 255)


def lagrangian(quality: Float[Array, " b"], rates: Sequence[float] = RATES) -> Float[Array, " b"]:
    """lambda of a quality, log-linear from `rates[0]` at quality 0 to `rates[1]` at 100.

    >>> [round(float(v), 4) for v in lagrangian(jnp.array([0.0, 100.0]))]
    [0.0009, 0.15]
    """
    t = quality_byte(quality) / 255.0
    return rates[0] * (rates[1] / rates[0]) ** t


def at_quality(table: Float[Array, "k c"], quality: Float[Array, " b"]) -> Float[Array, "b 1 1 c"]:
    """The rows of a table [KNOTS, c] at the qualities [b], interpolated linearly.

    Exact if the table holds integers below 2^18 times a power of two: the interpolation weights are
    multiples of 1/32, and the sum is elementwise in float32, not a matrix product in lower
    precision.
    """
    t = quality_byte(quality) / 32.0
    w = jnp.maximum(0.0, 1.0 - jnp.abs(t[:, None] - jnp.arange(KNOTS)))  # [b, k]
    return jnp.sum(w[:, :, None] * table, axis=1)[:, None, None]
