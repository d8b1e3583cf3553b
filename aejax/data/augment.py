"""Crops, flips and quarter turns of a batch, inside the step.

Which crop and which turn is drawn on the host (pipeline.Draws), as a function of the seed and the
example's place in the run: cut from a memory map, by a decoding process or on the device, on any
number of devices, it is the same crop.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, UInt8


def gather(images: UInt8[Array, "n h w c"], row: Int[Array, " b"]) -> UInt8[Array, "b h w c"]:
    """Rows of a set that lives on the device."""
    return jnp.take(images, row, axis=0, mode="clip")


def gather_crops(
    images: UInt8[Array, "n h w c"],
    row: Int[Array, " b"],
    corner: Int[Array, "b 2"],
    side: int,
) -> UInt8[Array, "b side side c"]:
    """Squares of a set that lives on the device, without gathering whole images first."""

    def one(i, at):
        start = (i, at[0], at[1], jnp.zeros_like(i))
        return lax.dynamic_slice(images, start, (1, side, side, images.shape[3]))[0]

    return jax.vmap(one)(row, corner)


def orient(x: Array, code: Int[Array, " b"]) -> Array:
    """Turns and mirrors each image [h, w, c] of a batch by its code 0 to 7: 4 transposes, then 2
    flips top to bottom and 1 flips left to right. So 0, 5, 3, 6 are the quarter turns.

    Raises:
      ValueError: the images are not square and so cannot be transposed.
    """
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"only square images are turned, not {x.shape[1]} x {x.shape[2]}")
    code = code[:, None, None, None]
    x = jnp.where(code & 4, x.swapaxes(1, 2), x)
    x = jnp.where(code & 2, x[:, ::-1], x)
    return mirror(x, code[:, 0, 0, 0] & 1)


def mirror(x: Array, yes: Int[Array, " b"]) -> Array:
    """Flips images [b, h, w, c] left to right where `yes`."""
    return jnp.where(yes[:, None, None, None] != 0, x[:, :, ::-1], x)
