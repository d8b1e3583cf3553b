"""The evaluation protocol for denoisers, specified completely so that tables can be reproduced.

White Gaussian noise of standard deviation sigma / 255 is added to the float image, neither clipped
nor rounded, drawn by NumPy's `default_rng(1000 * sigma + index)` with the index of the image in the
sorted list of its folder. All methods get the same noisy arrays. The output is clipped to [0, 1]
and rounded to 8 bits. PSNR is over the whole image and all channels, without cropping of borders;
the mean of the per-image PSNR is reported. SSIM is scikit-image's with Gaussian weights of sigma
1.5. Gray images are read as stored. Blind methods are never given sigma.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from aejax.denoising.tables import Row
from aejax.errors import UserError
from aejax.metrics.host import psnr, ssim

# A denoiser: (noisy [h, w, c] float32, sigma on the 0..255 scale or None) -> [h, w, c] float32.
Denoiser = Callable[[np.ndarray, float | None], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Method:
    """A denoiser to be measured.

    Attributes:
      run: (noisy, sigma or None) -> denoised, see `Denoiser`.
      blind: whether it is never given sigma.
      params: number of trained parameters; 0 if none.
      macs: multiply-accumulates per pixel; 0 if unknown.
      note: where its settings or weights come from.
    """

    run: Denoiser
    blind: bool = False
    params: int = 0
    macs: float = 0.0
    note: str = ""


def clean_images(folder: str | pathlib.Path, channels: int = 0) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 [h, w, c]) of the images of a folder, sorted by file name.

    Args:
      channels: 1 or 3 converts; 0 reads them as stored.

    Raises:
      UserError: no such folder, no images in it, or a file that is not an image.
    """
    from aejax.data.decode import flatten
    from aejax.data.images import read_image
    from aejax.data.walk import images_in

    return [(f.name, flatten(read_image(f)[0], channels)) for f in images_in(folder)]


def noisy_image(x: np.ndarray, sigma: float, index: int) -> Float[np.ndarray, "h w c"]:
    """Adds the protocol's white Gaussian noise to a clean image.

    Args:
      x: uint8 [h, w, c].
      sigma: standard deviation on the 0..255 scale.
      index: of the image in its set; with sigma the seed of the noise.

    Returns:
      float32, not clipped.

    >>> noisy = aejax.denoising.protocol.noisy_image(photo, 25, index=0)
    >>> noisy.shape, noisy.dtype
    ((64, 96, 3), dtype('float32'))
    """
    rng = np.random.default_rng(int(round(1000 * sigma)) + index)
    noise = rng.standard_normal(x.shape) * (sigma / 255.0)
    return (x.astype(np.float64) / 255.0 + noise).astype(np.float32)


def corrupted_image(
    x: np.ndarray, corruption: str, value: float, index: int
) -> Float[np.ndarray, "h w c"]:
    """Applies a corruption of `aejax.corrupt` to a clean uint8 image [h, w, c].

    Args:
      corruption: "gaussian" is `noisy_image`; "jpeg" encodes with libjpeg (4:2:0); any other name
        is that of `aejax.corrupt`, with a key from `value` and `index`.
      value: the level: the corruption's first parameter, or the quality of "jpeg".
      index: of the image in its set.

    Returns:
      float32 [h, w, c].

    Raises:
      UserError: no such corruption, or one without a parameter.
    """
    if corruption == "gaussian":
        return noisy_image(x, value, index)
    if corruption == "jpeg":
        return _jpeg(x, round(value))
    import jax

    from aejax.corrupt import chain, first_level

    spec = {"name": corruption, first_level(corruption): value}
    key = jax.random.key(int(round(1000 * value)) + index)
    clean = jax.numpy.asarray(x[None].astype(np.float32) / 255)
    return np.asarray(chain((spec,))(key, clean)[0][0])


def _jpeg(x: np.ndarray, quality: int) -> Float[np.ndarray, "h w c"]:
    import io

    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file), np.float32).reshape(x.shape) / 255


