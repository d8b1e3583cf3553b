"""The tasks denoise, compress and decompress: functions from the bytes of a frame to bytes."""

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
BOUNDS = (0.5, 1.5)  # the temporal average scales the removed noise by a factor in this range


def default_denoiser() -> str:
    """The real-time model if it is installed, else the gray one."""
    return REALTIME if weights.exists(REALTIME) else "gray"


def denoised_frame(network: Network, video: Video, strength: float, memory: float) -> Callable:
    """A function, to be compiled, that applies a blind denoiser to a frame: (variables, uint8 [n],
    levels) -> (uint8 [n], levels).

    levels: for each picture that the network is applied to, the standard deviation of the removed
    noise, averaged over time; -1 before the first frame.

    A gray network is applied to each plane of a colour video separately. The noise of the planes is
    white if that of the sensor was; the noise of RGB upsampled from 4:2:0 is not.

    Args:
      strength: factor of the removed noise.
      memory: weight of the previous level in the average, 0 to 1.
    """
    by_plane = network.channels == 1

    def denoised(variables, x, level):
        y = applied(network.model, variables, x[None], None, train=False).y[0]
        removed = jnp.sqrt(jnp.mean(jnp.square(y - x)))
        level = jnp.where(level < 0, removed, memory * level + (1 - memory) * removed)
        amount = strength * jnp.clip(level / jnp.maximum(removed, 1e-6), *BOUNDS)
        return x + amount * (y - x), level

    def run(variables, data, levels):
        inputs = to_planes(data, video) if by_plane else [to_picture(data, video)]
        results = [denoised(variables, x, level) for x, level in zip(inputs, levels, strict=True)]
        outputs = [y for y, _ in results]
        data = from_planes(outputs, video) if by_plane else from_picture(outputs[0], video)
        return data, [level for _, level in results]

    return run


class Denoise:
    """Denoises each frame. The model is compiled when the task is created, for the video's size.

    Args:
      model: as for `aejax.denoise`, or a Network; "" for `default_denoiser`.
      strength: fraction of the estimated noise that is removed, 0 to 2.
      steady: average the level of the removed noise over about this many frames, 0 to 10,000, to
        avoid flicker. The average changes the removed noise of a frame by a factor of 0.5 to 1.5.

    Raises:
      UserError: no such model, an option out of range, or a model that needs a noise level.
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
                f'"{network.name}" needs the noise level, which is not known in a video; use a '
                "blind model"
            )
        memory = steady / (steady + 1)
        self._run = jax.jit(denoised_frame(network, video, strength, memory))
        self._variables = jax.device_put(network.variables)
        start = [jnp.float32(-1)] * (video.channels if network.channels == 1 else 1)
        self._levels = start
        self(bytes(video.frame_bytes))  # compiles before the first frame arrives
        self._levels = start

    def __call__(self, data: bytes) -> bytes:
        """The denoised frame."""
        y, self._levels = self._run(self._variables, np.frombuffer(data, np.uint8), self._levels)
        return np.asarray(y).tobytes()


class Compress:
    """Encodes each frame as an .aej file.

    Args:
      quality: 0 to 100.
      coder: has the `encode` of aejax.codec.

    Raises:
      UserError: the quality is out of range.
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
        """The frame as an .aej file."""
        picture = np.asarray(self._pixels(np.frombuffer(data, np.uint8)))
        return self._coder.encode(picture, quality=self._quality)


class Decompress:
    """Decodes the frames of `Compress`.

    Args:
      coder: has `encode` and `decode` of aejax.codec.
    """

    reads_coded, writes_coded = True, False

    def __init__(self, video: Video, coder: Any = codec):
        self._shape, self._coder = (video.height, video.width, video.channels), coder
        self._bytes = jax.jit(lambda x: from_picture(x.astype(jnp.float32) / 255, video))
        noise = np.random.default_rng(0).integers(0, 256, self._shape, np.uint8)
        self(coder.encode(noise, quality=50.0))  # compiles before the first frame arrives

    def __call__(self, data: bytes) -> bytes:
        """The frame of an .aej file.

        Raises:
          UserError: the file is damaged, or its image does not have the format of the video.
        """
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


# reads_coded, writes_coded: whether the input and output frames of a task are .aej files.
TASKS: dict[str, type[Denoise | Compress | Decompress]] = {
    "denoise": Denoise,
    "compress": Compress,
    "decompress": Decompress,
}
