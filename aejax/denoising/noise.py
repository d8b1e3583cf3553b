"""Estimation of the noise level from the image alone, and analysis of the noise that a denoiser
removed."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float

from aejax.pictures import LUMA

Image = Float[np.ndarray, "h w c"]


def estimate_sigma(x: np.ndarray, patches: int = 20000) -> float:
    """Standard deviation of the white noise in x [h, w] or [h, w, c], in x's own units.

    Chen, Zhu and Heng, "An efficient statistical method for image noise level estimation" (ICCV
    2015): all but the largest eigenvalues of the covariance of 8x8 patches are due to noise; the
    noise variance is the mean of the largest set of small eigenvalues whose mean equals its median.
    Variances of the channels are averaged. Within 1 (of 255) of the truth from sigma 15 up on most
    photographs; dense texture gives too high a value. For images with a side below 16: the median
    absolute deviation of diagonal differences.

    Args:
      patches: maximum number of patches, drawn at random with a fixed seed.

    >>> noisy = photo / 255 + np.random.default_rng(0).normal(0, 25 / 255, photo.shape)
    >>> 20 < 255 * aejax.denoising.noise.estimate_sigma(noisy) < 30
    True
    """
    x = np.asarray(x)
    x = x[..., None] if x.ndim == 2 else x
    return float(np.sqrt(np.mean([_variance(x[..., c], patches) for c in range(x.shape[-1])])))


def _variance(x: np.ndarray, patches: int) -> float:
    d = 8
    x = x if min(x.shape) >= 2 * d else x.astype(np.float64)
    if min(x.shape) < 2:
        return 0.0
    if min(x.shape) < 2 * d:
        diagonal = (x[1:, 1:] - x[1:, :-1] - x[:-1, 1:] + x[:-1, :-1]) / 2
        return float((np.median(np.abs(diagonal)) / 0.6745) ** 2)
    windows = np.lib.stride_tricks.sliding_window_view(x, (d, d))
    total = windows.shape[0] * windows.shape[1]
    pick = np.arange(total)
    if total > patches:
        pick = np.random.default_rng(0).integers(total, size=patches)
    flat = windows[pick // windows.shape[1], pick % windows.shape[1]]
    flat = flat.reshape(-1, d * d).astype(np.float64)
    values = np.sort(np.linalg.eigvalsh(np.cov(flat, rowvar=False)))[::-1]
    values = np.maximum(values, 0)
    for i in range(len(values)):
        smallest = values[i:]
        mean = smallest.mean()
        if np.sum(smallest > mean) >= np.sum(smallest < mean):
            return float(mean)
    return float(values[-1])


def local_level(removed: Image, width: float = 8.0) -> Float[np.ndarray, "h w 1"]:
    """RMS of noise [h, w, c] around each pixel, in a Gaussian window of `width` pixels."""
    from scipy.ndimage import gaussian_filter

    power = np.mean(np.square(removed, dtype=np.float32), axis=2)
    return np.sqrt(np.maximum(gaussian_filter(power, width, mode="reflect"), 0))[..., None]


@dataclasses.dataclass(frozen=True)
class NoiseReport:
    """Properties of a photograph's noise, measured on what a denoiser removed (0..255 scale).

    Attributes:
      level: RMS over all channels.
      luma, chroma: RMS of the two components; chroma is 0 for a gray image.
      by_brightness: (mean brightness in [0, 1], RMS) of each tenth of the brightness range that has
        at least 1 % of the pixels.
      correlation: (distance in pixels, correlation of the luma noise) at distances 1, 2, 4 and 8;
        0 for white noise.
      map: [h, w], RMS around each pixel (`local_level`).
    """

    level: float
    luma: float
    chroma: float
    by_brightness: tuple[tuple[float, float], ...]
    correlation: tuple[tuple[int, float], ...]
    map: Float[np.ndarray, "h w"]

    def text(self) -> str:
        """The numbers as text of several lines."""
        levels = ", ".join(f"{s:.1f} at {v:.2f}" for v, s in self.by_brightness)
        correlations = ", ".join(f"{r:.2f} at {d}" for d, r in self.correlation)
        return (
            f"noise level {self.level:.1f} of 255: luma {self.luma:.1f}, chroma {self.chroma:.1f}\n"
            f"by brightness (0 to 1): {levels}\n"
            f"correlation by distance in pixels (white noise: 0): {correlations}\n"
            f"from place to place (5 % to 95 %): {np.percentile(self.map, 5):.1f} to "
            f"{np.percentile(self.map, 95):.1f}\n"
        )

    def draw(self, path: str | pathlib.Path) -> None:
        """Writes an image file with the map and a plot of the level against brightness."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
        shown = left.imshow(self.map, vmin=0, cmap="magma")
        fig.colorbar(shown, ax=left, label="noise level (of 255)")
        left.set_axis_off()
        right.plot(*zip(*self.by_brightness, strict=True), "o-")
        right.set(xlabel="brightness", ylabel="noise level (of 255)", xlim=(0, 1))
        right.set_ylim(bottom=0)
        right.grid(alpha=0.3)
        fig.tight_layout()
        fig.savefig(path, dpi=110)
        plt.close(fig)


def noise_report(x: Image, y: Image) -> NoiseReport:
    """Analyses the noise x - y of an image x in [0, 1] with denoised version y."""
    removed = 255 * (np.asarray(x, np.float32) - np.asarray(y, np.float32))
    gray = removed.shape[2] == 1
    luma = removed[..., 0] if gray else removed @ LUMA
    brightness = np.clip(np.asarray(y)[..., 0] if gray else np.asarray(y) @ LUMA, 0, 1)
    power = np.mean(np.square(removed), axis=2)
    by_brightness = []
    for k in range(10):
        mask = (brightness >= k / 10) & (brightness < (k + 1) / 10 + (k == 9))
        if mask.mean() >= 0.01:
            rms = float(np.sqrt(power[mask].mean()))
            by_brightness.append((float(brightness[mask].mean()), rms))
    centred = luma - luma.mean()
    variance = float(np.mean(np.square(centred))) + 1e-12
    correlation = []
    for d in (1, 2, 4, 8):
        if min(centred.shape) > d:
            products = np.mean(centred[d:] * centred[:-d]) + np.mean(
                centred[:, d:] * centred[:, :-d]
            )
            correlation.append((d, float(products) / 2 / variance))
    return NoiseReport(
        level=float(np.sqrt(power.mean())),
        luma=float(np.sqrt(np.mean(np.square(luma)))),
        chroma=0.0 if gray else float(np.sqrt(np.mean(np.square(removed - luma[..., None])))),
        by_brightness=tuple(by_brightness),
        correlation=tuple(correlation),
        map=local_level(removed)[..., 0],
    )
