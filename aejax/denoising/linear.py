"""Linear denoising autoencoders of 8x8 patches in closed form.

    x --8x8 patches--> W patch --mean over the 64 patches that contain a pixel--> y

The mapping is one convolution. The best W of rank k for clean patches is PCA; the best W of full
rank for noisy ones is the Wiener filter S (S + sigma^2 I)^-1 for patches with covariance S.
"""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from aejax.denoising.filters import Image
from aejax.nets.linear import principal_axes

PATCH = 8


@functools.cache
def covariance(channels: int) -> Float[np.ndarray, "d d"]:
    """E[(p - 0.5)(p - 0.5)^T] of 8x8 patches p in [0, 1] of clean training photographs, d = 64
    channels; read from linear.npz beside this file."""
    file = pathlib.Path(__file__).with_name("linear.npz")
    with np.load(file) as arrays:
        name = "gray" if channels == 1 else "colour"
        return arrays[name].astype(np.float64) * arrays[f"{name}_scale"].astype(np.float64)


def fit_covariance(images: Sequence[np.ndarray], seed: int = 0) -> Float[np.ndarray, "d d"]:
    """`covariance` from 500 patches of each uint8 image [h, w, c], made invariant to flips and
    rotations."""
    rng = np.random.default_rng(seed)
    total, count = np.zeros(()), 0
    for x in images:
        x = x.astype(np.float64) / 255
        c = x.shape[2]
        windows = np.lib.stride_tricks.sliding_window_view(x, (PATCH, PATCH), (0, 1))
        ys = rng.integers(windows.shape[0], size=500)
        xs = rng.integers(windows.shape[1], size=500)
        patches = windows[ys, xs].transpose(0, 2, 3, 1)  # [n, 8, 8, c]
        for quarter_turns in range(4):
            for flip in (False, True):
                p = np.rot90(patches, quarter_turns, (1, 2))
                p = (p[:, ::-1] if flip else p).reshape(len(patches), PATCH * PATCH * c)
                p = p - 0.5  # a fixed mean, so that the filter needs no bias
                total = total + p.T @ p
                count += len(p)
    return total / count


def filter_of(w: np.ndarray, channels: int) -> Float[np.ndarray, "15 15 c c"]:
    """The kernel of the convolution that maps each overlapping patch by w [d, d], d = 64 channels,
    and averages the results at each pixel."""
    d = PATCH
    w = w.reshape(d, d, channels, d, d, channels)
    kernel = np.zeros((2 * d - 1, 2 * d - 1, channels, channels))
    for i in range(d):
        for j in range(d):  # output at (i, j) of the patch reads input at (k, l)
            kernel[d - 1 - i : 2 * d - 1 - i, d - 1 - j : 2 * d - 1 - j] += w[i, j].transpose(
                1, 2, 3, 0
            )
    return kernel / d**2


def convolve(x: Image, kernel: Float[np.ndarray, "k k c c"]) -> Image:
    """Convolves x - 0.5, its border mirrored, and adds 0.5 again."""
    from scipy.signal import oaconvolve

    r = kernel.shape[0] // 2
    padded = np.pad(x - 0.5, ((r, r), (r, r), (0, 0)), mode="reflect")
    out = np.zeros(x.shape, np.float32)
    for o in range(x.shape[2]):
        for i in range(x.shape[2]):
            k = kernel[::-1, ::-1, i, o].astype(np.float32)
            out[..., o] += oaconvolve(padded[..., i], k, mode="valid")
    return out + 0.5


def linear(x: Image, sigma: float, factor: float) -> Image:
    """The best linear autoencoder of overlapping 8x8 patches: W = S (S + (factor sigma)^2 I)^-1."""
    s = covariance(x.shape[2])
    noise = (factor * sigma / 255) ** 2 * np.eye(len(s))
    return convolve(x, filter_of(s @ np.linalg.inv(s + noise), x.shape[2]))


def pca(x: Image, sigma: float, keep: float) -> Image:
    """The projection of overlapping 8x8 patches on their first `keep` principal components."""
    axes = principal_axes(covariance(x.shape[2]))[1][:, : max(1, round(keep))]
    return convolve(x, filter_of(axes @ axes.T, x.shape[2]))
