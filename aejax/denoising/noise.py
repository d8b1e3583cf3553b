"""How noisy is it? From the image alone, and from what a denoiser took away."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float

from aejax.pictures import LUMA

Image = Float[np.ndarray, "h w c"]


def estimate_sigma(x: np.ndarray, patches: int = 20000) -> float:
    """Standard deviation of the white noise in x [h, w] or [h, w, c], in x's own units.

    Chen, Zhu and Heng, "An efficient statistical method for image noise level estimation" (ICCV
    2015): the eigenvalues of the covariance of 8x8 patches are noise alone but for the first few,
    which hold the picture; the largest set of small ones whose mean is their median is the noise.
    Channels are estimated apart and their variances averaged. Within 1 (of 255) of the truth
    from sigma 15 up on most photographs; busy texture makes it too high.
    Images with a side below 16 give the median absolute deviation of diagonal differences.
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
        rest = values[i:]
        mean = rest.mean()
        if np.sum(rest > mean) >= np.sum(rest < mean):
            return float(mean)
    return float(values[-1])


def local_level(removed: Image, width: float = 8.0) -> Float[np.ndarray, "h w 1"]:
    """Root mean square of noise [h, w, c] around each pixel: a Gaussian of `width` pixels."""
    from scipy.ndimage import gaussian_filter

    power = np.mean(np.square(removed, dtype=np.float32), axis=2)
    return np.sqrt(np.maximum(gaussian_filter(power, width, mode="reflect"), 0))[..., None]


@dataclasses.dataclass(frozen=True)
class NoiseReport:
    """What the noise of a photograph is like, from what a denoiser took away (0..255 scale).

    Attributes:
      level: root mean square of all channels.
      luma, chroma: of the two parts; chroma is 0 for a gray image.
      by_brightness: (brightness in [0, 1], level there) in the tenths that hold 1 % of the pixels.
      correlation: (distance in pixels, correlation of the luma noise), 1, 2, 4 and 8 apart; white
        noise has none.
      map: [h, w], the level around each pixel.
    """

    level: float
    luma: float
    chroma: float
    by_brightness: tuple[tuple[float, float], ...]
    correlation: tuple[tuple[int, float], ...]
    map: Float[np.ndarray, "h w"]

    def text(self) -> str:
        """The numbers in lines."""
        tones = ", ".join(f"{s:.1f} at {v:.2f}" for v, s in self.by_brightness)
        near = ", ".join(f"{r:.2f} at {d}" for d, r in self.correlation)
        return (
            f"noise level {self.level:.1f} of 255: luma {self.luma:.1f}, chroma {self.chroma:.1f}\n"
            f"by brightness (0 to 1): {tones}\n"
            f"correlation by distance in pixels (white noise: 0): {near}\n"
            f"from place to place: {np.percentile(self.map, 5):.1f} to "
            f"{np.percentile(self.map, 95):.1f}\n"
        )

    def draw(self, path: str | pathlib.Path) -> None:
        """The map, and the level against brightness, as a picture file."""
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
    """The report on x [h, w, c] in [0, 1], of which y is the denoised version."""
    removed = 255 * (np.asarray(x, np.float32) - np.asarray(y, np.float32))
    gray = removed.shape[2] == 1
    luma = removed[..., 0] if gray else removed @ LUMA
    bright = np.clip(np.asarray(y)[..., 0] if gray else np.asarray(y) @ LUMA, 0, 1)
    power = np.mean(np.square(removed), axis=2)
    tones = []
    for k in range(10):
        here = (bright >= k / 10) & (bright < (k + 1) / 10 + (k == 9))
        if here.mean() >= 0.01:
            tones.append((float(bright[here].mean()), float(np.sqrt(power[here].mean()))))
    centred = luma - luma.mean()
    variance = float(np.mean(np.square(centred))) + 1e-12
    near = []
    for d in (1, 2, 4, 8):
        if min(centred.shape) > d:
            products = np.mean(centred[d:] * centred[:-d]) + np.mean(
                centred[:, d:] * centred[:, :-d]
            )
            near.append((d, float(products) / 2 / variance))
    return NoiseReport(
        level=float(np.sqrt(power.mean())),
        luma=float(np.sqrt(np.mean(np.square(luma)))),
        chroma=0.0 if gray else float(np.sqrt(np.mean(np.square(removed - luma[..., None])))),
        by_brightness=tuple(tones),
        correlation=tuple(near),
        map=local_level(removed)[..., 0],
    )
