"""Noise that is independent between pixels, or nearly so: sensor noise, film grain, impulses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from aejax.corrupt.filters import blur
from aejax.corrupt.levels import Images, Level, drawn, level


def gaussian(key: Array, x: Images, sigma: Level = 25.0) -> Images:
    """White Gaussian noise.

    Args:
      sigma: standard deviation (0..255 scale). Negative levels count as 0: (-5, 55) leaves one
        image in 12 clean.
    """
    key, s = drawn(key, sigma, x)
    return x + jnp.maximum(s, 0) / 255.0 * jax.random.normal(key, x.shape, x.dtype)


def poisson(key: Array, x: Images, peak: Level = 30.0) -> Images:
    """Shot noise with a mean of `peak` photons in a white pixel; the variance is x / peak."""
    key, p = drawn(key, peak, x)
    return jax.random.poisson(key, jnp.maximum(x, 0) * p).astype(x.dtype) / p


def poisson_gaussian(key: Array, x: Images, peak: Level = 30.0, sigma: Level = 5.0) -> Images:
    """Sensor noise: shot noise and read noise; the variance is x / peak + (sigma / 255)^2."""
    shot, read = jax.random.split(key)
    return gaussian(read, poisson(shot, x, peak), sigma)


def speckle(key: Array, x: Images, sigma: Level = 25.0) -> Images:
    """Multiplicative noise: x (1 + n) with Gaussian n of standard deviation sigma / 255."""
    key, s = drawn(key, sigma, x)
    return x * (1 + s / 255.0 * jax.random.normal(key, x.shape, x.dtype))


def salt_and_pepper(key: Array, x: Images, p: Level = 0.1) -> Images:
    """Sets a fraction `p` of the pixels (all channels together) to 0 or 1, half each."""
    key, p = drawn(key, p, x)
    u = jax.random.uniform(key, (*x.shape[:3], 1), x.dtype)
    return jnp.where(u < p / 2, 0.0, jnp.where(u < p, 1.0, x))


def film_grain(
    key: Array, x: Images, sigma: Level = 10.0, size: Level = 0.7, colour: Level = 0.2
) -> Images:
    """Film grain, strongest in the mid-tones: where grains cover a fraction v of the area, the
    variance is proportional to v (1 - v) (Newson et al. 2017, "Realistic film noise generation",
    IPOL 7).

    Args:
      sigma: standard deviation at v = 0.5 (0..255 scale).
      size: of a grain: standard deviation of its Gaussian, in pixels, at most 2.
      colour: fraction of the variance that is independent between channels, 0 to 1.
    """
    key, s = drawn(key, sigma, x)
    key, c = drawn(key, colour, x)
    shared, own, width, first, second = jax.random.split(key, 5)
    width = jnp.clip(level(width, size, x.shape[0]), 0, 2)

    def grain(key, blurred, channels):
        noise = jax.random.normal(key, (*x.shape[:3], channels), x.dtype)
        noise = blur(blurred, noise, width, radius=6)
        return noise * jax.lax.rsqrt(jnp.mean(jnp.square(noise), (1, 2, 3), keepdims=True) + 1e-12)

    noise = jnp.sqrt(1 - c) * grain(shared, first, 1)
    noise = noise + jnp.sqrt(c) * grain(own, second, x.shape[-1])
    v = jnp.clip(x, 0, 1)
    return x + s / 255 * 2 * jnp.sqrt(v * (1 - v)) * noise
