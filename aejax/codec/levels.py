"""The 64 scale levels (CompressAI's `scale_table`): standard deviations in equal ratios, each with
a probability table of its own."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEVELS = 64
SIGMA_MIN, SIGMA_MAX = 0.08, 320.0  # standard deviations of the first and last level, in symbols
LOG_STEP = math.log(SIGMA_MAX / SIGMA_MIN) / (LEVELS - 1)


def log_deviation(level: Any) -> Any:
    """log sigma of a scale level (a number or an array); sigma in symbols.

    >>> round(math.exp(log_deviation(63)), 6)
    320.0
    """
    return math.log(SIGMA_MIN) + LOG_STEP * level


def logistic_bits(v: Float[Array, "..."], log_sigma: Float[Array, "..."]) -> Float[Array, "..."]:
    """-log2 P(v - 1/2 < X < v + 1/2) for a logistic X of mean 0 and standard deviation
    exp(log_sigma): the bits of symbol v.

    Computed in log space: a difference of two float32 CDFs underflows to zero in the tails, and
    clamping it from below would remove the gradient there.
    """
    inverse = jnp.exp(-log_sigma) * (math.pi / math.sqrt(3.0))
    a, b = (jnp.abs(v) - 0.5) * inverse, (jnp.abs(v) + 0.5) * inverse
    log_p = -jax.nn.softplus(a) - jax.nn.softplus(-b) + jnp.log(-jnp.expm1(a - b))
    return log_p * (-1.0 / math.log(2.0))
