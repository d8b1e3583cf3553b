"""The models of a server. Pictures are uint8 [h, w, c].

Every method but `info` and `sample` takes a list with an item of each request of a batch, and
returns a list with a result for each.
"""

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.metrics.host import psnr

if TYPE_CHECKING:
    import jax

Picture = np.ndarray  # uint8 [h, w, 1 or 3]


@dataclasses.dataclass(frozen=True)
class Denoised:
    """A denoised picture, and the root mean square of the noise that was removed (0 to 255)."""

    image: Picture
    removed: float


@dataclasses.dataclass(frozen=True)
class Compared:
    """A picture compressed by the codec, and by JPEG at no more bytes (or as its smallest file).

    Attributes:
      coded, jpeg: the decompressed pictures.
      bytes, jpeg_bytes: the sizes of the files.
      psnr, jpeg_psnr: in dB on the 8-bit scale.
      jpeg_quality: 1 to 95, as Pillow counts.
    """

    coded: Picture
    bytes: int
    psnr: float
    jpeg: Picture
    jpeg_bytes: int
    jpeg_psnr: float
    jpeg_quality: int


class Work(Protocol):
    """What the routes need: `Models`, or a stand-in for it."""

    def info(self) -> JsonObject: ...
    def denoise(self, items: Sequence[tuple[Picture, float]]) -> list[Denoised]: ...
    def encode(self, items: Sequence[tuple[Picture, float]]) -> list[bytes]: ...
    def decode(self, items: Sequence[tuple[bytes, int]]) -> list[Picture]: ...
    def compare(self, items: Sequence[tuple[Picture, float]]) -> list[Compared]: ...
    def latents(self, items: Sequence[Picture]) -> list[np.ndarray]: ...
    def sample(self, n: int, label: int | None, guidance: float | None, seed: int) -> Picture: ...


