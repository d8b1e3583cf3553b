"""What lossless training minimises: bits per sample of reduced photographs."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.objective import run_model
from aejax.types import Aux


def reduction(scale: Float[Array, " b"], phase: Float[Array, " b"], size: int, out: int):
    """[b, out, size]: means over `scale` (>= 1) pixels of a row of `size`, `out` times; phase in
    [0, 1] says where in the row they lie."""
    start = (phase * (size - out * scale))[:, None] + jnp.arange(out) * scale[:, None]
    low, high = start[..., None], (start + scale[:, None])[..., None]
    at = jnp.arange(size)
    overlap = jnp.minimum(high, at + 1) - jnp.maximum(low, at)
    return jnp.maximum(overlap, 0.0) / scale[:, None, None]


@dataclasses.dataclass(frozen=True)
class BitsPerSample:
    """Bits per sample of each image after it was reduced.

    Photographs that were JPEG or AVIF files have lost their noise and gained blocks. Reduced by a
    factor they are sharp and clean, sharper than most cameras' pictures; so factors begin at 1, and
    some pictures get back a little noise.

    Args:
      out: side of what is trained on.
      scale: (lowest, highest) factor of reduction, drawn per image; an evaluation takes the
        highest and adds no noise.
      noise: share of the images that get white noise, and its highest standard deviation in
        levels of 256.
      gray: share of the images that lose their colour.
    """

    out: int = 96
    scale: tuple[float, float] = (1.0, 2.0)
    noise: tuple[float, float] = (0.3, 3.0)
    gray: float = 0.05

    def reduced(self, x: Float[Array, "b h w 3"], key, train: bool) -> Float[Array, "b o o 3"]:
        """Multiples of 1/255 in [0, 1]."""
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
            share, most = self.noise
            sigma = jax.random.uniform(keys[2], (n,), maxval=most)
            sigma = sigma * (jax.random.uniform(keys[3], (n,)) < share)
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
