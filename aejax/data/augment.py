"""Crops, flips and quarter turns of a batch, inside the step.

The host draws which crop and which turn (draws.Draws), as a function of the seed and the position
of the example in the run. So the crop is the same whether it is cut from a memory map, by a
decoding process or on the device, and on any number of devices.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, UInt8


def gather(images: UInt8[Array, "n h w c"], row: Int[Array, " b"]) -> UInt8[Array, "b h w c"]:
    """The images of these rows, from a data set that is on the device."""
    return jnp.take(images, row, axis=0, mode="clip")


def gather_crops(
    images: UInt8[Array, "n h w c"],
    row: Int[Array, " b"],
    corner: Int[Array, "b 2"],
    side: int,
) -> UInt8[Array, "b side side c"]:
    """Square crops from a data set that is on the device, without gathering whole images first.

    Args:
      row: index of the image. corner: top and left of its crop, in pixels. side: in pixels.
    """

    def crop(i, top_left):
        start = (i, top_left[0], top_left[1], jnp.zeros_like(i))
        return lax.dynamic_slice(images, start, (1, side, side, images.shape[3]))[0]

    return jax.vmap(crop)(row, corner)


def orient(x: Array, code: Int[Array, " b"]) -> Array:
    """Turns and mirrors square images [b, h, w, c], each by its code 0 to 7.

    The bits of a code: 4 transposes, then 2 flips top to bottom and 1 flips left to right. So
    0, 5, 3, 6 are the quarter turns.

    Raises:
      ValueError: the images are not square.

    >>> x = jax.numpy.arange(4).reshape(1, 2, 2, 1)
    >>> orient(x, jax.numpy.array([5]))[0, :, :, 0].tolist()
    [[2, 0], [3, 1]]
    """
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"only square images are turned, not {x.shape[1]} x {x.shape[2]}")
    code = code[:, None, None, None]
    x = jnp.where(code & 4, x.swapaxes(1, 2), x)
    x = jnp.where(code & 2, x[:, ::-1], x)
    return mirror(x, code[:, 0, 0, 0] & 1)


def mirror(x: Array, flip: Int[Array, " b"]) -> Array:
    """Flips images [b, h, w, c] left to right where `flip` is not 0."""
    return jnp.where(flip[:, None, None, None] != 0, x[:, :, ::-1], x)
