"""Levels of corruptions: a number, a range from which each example draws, or an array."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.errors import UserError

Level = float | tuple[float, float] | Array
Images = Float[Array, "b h w c"]


def level(key: Array, value: Level, b: int) -> Float[Array, " b"]:
    """One level per example, [b].

    Args:
      value: a number (repeated), a pair (low, high) (drawn uniformly), or an array [b].

    Raises:
      UserError: a pair with low > high, or not two numbers.
    """
    if isinstance(value, (tuple, list)):
        if len(value) != 2 or not value[0] <= value[1]:
            raise UserError(f"corrupt: {tuple(value)} is not a range; give (low, high)")
        return jax.random.uniform(key, (b,), minval=float(value[0]), maxval=float(value[1]))
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (b,))


def drawn(key: Array, value: Level, x: Images) -> tuple[Array, Float[Array, "b 1 1 1"]]:
    """(key for the noise, level of each example, which broadcasts to x)."""
    key, sub = jax.random.split(key)
    return key, level(sub, value, x.shape[0])[:, None, None, None]