class Models:
    """The models of a server, each loaded when it is first used.

    Args:
      denoiser: a model as `aejax.denoise` takes it.
      generator: name of a shipped generator, or the folder of a run.
      encoder: model for `latents`; "" = the generator.
    """

    def __init__(self, denoiser: str = "auto", generator: str = "fashion-mnist", encoder: str = ""):
        self._denoiser, self._generator_name = denoiser, generator
        self._encoder_name = encoder or generator
        self._compiled: dict[tuple[str, int], Callable[[np.ndarray], jax.Array]] = {}

    def info(self) -> JsonObject:
        """Names of the models, classes and shapes, for /api/info."""
        return {
            "denoiser": self._denoiser,
            "generator": self._generator.name,
            "classes": list(self._generator.class_names)
            or [str(i) for i in range(self._generator.classes)],
            "guided": self._generator.classes > 0,
            "encoder": self._encoder_name,
            "latents_of": list(self._encoder.shape or ()),
        }

    @functools.cached_property
    def _generator(self):
        import pathlib

        from aejax.generation.generator import load_generator

        name = self._generator_name
        is_run = pathlib.Path(name).is_dir()
        return load_generator("" if is_run else name, name if is_run else "")

    @functools.cached_property
    def _encoder(self):
        import aejax

        return aejax.load(self._encoder_name)

    # --- denoise ----------------------------------------------------------------------------------

    def denoise(self, items: Sequence[tuple[Picture, float]]) -> list[Denoised]:
        """Denoises pictures of one shape, each with a strength from 0 (unchanged) to 1."""
        from aejax.denoising.api import TILE, restore, weights_for_image

        if max(items[0][0].shape[:2]) > TILE:  # tile by tile
            restored = (restore(x, strength=s, model=self._denoiser) for x, s in items)
            return [Denoised(r.image, r.removed) for r in restored]
        x = np.stack([x for x, _ in items]).astype(np.float32) / 255
        strengths = np.array([s for _, s in items], np.float32)
        names = np.array([weights_for_image(image, self._denoiser) for image in x])
        denoised = np.empty_like(x)
        for name in set(names):
            denoised[names == name] = self._denoised(x[names == name], str(name))
        y = x + strengths[:, None, None, None] * (denoised - x)
        removed = 255 * np.sqrt(np.mean(np.square(y - x), axis=(1, 2, 3)))
        y = np.round(np.clip(y, 0, 1) * 255).astype(np.uint8)
        return [Denoised(image, float(r)) for image, r in zip(y, removed, strict=True)]

    def _denoised(self, x: np.ndarray, name: str) -> np.ndarray:
        """Denoises images [b, h, w, c] in [0, 1] by the network `name`. They are padded to one of a
        few sizes, because every size is compiled."""
        import jax

        from aejax.denoising.api import TILE, network_for
        from aejax.denoising.tiling import SIDES
        from aejax.nets.applied import applied

        b, h, w, c = x.shape
        if (name, c) not in self._compiled:
            network = network_for(c, name)
            if network.needs_sigma or network.channels != c:
                raise UserError(
                    f'"{network.name}" is no blind denoiser for pictures with {c} channels'
                )
            run = jax.jit(lambda v, x: applied(network.model, v, x, None, train=False).y)
            self._compiled[name, c] = functools.partial(run, network.variables)
        sides = [min(s for s in (*SIDES, TILE) if n <= s) for n in (h, w)]
        batch = 1 << (b - 1).bit_length()
        pads = ((0, batch - b), (0, sides[0] - h), (0, sides[1] - w), (0, 0))
        padded = np.pad(x, pads, mode="symmetric")
        return np.asarray(self._compiled[name, c](padded))[:b, :h, :w]

    # --- the codec --------------------------------------------------------------------------------

    def encode(self, items: Sequence[tuple[Picture, float]]) -> list[bytes]:
        """Compresses pictures to .aej files, each with a quality from 0 to 100."""
        from aejax import codec

        return [codec.encode(x, quality=quality) for x, quality in items]

    def decode(self, items: Sequence[tuple[bytes, int]]) -> list[Picture]:
        """Decompresses .aej files, each with the most pixels that it may have; transparency is
        blended over white.

        Raises:
          UserError: a file is damaged, or has too many pixels.
        """
        from aejax import codec
        from aejax.data import decode
        from aejax.data.images import to_uint8

        pictures = []
        for data, pixels in items:
            x = codec.decode(data, max_pixels=pixels, strict=True)
            x = x[..., None] if x.ndim == 2 else x
            pictures.append(decode.flatten(to_uint8(x) if x.dtype == np.uint16 else x))
        return pictures

    def compare(self, items: Sequence[tuple[Picture, float]]) -> list[Compared]:
        """Compresses pictures, each with a quality from 0 to 100, and by JPEG at no more bytes."""
        return [self._compared(x, quality) for x, quality in items]

    def _compared(self, x: Picture, quality: float) -> Compared:
        (data,) = self.encode([(x, quality)])
        (coded,) = self.decode([(data, x.shape[0] * max(x.shape[1], 512) * 4)])
        jpeg_quality, file = jpeg_within(x, len(data))
        jpeg = _from_jpeg(file, x.shape[2])
        return Compared(
            coded,
            len(data),
            finite_psnr(x, coded),
            jpeg,
            len(file),
            finite_psnr(x, jpeg),
            jpeg_quality,
        )

    # --- generation -------------------------------------------------------------------------------

    def latents(self, items: Sequence[Picture]) -> list[np.ndarray]:
        """h of pictures of one shape, which are resized to that of the model's images."""
        from aejax.data import decode

        h, w, c = self._encoder.shape or items[0].shape
        resized = [decode.resize(decode.flatten(x, c), (h, w)) for x in items]
        return list(np.asarray(self._encoder.encode(np.stack(resized))))

    def sample(self, n: int, label: int | None, guidance: float | None, seed: int) -> Picture:
        """A sheet of n new pictures."""
        from aejax import pictures

        draw = functools.partial(self._generator.sample, n, seed=seed, label=label)
        samples = draw() if guidance is None else draw(guidance=guidance)
        return pictures.grid(list(samples), scale=2 if samples.shape[1] < 64 else 1)


def finite_psnr(x: Picture, y: Picture) -> float:
    """PSNR in dB; 99 for equal pictures, because JSON has no infinity."""
    value = psnr(x, y)
    return value if math.isfinite(value) else 99.0


def jpeg_within(x: Picture, size: int) -> tuple[int, bytes]:
    """(quality, file) of the best JPEG of at most `size` bytes; quality 1 if none is that small."""
    from aejax.codec.evaluation.compare import largest_within

    best = largest_within(functools.partial(_jpeg, x), range(1, 96), size)
    return best or (1, _jpeg(x, 1))


def file_of(x: Picture, suffix: str, **options) -> bytes:
    """The bytes of a picture file. `suffix`: Pillow's name of the format, such as "PNG"."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).save(out, suffix, **options)
    return out.getvalue()


def _jpeg(x: Picture, quality: int) -> bytes:
    return file_of(x, "JPEG", quality=quality, optimize=True)


def _from_jpeg(file: bytes, channels: int) -> Picture:
    from aejax.data import decode, images

    return decode.flatten(images.read_image(file)[0], channels)
