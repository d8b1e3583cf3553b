"""What a denoiser has to beat: classical filters behind one call, tuned once on training photos.

`baseline("nlm")(noisy, sigma)` takes [h, w, c] float32 and the level on the 0..255 scale, or None,
in which case it is estimated from the image. Every filter has at most one number to tune; TUNED
holds the best of each grid at a few levels, found by `tune` on crops of training photographs
(never on a test set), and is interpolated in between.
"""

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from aejax.denoising.noise import estimate_sigma
from aejax.errors import UserError
from aejax.nets.linear import principal_axes
from aejax.registry import did_you_mean

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
    scaled = (x - low) / max(high - low, 1e-6)  # it clips; the noise goes beyond [0, 1]
    y = denoise_bilateral(
        scaled[..., 0] if gray else scaled, sigma_color=factor * sigma / 255 / (high - low + 1e-6),
        sigma_spatial=2, channel_axis=None if gray else 2,
    )  # fmt: skip
    return (y[..., None] if gray else y) * max(high - low, 1e-6) + low


def wiener(x: Image, sigma: float, side: float) -> Image:
    """scipy's adaptive local Wiener filter over a square of `side` pixels."""
    from scipy.signal import wiener as run

    side, noise = round(side), (sigma / 255.0) ** 2
    x = x.astype(np.float64)
    return np.stack([run(x[..., i], (side, side), noise) for i in range(x.shape[2])], 2)


def tv(x: Image, sigma: float, factor: float) -> Image:
    """Total variation (Chambolle 2004), weight = factor * sigma / 255."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(x, weight=factor * sigma / 255, channel_axis=2)


def wavelet(x: Image, sigma: float, factor: float) -> Image:
    """BayesShrink in the db2 wavelet basis (in YCbCr for colour), told factor * sigma."""
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
    """Non-local means (Buades et al. 2005), fast form of scikit-image, h = factor * sigma."""
    from skimage.restoration import denoise_nl_means

    s, gray = sigma / 255, x.shape[2] == 1
    y = denoise_nl_means(
        x[..., 0] if gray else x, patch_size=5, patch_distance=9, h=factor * s, sigma=s,
        fast_mode=True, channel_axis=None if gray else 2,
    )  # fmt: skip
    return y[..., None] if gray else y


def bm3d(x: Image, sigma: float, factor: float) -> Image:
    """BM3D (Dabov et al. 2007) and CBM3D, the authors' binary `bm3d` (non-commercial licence)."""
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


# ---- the linear autoencoder, in closed form -----------------------------------------------------


PATCH = 8


@functools.cache
def covariance(channels: int) -> Float[np.ndarray, "d d"]:
    """Of 8x8 patches of clean training photographs about 0.5; in linear.npz beside this file."""
    import pathlib

    file = pathlib.Path(__file__).with_name("linear.npz")
    with np.load(file) as kept:
        name = "gray" if channels == 1 else "colour"
        return kept[name].astype(np.float64) * kept[f"{name}_scale"].astype(np.float64)


def fit_covariance(images: Sequence[np.ndarray], seed: int = 0) -> Float[np.ndarray, "d d"]:
    """The covariance from uint8 images [h, w, c], made invariant to flips and turns: 500 patches
    from each."""
    rng = np.random.default_rng(seed)
    total, count = 0.0, 0
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


def _filter_of(w: np.ndarray, channels: int) -> Float[np.ndarray, "15 15 c c"]:
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


def _convolve(x: Image, kernel: np.ndarray) -> Image:
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
    return _convolve(x, _filter_of(s @ np.linalg.inv(s + noise), x.shape[2]))


def pca(x: Image, sigma: float, keep: float) -> Image:
    """An autoencoder of `keep` principal components of 8x8 patches, over all overlaps."""
    axes = principal_axes(covariance(x.shape[2]))[1][:, : max(1, round(keep))]
    return _convolve(x, _filter_of(axes @ axes.T, x.shape[2]))


# ---- one call -----------------------------------------------------------------------------------

