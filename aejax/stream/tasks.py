"""denoise, compress, decompress: what is done to the bytes of a frame."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax import codec, weights
from aejax.denoising.api import Network, network_for
from aejax.errors import UserError
from aejax.nets.applied import applied
from aejax.stream.colour import from_picture, from_planes, to_picture, to_planes
from aejax.stream.y4m import Video

REALTIME = "denoise_realtime"
BOUNDS = (0.5, 1.5)  # of what is taken away, as a multiple of what the model would


def default_denoiser() -> str:
    """The real-time model if it is installed, else the gray one."""
    return REALTIME if weights.exists(REALTIME) else "gray"


def denoised_frame(network: Network, video: Video, strength: float, memory: float) -> Callable:
    """(variables, bytes [n] as uint8, levels) -> (bytes, levels): a frame through a blind denoiser,
    to be compiled. `levels` is the noise taken away, averaged over time (-1 at the start).

    A network for gray takes the planes of a video in colour one by one: their noise is white where
    the sensor's was, which that of the colours is not behind 4:2:0.
    """
    apart = network.channels == 1

    def part(variables, x, level):
        y = applied(network.model, variables, x[None], None, train=False).y[0]
        removed = jnp.sqrt(jnp.mean(jnp.square(y - x)))
        level = jnp.where(level < 0, removed, memory * level + (1 - memory) * removed)
        amount = strength * jnp.clip(level / jnp.maximum(removed, 1e-6), *BOUNDS)
        return x + amount * (y - x), level

    def run(variables, data, levels):
        parts = to_planes(data, video) if apart else [to_picture(data, video)]
        done = [part(variables, x, level) for x, level in zip(parts, levels, strict=True)]
        pictures = [y for y, _ in done]
        data = from_planes(pictures, video) if apart else from_picture(pictures[0], video)
        return data, [level for _, level in done]

    return run


class Denoise:
    """Noise taken out of each frame, by a model that is compiled once, for the video's size.

    Args:
      model: as `aejax.denoise` takes it, or a network; "" for `default_denoiser`.
      strength: 1 takes away what the model finds, 0 nothing.
      steady: frames over which the level of the noise that is taken away is averaged, so that it
        does not change from frame to frame; 0 judges each frame by itself. What is taken away
        stays within half and one and a half times what the model finds in the frame.

    Raises:
      UserError: no such model; options out of range; a model that must be told the level.
    """

    reads_coded = writes_coded = False

    def __init__(
        self,
        video: Video,
        model: str | Network = "",
        strength: float = 1.0,
        steady: float = 0.0,
    ):
        if not 0 <= strength <= 2:
            raise UserError(f"--strength {strength:g} is not between 0 and 2")
        if not 0 <= steady <= 10_000:
            raise UserError(f"--steady {steady:g} is not between 0 and 10,000 frames")
        if isinstance(model, str):
            model = network_for(video.channels, model or default_denoiser())
        network = model
        if network.needs_sigma:
            raise UserError(
                f'"{network.name}" must be told the level of the noise, which changes in a video; '
                "take a blind model"
            )
        memory = steady / (steady + 1)
        self._run = jax.jit(denoised_frame(network, video, strength, memory))
        self._variables = jax.device_put(network.variables)
        start = [jnp.float32(-1)] * (video.channels if network.channels == 1 else 1)
        self._levels = start
        self(bytes(video.frame_bytes))  # compiled before the first frame comes
        self._levels = start

    def __call__(self, data: bytes) -> bytes:
        y, self._levels = self._run(self._variables, np.frombuffer(data, np.uint8), self._levels)
        return np.asarray(y).tobytes()


class Compress:
    """Each frame as an .aej file.

    Args:
      quality: 0 to 100.
      coder: another than aejax.codec, with its `encode`.
    """

    reads_coded, writes_coded = False, True

    def __init__(self, video: Video, quality: float = 50.0, coder: Any = codec):
        if not 0 <= quality <= 100:
            raise UserError(f"--quality {quality:g} is not between 0 and 100")

        def pixels(data):
            return jnp.clip(jnp.round(to_picture(data, video) * 255), 0, 255).astype(jnp.uint8)

        self._pixels, self._quality, self._coder = jax.jit(pixels), quality, coder
        self(bytes(video.frame_bytes))

    def __call__(self, data: bytes) -> bytes:
        picture = np.asarray(self._pixels(np.frombuffer(data, np.uint8)))
        return self._coder.encode(picture, quality=self._quality)


class Decompress:
    """The frames of `Compress`, as they were but for what the codec lost.

    Args:
      coder: that of `Compress`, with its `encode` and `decode`.
    """

    reads_coded, writes_coded = True, False

    def __init__(self, video: Video, coder: Any = codec):
        self._shape, self._coder = (video.height, video.width, video.channels), coder
        self._bytes = jax.jit(lambda x: from_picture(x.astype(jnp.float32) / 255, video))
        noise = np.random.default_rng(0).integers(0, 256, self._shape, np.uint8)
        self(coder.encode(noise, quality=50.0))  # compiles the decoder before the first frame comes

    def __call__(self, data: bytes) -> bytes:
        limit = 2 * self._shape[0] * max(self._shape[1], 512) + (1 << 16)
        picture = self._coder.decode(data, max_pixels=limit, strict=True)
        picture = picture[..., None] if picture.ndim == 2 else picture
        if picture.shape != self._shape or picture.dtype != np.uint8:
            size = f"{picture.shape[1]}x{picture.shape[0]}x{picture.shape[2]}"
            raise UserError(
                f"a frame has {size} {picture.dtype.name} values where the header of the video "
                f"says {self._shape[1]}x{self._shape[0]}x{self._shape[2]} of 8 bits"
            )
        return np.asarray(self._bytes(picture)).tobytes()


# reads_coded and writes_coded say whether the frames that a task takes and gives are .aej files.
TASKS: dict[str, type[Denoise | Compress | Decompress]] = {
    "denoise": Denoise,
    "compress": Compress,
    "decompress": Decompress,
}
