"""Simulated camera noise: sensor noise after raw development and JPEG.

To first order the noise after development is n = t'(x) M g D(m): raw shot and read noise m,
demosaiced (D), multiplied by the white balance g, the colour matrix M and the slope t' of the tone
curve (Brooks et al. 2019, arXiv:1811.11127). Cameras then smooth, chroma more than luma, sharpen
and resize, which leaves coarse noise (Lebrun et al. 2015, "The Noise Clinic", with a noise curve
per octave). Here the spectrum is random: octaves of 1, 2, 4 and 8 pixels with their own weights in
luma and chroma. Only the noise is processed, and x itself remains the target, so that a denoiser
does not learn to demosaic.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from aejax.corrupt.filters import blur
from aejax.corrupt.jpegs import jpeg
from aejax.corrupt.levels import Images, level
from aejax.errors import UserError
from aejax.pictures import LUMA

OCTAVES = 4
PHASES = 8  # offsets, in pixels, of the grids of mosaic, octaves and JPEG blocks

# The four Bayer patterns: 1 where a colour is measured, [pattern, row, column, colour].
_RGGB = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [0, 0, 1]]], np.float32)
_PATTERNS = np.stack([np.roll(_RGGB, (i, j), (0, 1)) for i in (0, 1) for j in (0, 1)])
_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


def demosaiced(key: Array, mosaic: Images) -> Images:
    """Samples a colour image [b, h, w, 3] with a random Bayer pattern, then demosaics it with
    bilinear interpolation."""
    b, h, w, _ = mosaic.shape
    pattern = jnp.asarray(_PATTERNS)[jax.random.randint(key, (b,), 0, 4)]
    sampled = mosaic * jnp.tile(pattern, (1, -(-h // 2), -(-w // 2), 1))[:, :h, :w]
    p = jnp.pad(sampled, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")

    def filtered(c, kernel):
        parts = (kernel[i, j] * p[:, i : i + h, j : j + w, c] for i in range(3) for j in range(3))
        return sum(parts)

    return jnp.stack([filtered(0, _RED_BLUE), filtered(1, _GREEN), filtered(2, _RED_BLUE)], -1)


def unit(x: Images) -> Images:
    """Each image divided by its RMS."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), (1, 2, 3), keepdims=True) + 1e-12)


