"""Pixel shuffle and unshuffle."""

from jaxtyping import Array, Float

from aejax.errors import UserError


def unshuffle(x: Float[Array, "b h w c"], r: int) -> Float[Array, "b h/r w/r r*r*c"]:
    """Pixel unshuffle (space to depth): each r x r square becomes one pixel of r*r*c channels.

    Raises:
      UserError: h or w is not a multiple of r.

    >>> unshuffle(np.zeros((1, 4, 6, 3)), 2).shape
    (1, 2, 3, 12)
    """
    b, h, w, c = x.shape
    if h % r or w % r:
        raise UserError(f"a picture of {h}x{w} does not divide into {r}x{r} squares; pad it first")
    x = x.reshape(b, h // r, r, w // r, r, c).swapaxes(2, 3)
    return x.reshape(b, h // r, w // r, r * r * c)


def shuffle(x: Float[Array, "b h w r*r*c"], r: int) -> Float[Array, "b h*r w*r c"]:
    """Pixel shuffle (depth to space; Shi et al., 2016, arXiv:1609.05158): the inverse of
    `unshuffle`.

    Raises:
      UserError: the number of channels is not a multiple of r*r.
    """
    b, h, w, c = x.shape
    if c % (r * r):
        raise UserError(f"{c} channels do not make {r}x{r} squares of pixels")
    x = x.reshape(b, h, w, r, r, c // (r * r)).swapaxes(2, 3)
    return x.reshape(b, h * r, w * r, c // (r * r))
