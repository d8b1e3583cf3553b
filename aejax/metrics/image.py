"""Image quality metrics: (x, y) -> [b], where x is the original and y the reconstruction, both
[b, h, w, c] in [0, 1].

All can be compiled and have a fast backward pass on a CPU, because SSIM is also used as a loss.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.registry import lookup

TAPS, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
# Wang, Simoncelli, Bovik 2003, section 3.2: exponents of the five scales, finest first.
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Images = Float[Array, "b h w c"]
PerImage = Float[Array, " b"]


def mse(x: Images, y: Images) -> PerImage:
    """Mean squared error over the pixels and channels of each image."""
    return jnp.mean(jnp.square(x - y), axis=(1, 2, 3))


def psnr(x: Images, y: Images) -> PerImage:
    """Peak signal-to-noise ratio in dB for a peak of 1; equal images give 100 dB, not infinity.

    >>> float(psnr(np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), 0.1))[0].round(3))
    20.0
    """
    return -10.0 * jnp.log10(jnp.maximum(mse(x, y), 1e-10))


def ssim(x: Images, y: Images) -> PerImage:
    """Structural similarity, at most 1 (Wang, Bovik, Sheikh, Simoncelli 2004).

    Gaussian window of 11 taps, sigma 1.5, population covariances, only windows inside the image,
    mean over channels: scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`. For images narrower than 11 pixels, where that is
    undefined, the window is the largest odd one that fits: compare these values only to each other.

    Raises:
      UserError: x and y have different shapes.
    """
    luminance, contrast = _similarities(x, y)
    return jnp.mean(luminance * contrast, axis=(1, 2, 3))


def ms_ssim(x: Images, y: Images) -> PerImage:
    """Multi-scale structural similarity, 0 to 1 (Wang, Simoncelli, Bovik 2003).

    Each scale is half the previous one by 2x2 means (an odd last row or column counts twice, as in
    the authors' code). Five scales need 176 pixels on the shorter side; smaller images use the
    first `ms_ssim_scales(h, w)` weights, normalised to sum 1 (one scale, below 22 pixels, is SSIM):
    compare such values only at equal size. It is computed per channel, then averaged. Terms are
    at least 1e-6, because a fractional power of a negative contrast is undefined.

    Raises:
      UserError: x and y have different shapes.
    """
    scales = ms_ssim_scales(*x.shape[1:3])
    weights = np.array(MS_WEIGHTS[:scales])
    if scales < len(MS_WEIGHTS):  # all five stay as published; their sum is 1.0001
        weights = weights / weights.sum()
    result = 1.0
    for scale, weight in enumerate(weights):
        luminance, contrast = _similarities(x, y)
        if scale == scales - 1:
            contrast = luminance * contrast
        term = jnp.maximum(jnp.mean(contrast, axis=(1, 2)), 1e-6)
        result = result * term ** float(weight)
        if scale < scales - 1:
            x, y = _halve(x), _halve(y)
    return jnp.mean(result, axis=-1)


def ms_ssim_scales(h: int, w: int) -> int:
    """How many of the five scales are at least as large as a window: 5 from 176 pixels on the
    shorter side, 1 below 22."""
    return sum(min(h, w) >= TAPS * 2**s for s in range(1, len(MS_WEIGHTS))) + 1


def _halve(x: Images) -> Images:
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    return x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).mean(axis=(2, 4))


def _similarities(x: Images, y: Images) -> tuple[Array, Array]:
    """Luminance and contrast-structure terms of SSIM for every window and channel.

    With C constants, s variances, m means: (2 s_xy + C2) / (s_x + s_y + C2) is written
    1 - var(x - y) / (s_x + s_y + C2), the first term likewise. That is exact, needs four filters
    instead of five, and loses no digits where y is close to x; the variances that remain in the
    denominator come from values around 0, so the float32 error of the subtraction stays 1e4 times
    below C2.
    """
    if min(x.shape[1:3]) < 1 or x.shape != y.shape:
        raise UserError(f"ssim needs two equal image shapes, not {x.shape} and {y.shape}")
    x, y = x.astype(jnp.float32) - 0.5, y.astype(jnp.float32) - 0.5
    d = x - y
    m_x, m_d, m_xx_yy, m_dd = jnp.split(
        _blur(jnp.concatenate([x, d, x * x + y * y, d * d], axis=-1)), 4, axis=-1
    )
    m_y = m_x - m_d
    variances = jnp.maximum(m_xx_yy - m_x * m_x - m_y * m_y, 0.0)
    contrast = 1.0 - (m_dd - m_d * m_d) / (variances + C2)
    luminance = 1.0 - m_d * m_d / (jnp.square(m_x + 0.5) + jnp.square(m_y + 0.5) + C1)
    return luminance, contrast


def _blur(x: Images) -> Images:
    """Gaussian means of the windows inside the image.

    It is a sum of shifted products along each axis: `lax.conv` is many times slower on a CPU here,
    and a banded matrix is faster only below 64 pixels. The barriers keep XLA from recomputing the
    input for each tap (2 times faster forward, 6 to 9 backward).
    """
    for axis in (1, 2):
        x = _correlate(jax.lax.optimization_barrier(x), axis, window(x.shape[axis]))
    return jax.lax.optimization_barrier(x)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _correlate(x: Images, axis: int, taps: tuple[float, ...]) -> Images:
    n = x.shape[axis] - len(taps) + 1
    first, *others = (t * jax.lax.slice_in_dim(x, i, i + n, axis=axis) for i, t in enumerate(taps))
    return sum(others, first)


def _correlate_forward(x, axis, taps):
    return _correlate(x, axis, taps), None


def _correlate_backward(axis, taps, _, g):
    """The taps are symmetric, so the transpose is the same filter on g with a border of zeros. The
    automatic gradient adds eleven padded arrays instead (4 times slower in jax 0.10)."""
    border = [(0, 0)] * 4
    border[axis] = (len(taps) - 1,) * 2
    return (_correlate(jnp.pad(jax.lax.optimization_barrier(g), border), axis, taps),)


_correlate.defvjp(_correlate_forward, _correlate_backward)


@lru_cache
def window(side: int) -> tuple[float, ...]:
    """Gaussian taps with sum 1: 11 of them, or the largest odd number that fits in `side`."""
    taps = min(TAPS, side - 1 + side % 2)
    g = np.exp(-0.5 * np.square((np.arange(taps) - taps // 2) / SIGMA))
    return tuple(float(t) for t in g / g.sum())


def metric_functions(
    names: Iterable[str], shape: tuple[int, int, int] | None = None
) -> dict[str, Callable[[Images, Images], PerImage]]:
    """{name: function} of metrics.

    Args:
      names: of METRICS, or "package.module:function".
      shape: (h, w, c) of an example. If given, the result of each function of the user is checked,
        without computing it.

    Raises:
      UserError: an unknown metric, or one that does not fulfil `contracts.Metric`.

    >>> sorted(metric_functions(["psnr", "ssim"]))
    ['psnr', 'ssim']
    """
    functions = {name: lookup(name, METRICS, "metric") for name in names}
    for name in functions:
        if shape and ":" in name:
            x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
            jax.eval_shape(functions[name], x, x)
    return functions


METRICS = {"mse": mse, "psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
