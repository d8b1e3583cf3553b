"""Corruptions that remove detail instead of adding noise: blur, masks, quantisation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from aejax.corrupt.levels import Images, Level, drawn, level
from aejax.errors import UserError
from aejax.pictures import LUMA


def identity(key: Array, x: Images) -> Images:
    """x itself: the plain autoencoder."""
    return x


def blur(key: Array, x: Images, sigma: Level = 1.5, radius: int | None = None) -> Images:
    """Gaussian blur with repeated edge pixels.

    Args:
      sigma: standard deviation in *pixels*.
      radius: of the kernel in pixels, default 3 sigma. It must be given if sigma is a traced array,
        because shapes depend on it.

    Raises:
      UserError: sigma is traced, and radius is not given.
    """
    if radius is None:
        top = sigma[1] if isinstance(sigma, (tuple, list)) else sigma
        if isinstance(top, jax.core.Tracer):
            raise UserError("corrupt blur: give radius, since sigma is not known at trace time")
        radius = max(1, math.ceil(3 * float(np.max(top))))
    s = jnp.maximum(level(key, sigma, x.shape[0]), 1e-3)
    t = jnp.arange(-radius, radius + 1)
    k = jnp.exp(-0.5 * (t / s[:, None]) ** 2)
    k = (k / k.sum(1, keepdims=True))[:, :, None, None, None]
    for axis in (1, 2):
        n = x.shape[axis]
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        p = jnp.pad(x, pad, mode="edge")
        first, *others = (
            k[:, i] * jax.lax.slice_in_dim(p, i, i + n, axis=axis) for i in range(2 * radius + 1)
        )
        x = sum(others, first)
    return x


def mask(key: Array, x: Images, ratio: Level = 0.5, patch: int = 1, value: float = 0.0) -> Images:
    """Sets each square of `patch` x `patch` pixels to `value` with probability `ratio`.

    This is masking noise with patch 1 on gray images (Vincent et al. 2010), and the masking of
    masked autoencoders with patch 4 to 16 (He et al. 2022, arXiv:2111.06377).
    """
    key, r = drawn(key, ratio, x)
    b, h, w, _ = x.shape
    grid = jax.random.uniform(key, (b, -(-h // patch), -(-w // patch), 1))
    is_masked = jnp.repeat(jnp.repeat(grid, patch, 1), patch, 2)[:, :h, :w] < r
    return jnp.where(is_masked, value, x)


def halved_chroma(key: Array, x: Images, share: float = 1.0) -> Images:
    """Replaces the chroma of each 2x2 square by its mean (Y'CbCr 4:2:0), as in video and most JPEG
    files; white noise becomes correlated by it. Gray images are unchanged.

    Args:
      share: fraction of the images that are changed.

    Raises:
      UserError: images with 2 or more than 3 channels.
    """
    if x.shape[-1] == 1:
        return x
    if x.shape[-1] != 3:
        raise UserError(f"corrupt halved_chroma: images have 1 or 3 channels, not {x.shape[-1]}")
    b, h, w, c = x.shape
    y = x @ LUMA
    chroma = x - y[..., None]
    even = jnp.pad(chroma, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    mean = even.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c).mean((2, 4))
    subsampled = jnp.repeat(jnp.repeat(mean, 2, 1), 2, 2)[:, :h, :w]
    is_changed = jax.random.uniform(key, (b, 1, 1, 1)) < share
    return jnp.where(is_changed, y[..., None] + subsampled, x)


def quantise(key: Array, x: Images, levels: Level = 16) -> Images:
    """Rounds to `levels` equidistant values from 0 to 1 (16 levels = 4 bits); clipped."""
    top = jnp.maximum(jnp.round(level(key, levels, x.shape[0])), 2)[:, None, None, None] - 1
    return jnp.round(jnp.clip(x, 0, 1) * top) / top
