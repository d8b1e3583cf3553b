"""PSNR and SSIM of two uint8 images in NumPy: any size, without compilation."""

import math

import numpy as np
from jaxtyping import UInt8

Picture = UInt8[np.ndarray, "h w c"]


def psnr(x: Picture, y: Picture) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; infinite for equal images.

    >>> psnr(np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8))
    0.0
    """
    mse = np.mean((x.astype(np.float64) - y.astype(np.float64)) ** 2)
    return math.inf if mse == 0 else float(10 * np.log10(255.0**2 / mse))


def ssim(x: Picture, y: Picture) -> float:
    """Structural similarity (Wang et al. 2004), at most 1, computed by scikit-image: Gaussian
    window with sigma 1.5, mean over channels. Height and width must be at least 11."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            x,
            y,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
    )
