"""Log densities and KL divergences of diagonal normal distributions, per coordinate, in nats.

All functions work elementwise on arrays of one shape. `logvar` is the logarithm of the variance.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def kl_normal(mean: Float[Array, "..."], logvar: Float[Array, "..."]) -> Float[Array, "..."]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each coordinate, in nats."""
    return 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)


def log_normal(
    z: Float[Array, "..."],
    mean: Float[Array, "..."] | float = 0.0,
    logvar: Float[Array, "..."] | float = 0.0,
) -> Float[Array, "..."]:
    """log N(z; mean, exp(logvar)) of each coordinate, in nats."""
    return -0.5 * (math.log(2 * math.pi) + logvar + jnp.square(z - mean) * jnp.exp(-logvar))


def kl_normals(
    mean: Float[Array, "..."],
    logvar: Float[Array, "..."],
    prior_mean: Float[Array, "..."],
    prior_logvar: Float[Array, "..."],
) -> Float[Array, "..."]:
    """KL(N(mean, exp(logvar)) || N(prior_mean, exp(prior_logvar))) of each coordinate, in nats."""
    return 0.5 * (prior_logvar - logvar - 1.0) + 0.5 * (
        jnp.exp(logvar) + jnp.square(mean - prior_mean)
    ) * jnp.exp(-prior_logvar)
