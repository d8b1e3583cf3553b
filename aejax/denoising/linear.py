"""The linear autoencoder as a denoiser, in closed form: patches of 8x8 pixels, over all overlaps.

    x --patch--> W patch --mean over the 64 patches of each pixel--> y, which is one convolution

W of rank k is the PCA of clean patches; with as many latents as pixels the best W is Wiener's,
S (S + sigma^2 I)^-1 for patches of covariance S.
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
    """Of 8x8 patches (d = 64 channels) of clean training photographs about 0.5; stored in
    linear.npz beside this file."""
    file = pathlib.Path(__file__).with_name("linear.npz")
    with np.load(file) as kept:
        name = "gray" if channels == 1 else "colour"
        return kept[name].astype(np.float64) * kept[f"{name}_scale"].astype(np.float64)


def fit_covariance(images: Sequence[np.ndarray], seed: int = 0) -> Float[np.ndarray, "d d"]:
    """The covariance from uint8 images [h, w, c], made invariant to flips and turns: 500 patches
    from each."""
    rng = np.random.default_rng(seed)
    total, count = np.zeros(()), 0
    for x in images:
        x = x.astype(np.float64) / 255
        c = x.shape[2]
        windows = np.lib.stride_tricks.sliding_window_view(x, (PATCH, PATCH), (0, 1))
        ys = rng.integers(windows.shape[0], size=500)
        xs = rng.integers(windows.shape[1], size=500)
        patches = windows[ys, xs].transpose(0, 2, 3, 1)  # [n, 8, 8, c]
        for turn in range(4):
            for flip in (False, True):
                p = np.rot90(patches, turn, (1, 2))
                p = (p[:, ::-1] if flip else p).reshape(len(patches), PATCH * PATCH * c)
                p = p - 0.5  # a fixed centre keeps the filter linear without an offset to learn
                total = total + p.T @ p
                count += len(p)
    return total / count


def filter_of(w: np.ndarray, channels: int) -> Float[np.ndarray, "15 15 c c"]:
    """Overlapping patches, each mapped by w [d, d], averaged: one convolution. Its kernel."""
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
    """x about 0.5 through a kernel, its border mirrored."""
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
    """The best linear autoencoder of 8x8 patches, W = S (S + sigma^2 I)^-1, over all overlaps."""
    s = covariance(x.shape[2])
    noise = (factor * sigma / 255) ** 2 * np.eye(len(s))
    return convolve(x, filter_of(s @ np.linalg.inv(s + noise), x.shape[2]))


def pca(x: Image, sigma: float, keep: float) -> Image:
    """An autoencoder of `keep` principal components of 8x8 patches, over all overlaps."""
    axes = principal_axes(covariance(x.shape[2]))[1][:, : max(1, round(keep))]
    return convolve(x, filter_of(axes @ axes.T, x.shape[2]))