def octaves(key: Array, shape: tuple[int, ...]) -> list[Images]:
    """OCTAVES fields of noise with unit RMS and grain sizes of 1, 2, 4, ... pixels; the finest one
    is demosaiced."""
    b, h, w, c = shape
    fields = []
    for i, k in enumerate(jax.random.split(key, OCTAVES)):
        draw, phase = jax.random.split(k)
        size = (b, -(-h // 2**i), -(-w // 2**i), c)
        field = jax.random.normal(draw, size)
        if i == 0:  # mixed, since better demosaicing than bilinear keeps more of the fine grain
            mosaic, mix = jax.random.split(phase)
            share = jax.random.uniform(mix, (b, 1, 1, 1))
            field = share * field + (1 - share) * demosaiced(mosaic, field)
        else:
            field = jax.image.resize(field, (b, size[1] * 2**i, size[2] * 2**i, c), "cubic")
        fields.append(unit(field[:, :h, :w]))
    return fields


def camera_noise(key: Array, x: Images) -> Images:
    """Noise with RMS 1 for each image of x, with random parameters of the camera per example.

    Args:
      x: clean images [b, h, w, 3] in [0, 1], on which the local noise level depends.
    """
    b = x.shape[0]
    draws = iter(jax.random.split(key, 19))

    def uniform(low, high, *extra_axes):
        shape = (b, *extra_axes, 1, 1, 1)
        return jax.random.uniform(next(draws), shape, minval=low, maxval=high)

    # the sensor: shot and read noise in linear light, white balance, tone curve
    gamma, contrast = uniform(1.8, 2.6), uniform(0.0, 0.7)
    v = jnp.clip(x, 0, 1)
    linear = v**gamma
    balance = jnp.concatenate([uniform(1.2, 2.6), jnp.ones((b, 1, 1, 1)), uniform(1.2, 2.6)], -1)
    read = jnp.exp(uniform(np.log(1e-3), np.log(0.5)))
    spread = balance * jnp.sqrt(linear / balance + read)
    slope = (linear + 0.01) ** (1 / gamma - 1) / gamma
    slope = slope * (1 - contrast + contrast * 6 * v * (1 - v))
    saturation = uniform(0.0, 1.0)

    # the spectrum: weights of the octaves in luma and in chroma
    fields = octaves(next(draws), x.shape)
    softness = uniform(-1.0, 2.0)[:, 0, 0, 0]
    fields[0] = unit(blur(next(draws), fields[0], jnp.where(softness < 0.3, 0, softness), radius=6))
    jitter = jnp.exp(jax.random.normal(next(draws), (2, OCTAVES, b, 1, 1, 1)) * 0.4)
    finest = jnp.exp(uniform(np.log(0.2), np.log(3.0), 2))  # cameras differ in its smoothing
    jitter = jitter.at[:, 0].multiply(finest.swapaxes(0, 1))
    slopes = uniform(-0.1, 1.9), uniform(-0.5, 1.5)  # of log2 weight per octave
    strengths = 1.0, jnp.exp(uniform(np.log(0.12), np.log(1.6)))
    parts = []
    for fall, factor, strength in zip(slopes, jitter, strengths, strict=True):
        weights = [2.0 ** (-fall * i) * factor[i] for i in range(OCTAVES)]
        norm = jnp.sqrt(sum(jnp.square(w) for w in weights))
        noise = spread * sum(w * f for w, f in zip(weights, fields, strict=True)) / norm
        noise = noise + saturation * (noise - noise.mean(-1, keepdims=True))
        parts.append(strength * slope * noise)
    luma, chroma = parts
    # half of the cameras sharpen: an unsharp mask on luma, which amplifies the fine grain
    amount = jnp.maximum(uniform(-2.0, 2.0), 0.0)
    luma = luma + amount * (luma - blur(next(draws), luma, uniform(0.6, 1.6)[:, 0, 0, 0], radius=4))
    noise = luma @ LUMA[:, None] + chroma - chroma @ LUMA[:, None]

    # at edges there is less noise where smoothing is weaker, more where sharpening is stronger
    steps = jnp.abs(v - jnp.roll(v, 1, 1)) + jnp.abs(v - jnp.roll(v, 1, 2))
    edges = steps.mean(-1, keepdims=True)
    edges = blur(next(draws), edges, 1.5, radius=4)
    noise = noise * (1 + uniform(-0.4, 1.0) * edges / (edges + 0.05))
    return unit(noise)


def camera(
    key: Array,
    x: Images,
    rms: tuple[float, float] | float = (0.7, 20.0),
    quality: tuple[float, float] | float = (60.0, 100.0),
    compressed: float = 0.75,
) -> Images:
    """Adds simulated camera noise, and JPEG compression to a part of the images; clipped and
    rounded to 8 bits.

    Args:
      x: [b, h, w, 1 or 3].
      rms: RMS of the noise on the 0..255 scale, before clipping and JPEG; of a pair (low, high) the
        logarithm is drawn uniformly.
      quality: of JPEG, 1 to 100.
      compressed: fraction of the images that are compressed.

    Raises:
      UserError: x has another number of channels than 1 or 3.
    """
    b, h, w, channels = x.shape
    if channels not in (1, 3):
        raise UserError(f"corrupt camera: images have 1 or 3 channels, not {channels}")
    k = iter(jax.random.split(key, 6))
    low, high = rms if isinstance(rms, (tuple, list)) else (rms, rms)
    levels = jnp.exp(level(next(k), (np.log(low), np.log(high)), b))[:, None, None, None] / 255
    offset = jax.random.randint(next(k), (b, 2), 0, PHASES)
    padded = jnp.pad(x, ((0, 0), (PHASES, PHASES), (PHASES, PHASES), (0, 0)), mode="symmetric")

    def crop(image, corner, side):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (*side, image.shape[-1]))

    larger = jax.vmap(lambda i, c: crop(i, c, (h + PHASES, w + PHASES)))(padded, offset)
    noise = camera_noise(next(k), jnp.broadcast_to(larger, (*larger.shape[:3], 3)))
    noisy = larger + levels * (noise if channels == 3 else unit(noise @ LUMA[:, None]))
    noisy = jnp.round(jnp.clip(noisy, 0, 1) * 255) / 255
    as_jpeg = jpeg(next(k), noisy, quality)
    is_jpeg = jax.random.uniform(next(k), (b, 1, 1, 1)) < compressed
    noisy = jnp.where(is_jpeg, as_jpeg, noisy)
    return jax.vmap(lambda i, c: crop(i, PHASES - c, (h, w)))(noisy, offset)
