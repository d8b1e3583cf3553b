"""Classical denoisers of other libraries, with one signature: (noisy [h, w, c] float32, sigma on
the 0..255 scale, one tuned parameter) -> denoised [h, w, c]."""

import numpy as np
from jaxtyping import Float

from aejax.errors import UserError

Image = Float[np.ndarray, "h w c"]


def mean(x: Image, sigma: float, side: float) -> Image:
    """Moving average over a square of `side` pixels."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(x, (round(side), round(side), 1), mode="mirror")


def median(x: Image, sigma: float, side: float) -> Image:
    """Moving median over a square of `side` pixels."""
    from scipy.ndimage import median_filter

    return median_filter(x, (round(side), round(side), 1), mode="mirror")


def gaussian(x: Image, sigma: float, width: float) -> Image:
    """Gaussian blur with a standard deviation of `width` pixels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, (width, width, 0), mode="mirror")


def bilateral(x: Image, sigma: float, factor: float) -> Image:
    """scikit-image's bilateral filter; colour differences up to `factor` sigma are averaged."""
    from skimage.restoration import denoise_bilateral

    gray = x.shape[2] == 1
    low, high = float(x.min()), float(x.max())
    scaled = (x - low) / max(high - low, 1e-6)  # scikit-image clips to [0, 1]
    y = denoise_bilateral(
        scaled[..., 0] if gray else scaled, sigma_color=factor * sigma / 255 / (high - low + 1e-6),
        sigma_spatial=2, channel_axis=None if gray else 2,
    )  # fmt: skip
    return (y[..., None] if gray else y) * max(high - low, 1e-6) + low


def wiener(x: Image, sigma: float, side: float) -> Image:
    """SciPy's adaptive local Wiener filter over a square of `side` pixels."""
    from scipy.signal import wiener as run

    side, noise = round(side), (sigma / 255.0) ** 2
    x = x.astype(np.float64)
    return np.stack([run(x[..., i], (side, side), noise) for i in range(x.shape[2])], 2)


def tv(x: Image, sigma: float, factor: float) -> Image:
    """Total variation (Chambolle 2004), weight = factor * sigma / 255."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(x, weight=factor * sigma / 255, channel_axis=2)


def wavelet(x: Image, sigma: float, factor: float) -> Image:
    """BayesShrink (Chang et al. 2000) in the db2 wavelet basis (in YCbCr for colour), with noise
    level factor * sigma."""
    from skimage.restoration import denoise_wavelet

    gray = x.shape[2] == 1
    low, high = float(x.min()), float(x.max())
    scaled = (x - low) / max(high - low, 1e-6)
    y = denoise_wavelet(
        scaled[..., 0] if gray else scaled, sigma=factor * sigma / 255 / max(high - low, 1e-6),
        wavelet="db2", convert2ycbcr=not gray, channel_axis=None if gray else 2,
        rescale_sigma=True,
    )  # fmt: skip
    return (y[..., None] if gray else y) * max(high - low, 1e-6) + low


def nlm(x: Image, sigma: float, factor: float) -> Image:
    """Non-local means (Buades et al. 2005), scikit-image's fast mode, h = factor * sigma."""
    from skimage.restoration import denoise_nl_means

    s, gray = sigma / 255, x.shape[2] == 1
    y = denoise_nl_means(
        x[..., 0] if gray else x, patch_size=5, patch_distance=9, h=factor * s, sigma=s,
        fast_mode=True, channel_axis=None if gray else 2,
    )  # fmt: skip
    return y[..., None] if gray else y


def bm3d(x: Image, sigma: float, factor: float) -> Image:
    """BM3D (Dabov et al. 2007), or CBM3D for colour: the authors' package `bm3d` (non-commercial
    licence), with noise level factor * sigma.

    Raises:
      UserError: bm3d is not installed.
    """
    try:
        import bm3d as package
    except ImportError as e:
        raise UserError(
            "bm3d is not installed (it is free for non-commercial use only): pip install bm3d"
        ) from e
    s = factor * sigma / 255
    if x.shape[2] == 1:
        return np.asarray(package.bm3d(x[..., 0].astype(np.float64), s))[..., None]
    return np.asarray(package.bm3d_rgb(x.astype(np.float64), s))
