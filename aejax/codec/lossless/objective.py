"""The loss of the lossless codec: bits per sample of downscaled photographs."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.objective import run_model
from aejax.types import Aux


def reduction(scale: Float[Array, " b"], phase: Float[Array, " b"], size: int, out: int):
    """Matrices [b, out, size] that downscale rows of `size` pixels to `out` by area averaging.

    Args:
      scale: pixels that are averaged, at least 1.
      phase: position of the part of the row that is used, 0 (left end) to 1 (right end).
    """
    start = (phase * (size - out * scale))[:, None] + jnp.arange(out) * scale[:, None]
    low, high = start[..., None], (start + scale[:, None])[..., None]
    pixel = jnp.arange(size)
    overlap = jnp.minimum(high, pixel + 1) - jnp.maximum(low, pixel)
    return jnp.maximum(overlap, 0.0) / scale[:, None, None]


@dataclasses.dataclass(frozen=True)
class BitsPerSample:
    """Bits per sample of each image after downscaling.

    The training photographs were JPEG or AVIF files, without noise and with block artefacts.
    Downscaling removes the artefacts but makes them sharper and cleaner than most camera images; so
    the factors start at 1, and some images get a little noise.

    Metrics of an example: "loss" in bits per sample, "level_0", ... (bits per sample of each
    level), and "mse" of the coarsest level enlarged.

    Args:
      out: side of the downscaled training images in pixels.
      scale: range from which the factor of each image is drawn; evaluations use the highest factor
        and add no noise.
      noise: (probability of an image to get white noise, largest standard deviation on 0..255).
      gray: probability of an image to be made gray.
    """

    out: int = 96
    scale: tuple[float, float] = (1.0, 2.0)
    noise: tuple[float, float] = (0.3, 3.0)
    gray: float = 0.05

    def reduced(self, x: Float[Array, "b h w 3"], key, train: bool) -> Float[Array, "b o o 3"]:
        """Downscaled and augmented images: multiples of 1/255 in [0, 1]."""
        n, size = x.shape[:2]
        keys = jax.random.split(key, 6)
        low, high = self.scale
        if train:
            scale = jax.random.uniform(keys[0], (n,), minval=low, maxval=high)
            phases = jax.random.uniform(keys[1], (2, n))
        else:
            scale, phases = jnp.full((n,), high), jnp.full((2, n), 0.5)
        out = self.out if train else int(size / high) // 16 * 16
        rows, columns = (reduction(scale, p, size, out) for p in phases)
        precise = jax.lax.Precision.HIGHEST
        x = jnp.einsum("boh,bhwc->bowc", rows, x, precision=precise)
        x = jnp.einsum("bow,bhwc->bhoc", columns, x, precision=precise) * 255.0
        if train:
            probability, largest = self.noise
            sigma = jax.random.uniform(keys[2], (n,), maxval=largest)
            sigma = sigma * (jax.random.uniform(keys[3], (n,)) < probability)
            x = x + sigma[:, None, None, None] * jax.random.normal(keys[4], x.shape)
            gray = jax.random.uniform(keys[5], (n, 1, 1, 1)) < self.gray
            x = jnp.where(gray, x.mean(-1, keepdims=True), x)
        return jnp.clip(jnp.floor(x + 0.5), 0.0, 255.0) / 255.0

    def __call__(self, model, variables, batch, key, train):
        key_x, key_model = jax.random.split(key)
        x = jax.lax.stop_gradient(self.reduced(batch["image"], key_x, train))
        out, collections = run_model(model, variables, x, None, key_model, train)
        loss = out.terms["bits"] / (x.shape[1] * x.shape[2] * x.shape[3])
        y = jax.image.resize(out.y, x.shape, "nearest")
        values = {name: v for name, v in out.terms.items() if name != "bits"}
        values |= {"loss": loss, "mse": jnp.mean((x - y) ** 2, (1, 2, 3))}
        return loss, Aux(values, collections, {"x": x, "y": y})
