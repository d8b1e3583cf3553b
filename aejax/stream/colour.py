"""Bytes of a frame <-> pictures [h, w, c], as JAX functions that are compiled with the model.

Y'CbCr is that of ITU-R BT.601, or of BT.709 for videos of 720 rows and more. Subsampled chroma is
upsampled by repetition and downsampled by averaging, so that an unchanged picture gives the same
bytes.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from aejax.errors import UserError
from aejax.stream.y4m import CHANNELS, SUBSAMPLED, Video

HD = 720  # rows from which a video uses BT.709


def _weights(video: Video) -> tuple[float, float, float]:
    """The weights of red, green and blue in Y."""
    red, blue = (0.2126, 0.0722) if video.height >= HD else (0.299, 0.114)
    return red, 1 - red - blue, blue


def _range(video: Video) -> tuple[float, float, float]:
    """(black level of Y, range of Y, range of Cb and Cr) in 8-bit samples."""
    return (0.0, 255.0, 255.0) if video.full_range else (16.0, 219.0, 224.0)


def to_planes(data: UInt8[Array, " n"], video: Video) -> list[Float[Array, "h w 1"]]:
    """The planes of a frame in their own resolutions: Y with black 0 and white 1, Cb and Cr centred
    at 0.5; or the channels of raw pixels."""
    if video.is_raw:
        return jnp.split(to_picture(data, video), CHANNELS[video.layout], axis=-1)
    planes, start = [], 0
    black, luma, chroma = _range(video)
    for n, size in enumerate(video.planes):
        plane = data[start : start + size[0] * size[1]].reshape(*size, 1).astype(jnp.float32)
        planes.append((plane - 128) / chroma + 0.5 if n else (plane - black) / luma)
        start += size[0] * size[1]
    return planes


def from_planes(planes: Sequence[Float[Array, "h w 1"]], video: Video) -> UInt8[Array, " n"]:
    """The inverse of `to_planes`, rounded and clipped."""
    if video.is_raw:
        return from_picture(jnp.concatenate(planes, -1), video)
    black, luma, chroma = _range(video)
    parts = [_bytes(planes[0] * luma + black)]
    return jnp.concatenate(parts + [_bytes((p - 0.5) * chroma + 128) for p in planes[1:]])


def to_picture(data: UInt8[Array, " n"], video: Video) -> Float[Array, "h w c"]:
    """The frame as RGB or gray with black 0 and white 1; values outside [0, 1] are not clipped."""
    h, w = video.height, video.width
    if video.is_raw:
        return data.reshape(h, w, CHANNELS[video.layout]).astype(jnp.float32) / 255
    y, *chroma = to_planes(data, video)
    shared = SUBSAMPLED[video.layout]
    if shared is None:
        return y
    across, down = shared
    y = y[..., 0]
    cb, cr = (jnp.repeat(jnp.repeat(p[..., 0] - 0.5, down, 0), across, 1)[:h, :w] for p in chroma)
    kr, kg, kb = _weights(video)
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return jnp.stack([r, (y - kr * r - kb * b) / kg, b], -1)


def from_picture(x: Float[Array, "h w c"], video: Video) -> UInt8[Array, " n"]:
    """The inverse of `to_picture`, rounded and clipped.

    Raises:
      UserError: an RGB picture for a gray video.
    """
    if video.is_raw:
        return _bytes(x * 255)
    if x.shape[-1] == 1:
        return from_planes([x], video)
    shared = SUBSAMPLED[video.layout]
    if shared is None:
        raise UserError("an RGB picture cannot be a frame of a gray video")
    across, down = shared
    kr, kg, kb = _weights(video)
    y = x @ jnp.array([kr, kg, kb], jnp.float32)
    planes = [y[..., None]]
    for channel, k in ((2, kb), (0, kr)):
        difference = (x[..., channel] - y) / (2 * (1 - k))
        h, w = difference.shape
        padded = jnp.pad(difference, ((0, -h % down), (0, -w % across)), mode="edge")
        grouped = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across)
        planes.append(grouped.mean((1, 3))[..., None] + 0.5)
    return from_planes(planes, video)


def _bytes(x: Float[Array, "..."]) -> UInt8[Array, " n"]:
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8).reshape(-1)
