"""How denoisers are measured, to the last rounding, so that a table can be reproduced.

White Gaussian noise of standard deviation sigma / 255 is added to the float image, neither clipped
nor rounded, drawn by NumPy's `default_rng(1000 * sigma + index)` with the index of the image in the
sorted list of its folder. Every method of a run gets the same noisy arrays. The output is clipped
to [0, 1] and rounded to 8 bits; PSNR is over the whole image and all channels, no border cropped,
and the mean of the images' PSNR is reported. SSIM is scikit-image's with Gaussian weights of sigma
1.5. Gray sets are taken as stored. Blind methods are never given sigma.
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
    """What is measured.

    Attributes:
      run: (noisy, sigma or None) -> denoised.
      blind: it is never given sigma.
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
      channels: 1 or 3 converts; 0 takes them as stored.

    Raises:
      UserError: no such folder or no images in it; a file that is no picture.
    """
    from aejax.data.decode import flatten
    from aejax.data.images import read_image
    from aejax.data.walk import images_in

    return [(f.name, flatten(read_image(f)[0], channels)) for f in images_in(folder)]


def noisy_image(x: np.ndarray, sigma: float, index: int) -> Float[np.ndarray, "h w c"]:
    """The noisy float32 image of the protocol from a clean uint8 one [h, w, c]."""
    rng = np.random.default_rng(int(round(1000 * sigma)) + index)
    noise = rng.standard_normal(x.shape) * (sigma / 255.0)
    return (x.astype(np.float64) / 255.0 + noise).astype(np.float32)


def corrupted_image(
    x: np.ndarray, corruption: str, value: float, index: int
) -> Float[np.ndarray, "h w c"]:
    """A float32 image from a clean uint8 one [h, w, c] by a corruption of `aejax.corrupt`.

    Its first parameter is `value`: "gaussian" is `noisy_image`, "jpeg" a real file (libjpeg's
    quality, 4:2:0), the others are drawn with a key of `value` and `index`.

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
    """Clipped to [0, 1] and rounded to 8 bits: uint8."""
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
    """One row per method and sigma, each method on the same noisy arrays; each new image shape is
    run once unmeasured, so that compilation is not in the time.

    Args:
      corruption: other than "gaussian", `sigmas` are its levels (see `corrupted_image`) and no
        method is given them.

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
    """(uint8 [h, w, c], seconds) of a method on an image.

    Args:
      what: the method and the image, for the error.
      compiled: shapes that have been run; another one is run once more first, and added.

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
        raise UserError(f"{what}: shape {y.shape} or values not finite")
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
    """A row of `evaluate`; shapes that are not in `compiled` are run once more and added."""
    given = None if method.blind or corruption != "gaussian" else float(sigma)
    values, similar, noisy_values, noisy_similar, seconds, pixels = [], [], [], [], 0.0, 0
    for index, (file, x) in enumerate(images):
        noisy = corrupted_image(x, corruption, sigma, index)
        y, took = timed_run(method, noisy, given, f"{name} on {file}", compiled)
        seconds += took
        pixels += x.shape[0] * x.shape[1]
        values.append(psnr(x, y))
        noisy_values.append(psnr(x, rounded(noisy)))
        if with_ssim:
            similar.append(ssim(x, y))
            noisy_similar.append(ssim(x, rounded(noisy)))
    return Row(
        method=name,
        sigma=float(sigma),
        psnr=float(np.mean(values)),
        ssim=float(np.mean(similar)) if similar else None,
        noisy_psnr=float(np.mean(noisy_values)),
        noisy_ssim=float(np.mean(noisy_similar)) if noisy_similar else None,
        seconds_per_mp=seconds / pixels * 1e6,
        params=method.params,
        kmac_per_px=method.macs / 1e3,
        blind=method.blind,
        note=method.note,
        per_image=[round(v, 4) for v in values],
        corruption=corruption,
    )