# What each is tuned over, and the best at sigma 5, 15, 25, 50, 75: mean PSNR over the middle
# 192x192 of eight held-out training photographs: `python -m aejax.denoising.baselines FOLDER`.
LEVELS = (5.0, 15.0, 25.0, 50.0, 75.0)
GRIDS: dict[str, Sequence[float]] = {
    "mean": (1, 3, 5, 7, 9, 11),
    "median": (1, 3, 5, 7, 9, 11),
    "gaussian": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5, 1.8, 2.1, 2.5, 3),
    "bilateral": (0.2, 0.3, 0.4, 0.55, 0.7, 1, 1.3, 1.6, 2, 2.5, 3, 4),
    "wiener": (3, 5, 7, 9, 11, 13),
    "tv": (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6),
    "wavelet": (0.6, 0.8, 1.0, 1.2),
    "nlm": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "linear": (0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0),
    "pca": (2, 3, 4, 6, 8, 10, 13, 16, 20, 25, 32, 40, 52, 64, 90, 120),
    "bm3d": (1.0,),  # it is told the true sigma and has been tuned by its authors
}
BASELINES: dict[str, Callable[[Image, float, float], Image]] = {
    "mean": mean,
    "median": median,
    "gaussian": gaussian,
    "bilateral": bilateral,
    "wiener": wiener,
    "tv": tv,
    "wavelet": wavelet,
    "nlm": nlm,
    "linear": linear,
    "pca": pca,
    "bm3d": bm3d,
}
# name -> {channels: value at each of LEVELS}
TUNED: dict[str, dict[int, Sequence[float]]] = {
    "mean": {
        1: (1.0, 3.0, 3.0, 5.0, 7.0),
        3: (1.0, 3.0, 3.0, 5.0, 7.0),
    },
    "median": {
        1: (1.0, 3.0, 3.0, 7.0, 9.0),
        3: (1.0, 3.0, 3.0, 7.0, 9.0),
    },
    "gaussian": {
        1: (0.4, 0.6, 0.8, 1.3, 2.1),
        3: (0.4, 0.6, 0.8, 1.3, 1.8),
    },
    "bilateral": {
        1: (1.0, 1.3, 1.6, 2.0, 2.0),
        3: (0.4, 0.55, 0.55, 0.7, 1.0),
    },
    "wiener": {
        1: (3.0, 3.0, 5.0, 7.0, 9.0),
        3: (3.0, 3.0, 5.0, 7.0, 7.0),
    },
    "tv": {
        1: (0.4, 0.6, 0.8, 0.8, 1.0),
        3: (0.4, 0.6, 0.8, 0.8, 1.0),
    },
    "wavelet": {
        1: (1.2, 1.0, 1.0, 1.0, 1.0),
        3: (1.0, 1.0, 1.0, 1.0, 1.0),
    },
    "nlm": {
        1: (0.7, 0.6, 0.5, 0.6, 0.6),
        3: (0.8, 0.6, 0.5, 0.4, 0.4),
    },
    "linear": {
        1: (1.0, 1.0, 1.0, 1.0, 1.0),
        3: (1.0, 1.0, 1.0, 1.0, 1.0),
    },
    "pca": {
        1: (52.0, 20.0, 13.0, 4.0, 2.0),
        3: (90.0, 40.0, 25.0, 13.0, 6.0),
    },
}


def installed() -> list[str]:
    """The names of all baselines that can be run here."""
    return [n for n in BASELINES if n != "bm3d" or importlib.util.find_spec("bm3d")]


def setting(name: str, sigma: float, channels: int) -> float:
    """The tuned number of a baseline at a level, interpolated."""
    table = TUNED.get(name, {}).get(channels)
    return 1.0 if table is None else float(np.interp(sigma, LEVELS, table))


def baseline(name: str) -> Callable[[Image, float | None], Image]:
    """(noisy [h, w, c] float32, sigma on the 0..255 scale or None) -> denoised float32.

    Raises:
      UserError: no such baseline.
    """
    if name not in BASELINES:
        raise UserError(f'no baseline "{name}"{did_you_mean(name, BASELINES)}')

    def run(x: Image, sigma: float | None = None) -> Image:
        s = 255 * estimate_sigma(x) if sigma is None else float(sigma)
        s = max(s, 0.1)
        return BASELINES[name](x, s, setting(name, s, x.shape[2])).astype(np.float32)

    return run


def method(name: str):
    """The same as a `protocol.Method`."""
    from aejax.denoising.protocol import Method

    return Method(baseline(name), note="tuned on training photographs")


def tune(
    images: Sequence[np.ndarray],
    names: Sequence[str],
    levels: Sequence[float] = LEVELS,
    say: Callable[[str], None] = lambda line: None,
) -> Mapping[str, list[float]]:
    """The best of each grid at each level on uint8 images [h, w, c], by mean PSNR."""
    from aejax.denoising.protocol import noisy_image, psnr, rounded

    best = {}
    for name in names:
        best[name] = []
        for sigma in levels:
            noisy = [noisy_image(x, sigma, i) for i, x in enumerate(images)]
            scores = []
            for value in GRIDS[name]:
                if name == "pca" and value > PATCH**2 * images[0].shape[2]:
                    break
                pairs = zip(images, noisy, strict=True)
                got = [psnr(x, rounded(BASELINES[name](n, sigma, value))) for x, n in pairs]
                scores.append(float(np.mean(got)))
            at = int(np.argmax(scores))
            best[name].append(float(GRIDS[name][at]))
            say(f"{name} sigma {sigma:g}: {GRIDS[name][at]:g} ({scores[at]:.2f} dB)")
    return best


def _main(folder: str) -> None:
    """Prints TUNED and writes linear.npz from a folder of training photographs."""
    import pathlib

    from aejax.denoising.protocol import clean_images

    kept, found = {}, {name: {} for name in BASELINES if len(GRIDS[name]) > 1}
    for channels in (1, 3):
        images = [x for _, x in clean_images(folder, channels)]
        s = fit_covariance([x for i, x in enumerate(images) if i % 20])
        s = s.astype(np.float32)
        scale = np.abs(s).max()
        key = "gray" if channels == 1 else "colour"
        kept |= {key: (s / scale).astype(np.float32), f"{key}_scale": scale}
    np.savez_compressed(pathlib.Path(__file__).with_name("linear.npz"), **kept)
    covariance.cache_clear()
    for channels in (1, 3):
        images = [x for _, x in clean_images(folder, channels)][::20]
        images = [x for x in images if min(x.shape[:2]) >= 192][::4][:8]
        crops = [x[(x.shape[0] - 192) // 2 :][:192, (x.shape[1] - 192) // 2 :][:, :192]
                 for x in images]  # fmt: skip
        for name, values in tune(crops, list(found), say=lambda s: print(s, flush=True)).items():
            found[name][channels] = tuple(values)
    print(found)


if __name__ == "__main__":
    import sys

    _main(sys.argv[1])
