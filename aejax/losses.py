"""Distortions: how far y is from x. Each maps (x, y), both [b, h, w, c], to one value per image.

Means over pixels and channels, so that a loss does not depend on the size of the image; the ELBO,
which needs sums, multiplies by h * w * c where it is written.
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

    y is held within 1e-6 of [0, 1] with the gradient passed through: an f_D without a sigmoid that
    has left the interval is pushed back instead of getting no gradient at all.
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

    Alone it hardly feels a uniform shift, so that colours drift, to yellow for example (Zhao et
    al. 2017, who add L1 with 0.16 to 0.84): {"ms_ssim": 1.0, "mae": 0.2}.
    """
    return 1.0 - image.ms_ssim(x, y)


def mixture(weights: Mapping[str, float]) -> Loss:
    """The weighted sum of losses: `mixture({"mse": 1.0, "ssim": 0.1})`.

    A name is one of LOSSES or "package.module:function".

    Raises:
      UserError: unknown name, a weight that is not a number, or no loss at all.

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
