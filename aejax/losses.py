"""Distortion losses: (x, y), both [b, h, w, c], -> one value per image [b].

They are means over pixels and channels, so that a loss does not depend on the image size. The
likelihoods of generation, which need sums, are in `aejax.generation.likelihood`.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.metrics import image
from aejax.registry import lookup

Images = Float[Array, "b h w c"]
PerImage = Float[Array, " b"]
Loss = Callable[[Images, Images], PerImage]

mse = image.mse


def mae(x: Images, y: Images) -> PerImage:
    """Mean absolute error."""
    return jnp.mean(jnp.abs(x - y), axis=(1, 2, 3))


def bce(x: Images, y: Images) -> PerImage:
    """Binary cross-entropy in nats per pixel; x and y are probabilities in [0, 1].

    y is clipped to [1e-6, 1 - 1e-6] with a straight-through gradient, so that an f_D without a
    sigmoid still gets a gradient where its output is outside the interval.
    """
    y = y + jax.lax.stop_gradient(jnp.clip(y, 1e-6, 1 - 1e-6) - y)
    return -jnp.mean(x * jnp.log(y) + (1 - x) * jnp.log1p(-y), axis=(1, 2, 3))


def charbonnier(x: Images, y: Images) -> PerImage:
    """sqrt((x - y)^2 + 1e-3^2): MAE, smooth at zero (Charbonnier et al. 1994; Lai et al. 2017)."""
    return jnp.mean(jnp.sqrt(jnp.square(x - y) + 1e-6), axis=(1, 2, 3))


def ssim(x: Images, y: Images) -> PerImage:
    """1 - SSIM, in [0, 2]; see `aejax.metrics.image.ssim`."""
    return 1.0 - image.ssim(x, y)


def ms_ssim(x: Images, y: Images) -> PerImage:
    """1 - MS-SSIM, in [0, 1]; see `aejax.metrics.image.ms_ssim` for images below 176 pixels.

    It is not sensitive to a uniform shift, so that colours can drift when it is used alone. Zhao et
    al. 2017 (arXiv:1511.08861) add L1, here for example {"ms_ssim": 0.84, "mae": 0.16}.
    """
    return 1.0 - image.ms_ssim(x, y)


def mixture(weights: Mapping[str, float]) -> Loss:
    """The weighted sum of losses: `mixture({"mse": 1.0, "ssim": 0.1})`.

    A name is one of LOSSES or "package.module:function".

    Raises:
      UserError: unknown name, a weight that is not a number, or an empty mapping.

    >>> x = images / np.float32(255)
    >>> mixture({"mae": 1.0, "mse": 0.5})(x, 1 - x).shape
    (8,)
    """
    if not weights:
        raise UserError('the loss is empty; give at least one, for example {"mse": 1.0}')
    terms = []
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UserError(f'the weight of loss "{name}" must be a number, not {weight!r}')
        terms.append((float(weight), lookup(name, LOSSES, "loss")))

    def loss(x: Images, y: Images) -> PerImage:
        first, *others = (weight * term(x, y) for weight, term in terms)
        return sum(others, first)

    return loss


LOSSES = {
    "mse": mse,
    "mae": mae,
    "bce": bce,
    "charbonnier": charbonnier,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
}
