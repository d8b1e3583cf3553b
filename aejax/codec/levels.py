"""The 64 scale levels: each stands for a standard deviation, and for a table of probabilities."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEVELS = 64  # scale levels = probability tables
SIGMA_MIN, SIGMA_MAX = 0.08, 320.0  # standard deviations of the first and the last, in symbols
LOG_STEP = math.log(SIGMA_MAX / SIGMA_MIN) / (LEVELS - 1)


def log_deviation(level: Any) -> Any:
    """log sigma of a scale level, sigma in symbols; a number or an array of them."""
    return math.log(SIGMA_MIN) + LOG_STEP * level


def logistic_bits(v: Float[Array, "..."], log_sigma: Float[Array, "..."]) -> Float[Array, "..."]:
    """Bits of v: -log2 of the probability that a logistic variable of mean zero and of standard
    deviation exp(log_sigma) falls within 1/2 of v.

    In log space throughout: a difference of two float32 distribution functions is zero in the
    tails, and a floor under it has no gradient.
    """
    inverse = jnp.exp(-log_sigma) * (math.pi / math.sqrt(3.0))
    a, b = (jnp.abs(v) - 0.5) * inverse, (jnp.abs(v) + 0.5) * inverse
    log_p = -jax.nn.softplus(a) - jax.nn.softplus(-b) + jnp.log(-jnp.expm1(a - b))
    return log_p * (-1.0 / math.log(2.0))
