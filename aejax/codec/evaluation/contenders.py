"""The codecs that are compared, through Pillow and imagecodecs. "jpeg" is Pillow's with its
defaults (4:2:0)."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aejax.codec.installed import METRICS, runtime_for
from aejax.codec.runtime import Runtime
from aejax.weights import FOLDER


@dataclasses.dataclass(frozen=True)
class Contender:
    """A codec.

    Attributes:
      settings: from low to high quality.
      encode: (uint8 [h, w, 3], setting) -> file.
      decode: file -> uint8 [h, w, 3].
      sized: (uint8 [h, w, 3], bytes) -> file of about that size; None if the codec has no rate
        control.
    """

    settings: Sequence[Any]
    encode: Callable[[np.ndarray, Any], bytes]
    decode: Callable[[bytes], np.ndarray]
    sized: Callable[[np.ndarray, int], bytes] | None = None


def _pillow(kind: str, settings, options: Callable[[Any], dict]) -> Contender:
    from PIL import Image

    def encode(x, setting):
        out = io.BytesIO()
        Image.fromarray(x).save(out, kind, **options(setting))
        return out.getvalue()

    def decode(data):
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    return Contender(settings, encode, decode)


def contenders(runtime: Runtime | None = None, effort: int = 0) -> dict[str, Contender]:
    """name -> codec, of all that are installed; aejax first.

    Args:
      runtime: of other weights for aejax, from `installed.use`.
      effort: if not 0, also aejax with this effort.
    """
    return (
        _aejax(runtime, effort)
        | _of_pillow()
        | _of_imagecodecs()
        | {"png": _pillow("PNG", (0,), lambda _: {"optimize": True})}
    )


def _aejax(runtime: Runtime | None, effort: int) -> dict[str, Contender]:
    from aejax.codec import api as codec

    qualities = tuple(range(0, 101, 10))

    def contender(chosen: Runtime, effort: int = 0) -> Contender:
        def encode(x, quality):
            return codec.encode(x, quality, runtime=chosen, effort=effort)

        def sized(x, size):
            return codec.encode(x, size=size, runtime=chosen)

        # Effort 9 takes a minute per image: only every other point of the curve is measured.
        return Contender(qualities[1::2] if effort else qualities, encode, codec.decode, sized)

    out: dict[str, Contender] = {}
    if runtime is not None:
        out["aejax"] = contender(runtime)
    else:
        for metric, name in METRICS.items():
            if (FOLDER / f"{name}.safetensors").exists():
                label = "aejax" if metric == "mse" else f"aejax {metric}"
                out[label] = contender(runtime_for(metric))
    if effort and "aejax" in out:
        out[f"aejax effort {effort}"] = contender(runtime or runtime_for(), effort)
    return out


def _of_pillow() -> dict[str, Contender]:
    from PIL import features

    out: dict[str, Contender] = {}
    steps = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
    out["jpeg"] = _pillow("JPEG", steps, lambda q: {"quality": q})
    out["jpeg optimised"] = _pillow(
        "JPEG", steps, lambda q: {"quality": q, "optimize": True, "progressive": True}
    )
    if features.check("jpg_2000"):
        ratios = (240, 160, 100, 70, 48, 32, 24, 16, 12, 8)
        out["jpeg 2000"] = _pillow(
            "JPEG2000",
            ratios,
            lambda r: {
                "quality_mode": "rates",
                "quality_layers": [r],
                "irreversible": True,
                "mct": 1,  # colour transform, off by default
            },
        )
    if features.check("webp"):
        out["webp"] = _pillow(
            "WEBP", (0, 5, 10, 20, 35, 50, 65, 80, 90, 95), lambda q: {"quality": q, "method": 6}
        )
    if features.check("avif"):
        out["avif"] = _pillow(
            "AVIF", (10, 20, 30, 40, 50, 60, 70, 80, 90), lambda q: {"quality": q, "speed": 6}
        )
    return out


def _of_imagecodecs() -> dict[str, Contender]:
    try:
        import imagecodecs
    except ImportError:
        return {}
    if not imagecodecs.JPEGXL.available:
        return {}
    distances = (12.0, 8.0, 6.0, 4.5, 3.5, 2.5, 1.8, 1.2, 0.7)
    jpeg_xl = Contender(
        distances,
        lambda x, d: imagecodecs.jpegxl_encode(x, distance=d, effort=7),
        imagecodecs.jpegxl_decode,
    )
    return {"jpeg xl": jpeg_xl}
