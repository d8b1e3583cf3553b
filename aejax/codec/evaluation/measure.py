"""Measures file size, PSNR, MS-SSIM and time of codecs on images."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from aejax.codec.evaluation.contenders import Contender
from aejax.metrics.host import psnr


def read_images(folder: str, limit: int = 0) -> dict[str, np.ndarray]:
    """file name without suffix -> uint8 RGB [h, w, 3].

    Args:
      limit: only the first so many; 0 = all.

    Raises:
      UserError: the folder has no images.
    """
    from aejax.data.decode import flatten
    from aejax.data.images import read_image
    from aejax.data.walk import images_in

    named = images_in(folder)[: limit or None]
    return {f.stem: flatten(read_image(f)[0], 3) for f in named}


CEILING = 10.0 * math.log10(255.0**2 / 1e-3)  # PSNR of equal images: curves need a finite number


def psnr_of(x: np.ndarray, y: np.ndarray) -> float:
    """PSNR in dB of uint8 images, at most CEILING."""
    return min(psnr(x, y), CEILING)


def quality_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(PSNR in dB, MS-SSIM) of uint8 images."""
    import jax.numpy as jnp

    a, b = (jnp.asarray(v[None], jnp.float32) / 255.0 for v in (x, y))
    return psnr_of(x, y), float(_compiled_ms_ssim()(a, b)[0])


@functools.cache
def _compiled_ms_ssim() -> Callable:
    import jax

    from aejax.metrics import image as metrics

    return jax.jit(metrics.ms_ssim)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One image coded by one codec at one setting.

    Attributes:
      bytes: of the whole file; bpp: bits of it per pixel.
      psnr: dB; ms_ssim: 0 to 1, both of uint8 RGB.
      encode_s, decode_s: seconds.
    """

    codec: str
    setting: Any
    image: str
    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float
    encode_s: float
    decode_s: float


def measure(
    images: dict[str, np.ndarray], codecs: dict[str, Contender], say: Callable[[str], None]
) -> list[Measured]:
    """One row per image, codec and setting.

    Args:
      images: name -> uint8 RGB [h, w, 3].
      codecs: name -> codec.
      say: called with a line of text after each codec.
    """
    rows = []
    for name, c in codecs.items():
        # Warm-up: loads and compiles. Effort 0 is enough for it.
        encode = codecs["aejax"].encode if "effort" in name else c.encode
        for x in {x.shape: x for x in images.values()}.values():
            c.decode(encode(x, c.settings[0]))
        for setting in c.settings:
            for image, x in images.items():
                t0 = time.perf_counter()
                data = c.encode(x, setting)
                t1 = time.perf_counter()
                y = c.decode(data)
                t2 = time.perf_counter()
                psnr, ms_ssim = quality_of(x, y)
                bpp = 8 * len(data) / (x.shape[0] * x.shape[1])
                rows.append(
                    Measured(name, setting, image, len(data), bpp, psnr, ms_ssim, t1 - t0, t2 - t1)
                )
        say(f"{name}: {len(c.settings)} settings x {len(images)} images")
    return rows