def rounded(y: np.ndarray) -> np.ndarray:
    """y, a float image, clipped to [0, 1] and rounded to uint8."""
    return np.round(np.clip(np.asarray(y, np.float64), 0, 1) * 255).astype(np.uint8)


def evaluate(
    images: Sequence[tuple[str, np.ndarray]],
    methods: Mapping[str, Method],
    sigmas: Sequence[float],
    *,
    corruption: str = "gaussian",
    with_ssim: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Measures all methods on the same noisy images: one row per method and level.

    Each new image shape is first run once without timing, so that compilation is not measured.

    Args:
      images: (name, uint8 [h, w, c]) as of `clean_images`.
      methods: {label: method}.
      sigmas: noise levels (0..255), or the levels of `corruption` (see `corrupted_image`).
      corruption: a method that is not blind gets the level only if this is "gaussian".
      with_ssim: also measure SSIM, which takes longer.
      progress: called with a line per row.

    Raises:
      UserError: a method returned a wrong shape or values that are not finite.
    """
    rows = []
    for name, method in methods.items():
        compiled: set[tuple[int, ...]] = set()  # shapes
        for sigma in sigmas:
            rows.append(_row(name, method, images, sigma, corruption, with_ssim, compiled))
            progress(rows[-1].line)
    return rows


def timed_run(
    method: Method,
    noisy: Float[np.ndarray, "h w c"],
    sigma: float | None,
    what: str,
    compiled: set[tuple[int, ...]],
) -> tuple[np.ndarray, float]:
    """Runs a method on an image and measures the time: (result uint8 [h, w, c], seconds).

    Args:
      what: names the method and the image in the error message.
      compiled: shapes that were run before. An image of a new shape is first run once without
        timing, and its shape is added.

    Raises:
      UserError: the result has a wrong shape or values that are not finite.
    """
    if noisy.shape not in compiled:
        method.run(noisy, sigma)
        compiled.add(noisy.shape)
    start = time.perf_counter()
    y = np.asarray(method.run(noisy, sigma))
    seconds = time.perf_counter() - start
    if y.shape != noisy.shape or not np.isfinite(y).all():
        raise UserError(
            f"{what}: the result has shape {y.shape}, not {noisy.shape}, or NaN or infinite values"
        )
    return rounded(y), seconds


def _row(
    name: str,
    method: Method,
    images: Sequence[tuple[str, np.ndarray]],
    sigma: float,
    corruption: str,
    with_ssim: bool,
    compiled: set[tuple[int, ...]],
) -> Row:
    """A row of `evaluate`; `compiled` as of `timed_run`."""
    level = None if method.blind or corruption != "gaussian" else float(sigma)
    psnrs, ssims, noisy_psnrs, noisy_ssims, seconds, pixels = [], [], [], [], 0.0, 0
    for index, (file, x) in enumerate(images):
        noisy = corrupted_image(x, corruption, sigma, index)
        y, elapsed = timed_run(method, noisy, level, f"{name} on {file}", compiled)
        seconds += elapsed
        pixels += x.shape[0] * x.shape[1]
        psnrs.append(psnr(x, y))
        noisy_psnrs.append(psnr(x, rounded(noisy)))
        if with_ssim:
            ssims.append(ssim(x, y))
            noisy_ssims.append(ssim(x, rounded(noisy)))
    return Row(
        method=name,
        sigma=float(sigma),
        psnr=float(np.mean(psnrs)),
        ssim=float(np.mean(ssims)) if ssims else None,
        noisy_psnr=float(np.mean(noisy_psnrs)),
        noisy_ssim=float(np.mean(noisy_ssims)) if noisy_ssims else None,
        seconds_per_mp=seconds / pixels * 1e6,
        params=method.params,
        kmac_per_px=method.macs / 1e3,
        blind=method.blind,
        note=method.note,
        per_image=[round(v, 4) for v in psnrs],
        corruption=corruption,
    )
