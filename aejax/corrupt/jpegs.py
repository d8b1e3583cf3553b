"""JPEG compression artefacts, computed in JAX without writing a file."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aejax.corrupt.levels import Images, Level, level
from aejax.errors import UserError

# Annex K of ITU-T T.81: the quantisation tables that encoders scale by the quality.
_LUMA = np.array(
    """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56
    14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
    49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99""".split(),
    np.float32,
).reshape(8, 8)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_DCT = np.sqrt(2 / 8) * np.cos(np.pi / 8 * np.arange(8)[:, None] * (np.arange(8) + 0.5))
_DCT[0] /= np.sqrt(2)
_DCT = _DCT.astype(np.float32)
_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)


def _quantise_blocks(plane: Float[Array, "b h w"], table: Float[Array, "b 8 8"]):
    """The plane (-128..127) with the DCT of its 8x8 blocks rounded to multiples of the table."""
    b, h, w = plane.shape
    padded = jnp.pad(plane, ((0, 0), (0, -h % 8), (0, -w % 8)), mode="edge")
    blocks = padded.reshape(b, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8)
    f = jnp.einsum("ui,bminj,vj->bmunv", _DCT, blocks, _DCT)
    q = table[:, None, :, None, :]
    back = jnp.einsum("ui,bmunv,vj->bminj", _DCT, jnp.round(f / q) * q, _DCT)
    return back.reshape(padded.shape)[:, :h, :w]


def jpeg(key: Array, x: Images, quality: Level = 30.0, subsample: bool = True) -> Images:
    """JPEG compression and decompression: YCbCr, chroma subsampling, quantised 8x8 DCT.

    The result is that of libjpeg up to the decoder's chroma upsampling (here: nearest neighbour).
    There is no entropy coding. Clipped and rounded to 8 bits.

    Args:
      x: [b, h, w, 1 or 3].
      quality: as of libjpeg, 1 to 100.
      subsample: 4:2:0; False: 4:4:4.

    Raises:
      UserError: x has another number of channels than 1 or 3.
    """
    if x.shape[-1] not in (1, 3):
        raise UserError(f"corrupt jpeg: images have 1 or 3 channels, not {x.shape[-1]}")
    b, h, w, c = x.shape
    q = jnp.clip(level(key, quality, b), 1, 100)[:, None, None]
    scale = jnp.where(q < 50, 5000 / q, 200 - 2 * q)
    tables = [jnp.clip(jnp.floor((t * scale + 50) / 100), 1, 255) for t in (_LUMA, _CHROMA)]
    v = jnp.round(jnp.clip(x, 0, 1) * 255)
    if c == 1:
        y = _quantise_blocks(v[..., 0] - 128, tables[0])[..., None] + 128
        return jnp.round(jnp.clip(y, 0, 255)) / 255
    ycc = v @ _YCC.T - jnp.array([128.0, 0, 0])
    luma = _quantise_blocks(ycc[..., 0], tables[0])
    chroma = []
    for i in (1, 2):
        plane = ycc[..., i]
        if subsample:
            plane = jnp.pad(plane, ((0, 0), (0, h % 2), (0, w % 2)), mode="edge")
            half = plane.reshape(b, plane.shape[1] // 2, 2, plane.shape[2] // 2, 2).mean((2, 4))
            half = _quantise_blocks(half, tables[1])
            plane = jnp.repeat(jnp.repeat(half, 2, 1), 2, 2)[:, :h, :w]
        else:
            plane = _quantise_blocks(plane, tables[1])
        chroma.append(plane)
    rgb = jnp.stack([luma + 128, *chroma], -1) @ np.linalg.inv(_YCC).T
    return jnp.round(jnp.clip(rgb, 0, 255)) / 255
