"""Classical denoisers as baselines, with one interface, tuned on training photographs.

`baseline("nlm")(noisy, sigma)` takes [h, w, c] float32 and sigma on the 0..255 scale, or None, in
which case it is estimated from the image. Every filter has at most one parameter to tune. TUNED
holds its best value at a few levels, found by `tune` in a grid on crops of training photographs
(never on a test set); values between levels are interpolated.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aejax.denoising import filters, linear
from aejax.denoising.filters import Image
from aejax.denoising.noise import estimate_sigma
from aejax.denoising.protocol import Method, clean_images, noisy_image, psnr, rounded
from aejax.errors import UserError
from aejax.registry import did_you_mean

# Grids of the parameters, and below (TUNED) the best values at LEVELS by the mean PSNR over the
# middle 192x192 pixels of eight held-out training photographs:
# `python -m aejax.denoising.baselines FOLDER`.
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
    "bm3d": (1.0,),  # tuned by its authors; it takes the true sigma
}
BASELINES: dict[str, Callable[[Image, float, float], Image]] = {
    "mean": filters.mean,
    "median": filters.median,
    "gaussian": filters.gaussian,
    "bilateral": filters.bilateral,
    "wiener": filters.wiener,
    "tv": filters.tv,
    "wavelet": filters.wavelet,
    "nlm": filters.nlm,
    "linear": linear.linear,
    "pca": linear.pca,
    "bm3d": filters.bm3d,
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
    """Names of the baselines whose libraries are installed (only bm3d may be missing)."""
    return [n for n in BASELINES if n != "bm3d" or importlib.util.find_spec("bm3d")]


def setting(name: str, sigma: float, channels: int) -> float:
    """The tuned parameter of a baseline at noise level sigma (0..255), interpolated."""
    table = TUNED.get(name, {}).get(channels)
    return 1.0 if table is None else float(np.interp(sigma, LEVELS, table))


def baseline(name: str) -> Callable[[Image, float | None], Image]:
    """A function (noisy [h, w, c] float32, sigma on the 0..255 scale or None) -> denoised float32.

    Raises:
      UserError: no such baseline.

    >>> noisy = np.float32(photo / 255)
    >>> aejax.denoising.baselines.baseline("gaussian")(noisy, 15).shape
    (64, 96, 3)
    """
    if name not in BASELINES:
        raise UserError(f'no baseline "{name}"{did_you_mean(name, BASELINES)}')

    def run(x: Image, sigma: float | None = None) -> Image:
        s = 255 * estimate_sigma(x) if sigma is None else float(sigma)
        s = max(s, 0.1)
        return BASELINES[name](x, s, setting(name, s, x.shape[2])).astype(np.float32)

    return run


def method(name: str) -> Method:
    """`baseline` as a `Method` of the evaluation protocol.

    Raises:
      UserError: no such baseline.
    """
    return Method(baseline(name), note="tuned on training photographs")


def tune(
    images: Sequence[np.ndarray],
    names: Sequence[str],
    levels: Sequence[float] = LEVELS,
    log: Callable[[str], None] = lambda line: None,
) -> Mapping[str, list[float]]:
    """The best parameter value of each baseline at each level, by mean PSNR.

    Args:
      images: uint8 [h, w, c].
      names: keys of BASELINES.
      levels: sigma on the 0..255 scale.
      log: called with a line per baseline and level.

    Returns:
      {name: [value at each level]}.
    """
    best = {}
    for name in names:
        best[name] = []
        for sigma in levels:
            noisy = [noisy_image(x, sigma, i) for i, x in enumerate(images)]
            scores = []
            for value in GRIDS[name]:
                if name == "pca" and value > linear.PATCH**2 * images[0].shape[2]:
                    break
                pairs = zip(images, noisy, strict=True)
                each = [psnr(x, rounded(BASELINES[name](n, sigma, value))) for x, n in pairs]
                scores.append(float(np.mean(each)))
            i = int(np.argmax(scores))
            best[name].append(float(GRIDS[name][i]))
            log(f"{name} sigma {sigma:g}: {GRIDS[name][i]:g} ({scores[i]:.2f} dB)")
    return best


def _main(folder: str) -> None:
    """Computes TUNED (printed) and linear.npz (written) from a folder of training photographs."""
    arrays: dict[str, np.ndarray] = {}
    tuned: dict[str, dict[int, tuple[float, ...]]] = {
        name: {} for name in BASELINES if len(GRIDS[name]) > 1
    }
    for channels in (1, 3):
        images = [x for _, x in clean_images(folder, channels)]
        s = linear.fit_covariance([x for i, x in enumerate(images) if i % 20])
        s = s.astype(np.float32)
        scale = np.abs(s).max()
        key = "gray" if channels == 1 else "colour"
        arrays |= {key: (s / scale).astype(np.float32), f"{key}_scale": scale}
    file = pathlib.Path(__file__).with_name("linear.npz")
    np.savez_compressed(file, **arrays)  # pyrefly: ignore
    linear.covariance.cache_clear()
    for channels in (1, 3):
        images = [x for _, x in clean_images(folder, channels)][::20]
        images = [x for x in images if min(x.shape[:2]) >= 192][::4][:8]
        crops = [x[(x.shape[0] - 192) // 2 :][:192, (x.shape[1] - 192) // 2 :][:, :192]
                 for x in images]  # fmt: skip
        for name, values in tune(crops, list(tuned), log=lambda s: print(s, flush=True)).items():
            tuned[name][channels] = tuple(values)
    print(tuned)


if __name__ == "__main__":
    import sys

    _main(sys.argv[1])
