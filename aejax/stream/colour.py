"""The bytes of a frame <-> pictures [h, w, c], as JAX functions, to be compiled with the model.

Y'CbCr is that of ITU-R BT.601, or BT.709 from 720 rows on. A sample of chroma is given to all
pixels that share it, and their mean is written: what a model leaves as it is comes back to the bit.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from aejax.stream.y4m import CHANNELS, SUBSAMPLED, Video

HD = 720  # rows from which the colours are those of BT.709


def _weights(video: Video) -> tuple[float, float, float]:
    """Of red, green, blue in Y."""
    red, blue = (0.2126, 0.0722) if video.height >= HD else (0.299, 0.114)
    return red, 1 - red - blue, blue


def _range(video: Video) -> tuple[float, float, float]:
    """Black, and the steps from black to white in Y and in chroma."""
    return (0.0, 255.0, 255.0) if video.full_range else (16.0, 219.0, 224.0)


def to_picture(data: UInt8[Array, " n"], video: Video) -> Float[Array, "h w c"]:
    """A frame's bytes as RGB or gray with black 0 and white 1; values beyond both are kept."""
    h, w = video.height, video.width
    if video.is_raw:
        return data.reshape(h, w, CHANNELS[video.layout]).astype(jnp.float32) / 255
    planes, start = [], 0
    for size in video.planes:
        planes.append(data[start : start + size[0] * size[1]].reshape(size).astype(jnp.float32))
        start += size[0] * size[1]
    black, luma, chroma = _range(video)
    y = (planes[0] - black) / luma
    if len(planes) == 1:
        return y[..., None]
    across, down = SUBSAMPLED[video.layout]
    cb, cr = (
        jnp.repeat(jnp.repeat((p - 128) / chroma, down, 0), across, 1)[:h, :w] for p in planes[1:]
    )
    kr, kg, kb = _weights(video)
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return jnp.stack([r, (y - kr * r - kb * b) / kg, b], -1)


def from_picture(x: Float[Array, "h w c"], video: Video) -> UInt8[Array, " n"]:
    """The inverse: a picture as a frame's bytes, rounded and clipped."""
    if video.is_raw:
        return _bytes(x * 255)
    black, luma, chroma = _range(video)
    if x.shape[-1] == 1:
        return _bytes(x * luma + black)
    kr, kg, kb = _weights(video)
    y = x @ jnp.array([kr, kg, kb], jnp.float32)
    across, down = SUBSAMPLED[video.layout]
    parts = [_bytes(y * luma + black)]
    for channel, k in ((2, kb), (0, kr)):
        difference = (x[..., channel] - y) / (2 * (1 - k))
        h, w = difference.shape
        even = jnp.pad(difference, ((0, -h % down), (0, -w % across)), mode="edge")
        shared = even.reshape(even.shape[0] // down, down, even.shape[1] // across, across)
        parts.append(_bytes(shared.mean((1, 3)) * chroma + 128))
    return jnp.concatenate(parts)


def _bytes(x: Float[Array, "..."]) -> UInt8[Array, " n"]:
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8).reshape(-1)
