"""How strong: a number, a range from which each example draws, or an array."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.errors import UserError

Level = float | tuple[float, float] | Array
Images = Float[Array, "b h w c"]


def level(key: Array, value: Level, b: int) -> Float[Array, " b"]:
    """One level per example: a number is repeated, a pair (low, high) drawn, an array kept."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2 or not value[0] <= value[1]:
            raise UserError(f"corrupt: {tuple(value)} is no range; give (low, high)")
        return jax.random.uniform(key, (b,), minval=float(value[0]), maxval=float(value[1]))
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (b,))


def drawn(key: Array, value: Level, x: Images) -> tuple[Array, Float[Array, "b 1 1 1"]]:
    """(the key that is left for the noise, the level of each example, ready to broadcast)."""
    key, sub = jax.random.split(key)
    return key, level(sub, value, x.shape[0])[:, None, None, None]
