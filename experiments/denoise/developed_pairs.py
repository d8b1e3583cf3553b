"""Simulates pairs of noisy and clean photographs, to choose between trainings without a test set.

    python experiments/denoise/developed_pairs.py CLEAN OUT
    aejax eval-denoise OUT --pairs --model runs/denoise_colour_real

A camera takes SHOTS photographs of each picture of CLEAN (the held-out ones of clean_photos.py,
enlarged 2.5 to 4.5 times, as the pixels of real cameras are soft): linear light, white balance,
mosaic, raw noise, bilinear demosaicing, colour matrix, tone curve, then what corruption `camera`
does *not* do: a bilateral or non-local-means filter of luma, blurred chroma, sharpening, resizing,
and a real JPEG. OUT gets the first as NAME_real.jpg and the mean of the others as NAME_mean.png,
224 x 224 pixels.

Cost: about a second of one core for a picture (2.7 s for three, imports included).
"""

import io
import pathlib
import sys

import numpy as np
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from skimage.color import rgb2ycbcr, ycbcr2rgb
from skimage.restoration import denoise_bilateral, denoise_nl_means

SHOTS, SIDE = 13, 224
GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4


def demosaiced(raw: np.ndarray) -> np.ndarray:
    """Bilinear, RGGB: of raw [h, w, 3] each pixel's own colour is used."""
    masks = np.zeros(raw.shape)
    masks[::2, ::2, 0] = masks[1::2, ::2, 1] = masks[::2, 1::2, 1] = masks[1::2, 1::2, 2] = 1
    kernels = (RED_BLUE, GREEN, RED_BLUE)
    return np.stack([convolve(raw[..., c] * masks[..., c], kernels[c]) for c in range(3)], -1)


class Camera:
    """One camera with its settings, drawn by `rng`."""

    def __init__(self, rng: np.random.Generator):
        self.gains = np.array([rng.uniform(1.4, 2.2), 1.0, rng.uniform(1.3, 2.0)])
        self.shot = np.exp(rng.uniform(np.log(2e-3), np.log(1.5e-2)))
        self.read = self.shot * np.exp(rng.uniform(np.log(2e-3), np.log(5e-2)))
        k = rng.uniform(0.2, 0.8)
        self.matrix = (1 + k) * np.eye(3) - k / 3
        self.softness = rng.uniform(0.4, 1.0)  # pixels
        self.luma = rng.choice(["bilateral", "nlm", "none"], p=[0.45, 0.35, 0.2])
        self.share = rng.uniform(0.5, 1.0)  # of the luma filter
        self.chroma = rng.uniform(0.7, 2.5)  # pixels
        self.sharpening = rng.uniform(0.0, 0.5)
        self.scale = rng.choice([1.0, 1.0, 0.75])
        self.quality = int(rng.integers(90, 99))

    def develop(self, x: np.ndarray, rng: np.random.Generator) -> bytes:
        """x [h, w, 3] in [0, 1] as the JPEG that the camera delivers."""
        raw = (x**2.2) @ np.linalg.inv(self.matrix).T / self.gains
        noise = rng.standard_normal(x.shape)
        raw = raw + noise * np.sqrt(np.maximum(raw, 0) * self.shot + self.read)
        y = np.clip((demosaiced(raw) * self.gains) @ self.matrix.T, 0, 1) ** (1 / 2.2)
        ycc = rgb2ycbcr(y)
        luma, level = gaussian_filter(ycc[..., 0] / 255, self.softness), np.sqrt(self.shot) * 0.5
        if self.luma == "bilateral":
            smooth = denoise_bilateral(luma, sigma_color=3 * level, sigma_spatial=1.5)
        elif self.luma == "nlm":
            smooth = denoise_nl_means(luma, 3, 5, h=0.8 * level, fast_mode=True)
        else:
            smooth = luma
        luma = luma + self.share * (smooth - luma)
        luma = luma + self.sharpening * (luma - gaussian_filter(luma, 1.0))
        ycc[..., 0] = 255 * luma
        for c in (1, 2):
            ycc[..., c] = gaussian_filter(ycc[..., c], self.chroma)
        y = Image.fromarray(np.uint8(np.clip(ycbcr2rgb(ycc), 0, 1) * 255 + 0.5))
        size = tuple(round(n * self.scale) for n in y.size)
        file = io.BytesIO()
        y.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=self.quality)
        return file.getvalue()


def shown(photograph: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photograph)), np.float64)


def main(source: str, out: str) -> None:
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for file in sorted(pathlib.Path(source).iterdir()):
        camera = Camera(rng)
        picture = Image.open(file).convert("RGB")
        need = round(SIDE / camera.scale / min(picture.size) * 100 + 0.5) / 100
        factor = max(need, rng.uniform(2.5, 4.5))
        size = tuple(round(n * factor) for n in picture.size)
        side = round(SIDE / camera.scale)
        x = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float64) / 255
        top, left = ((n - side) // 2 for n in x.shape[:2])
        x = x[top : top + side, left : left + side]
        shots = [camera.develop(x, rng) for _ in range(SHOTS)]
        (folder / f"{file.stem}_real.jpg").write_bytes(shots[0])
        mean = np.mean([shown(s) for s in shots[1:]], 0)
        Image.fromarray(np.uint8(mean + 0.5)).save(folder / f"{file.stem}_mean.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
