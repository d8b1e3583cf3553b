"""Several degradations in random order, for blind denoisers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.corrupt.cameras import camera
from aejax.corrupt.filters import blur
from aejax.corrupt.jpegs import jpeg
from aejax.corrupt.levels import Images
from aejax.corrupt.noises import gaussian, poisson, speckle

Image = Float[Array, "1 h w c"]


REDUCTIONS = ((1.25, "cubic"), (1.5, "linear"), (2.0, "cubic"), (3.0, "linear"))


def resized(key: Array, x: Image) -> Image:
    """x downsampled by a random one of REDUCTIONS, (factor, method), and upsampled again."""
    _, h, w, c = x.shape

    def down_and_up(factor, method):
        small = (1, max(1, round(h / factor)), max(1, round(w / factor)), c)
        return lambda v: jax.image.resize(jax.image.resize(v, small, method), v.shape, method)

    branches = [down_and_up(*r) for r in REDUCTIONS]
    return jax.lax.switch(jax.random.randint(key, (), 0, len(branches)), branches, x)


# (degradation, probability that it is applied)
DEGRADATIONS = (
    (lambda key, x: blur(key, x, (0.1, 2.0)), 0.7),
    (resized, 0.5),
    (lambda key, x: gaussian(key, x, (2.0, 50.0)), 0.5),
    (lambda key, x: poisson(key, x, (30.0, 1000.0)), 0.2),
    (lambda key, x: speckle(key, x, (2.0, 50.0)), 0.2),
    (lambda key, x: camera(key, x, (0.7, 20.0)), 0.25),
    (lambda key, x: jpeg(key, x, (30.0, 95.0)), 0.5),
)


def shuffled(key: Array, x: Images, share: float = 1.0) -> Images:
    """Blur, resizing, Gaussian, Poisson and speckle noise, camera noise and JPEG in random order,
    each with its own probability, and JPEG of quality 30 to 95 at the end; clipped.

    The degradations of SCUNet (Zhang et al. 2022, arXiv:2203.13278), applied once instead of twice;
    downsampled images are upsampled at once, so that the shape stays the same.

    Args:
      share: factor of the probabilities, 0 to 1.
    """
    probabilities = jnp.array([p for _, p in DEGRADATIONS]) * share
    branches = [lambda k, v, f=f: f(k, v) for f, _ in DEGRADATIONS] + [lambda k, v: v]

    def degrade(item: tuple[Array, Float[Array, "h w c"]]) -> Float[Array, "h w c"]:
        key, v = item
        k_order, k_applied, k_jpeg, *keys = jax.random.split(key, 3 + len(DEGRADATIONS))
        order = jax.random.permutation(k_order, len(DEGRADATIONS))
        is_applied = jax.random.uniform(k_applied, probabilities.shape) < probabilities
        index = jnp.where(is_applied, jnp.arange(len(DEGRADATIONS)), len(DEGRADATIONS))[order]

        def step(v, branch):
            return jax.lax.switch(branch[0], branches, branch[1], v), None

        v, _ = jax.lax.scan(step, v[None], (index, jnp.stack(keys)))
        return jpeg(k_jpeg, v, (30.0, 95.0))[0]

    return jax.lax.map(degrade, (jax.random.split(key, x.shape[0]), x))
