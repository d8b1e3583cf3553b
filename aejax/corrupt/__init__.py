"""x -> x_tilde: what is done to a clean image before the autoencoder sees it.

Every corruption is `f(key, x, **params) -> x_tilde` on float32 images `x [b, h, w, c]` in [0, 1];
pure, jit-able, same shape out, and *not clipped* unless it says so (clipping biases the noise, and
the literature's protocol has none). A level (`sigma`, `peak`, `quality`, ...) may be a number, a
pair (low, high) from which each example draws its own uniformly, or an array [b].

Standard deviations are given on the 0..255 scale, as everywhere in the literature; inside, and in
what `chain` hands to the model, they are in the units of the image (sigma / 255).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.registry import did_you_mean, lookup, parameters

Level = float | tuple[float, float] | Array
Images = Float[Array, "b h w c"]


def level(key: Array, value: Level, b: int) -> Float[Array, "b"]:
    """One level per example: a number is repeated, a pair (low, high) drawn, an array kept."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2 or not value[0] <= value[1]:
            raise UserError(f"corrupt: {tuple(value)} is no range; give (low, high)")
        return jax.random.uniform(key, (b,), minval=float(value[0]), maxval=float(value[1]))
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (b,))


def _drawn(key: Array, value: Level, x: Images) -> tuple[Array, Float[Array, "b 1 1 1"]]:
    """(the key that is left for the noise, the level of each example, ready to broadcast)."""
    key, sub = jax.random.split(key)
    return key, level(sub, value, x.shape[0])[:, None, None, None]


def identity(key: Array, x: Images) -> Images:
    """x itself: the plain autoencoder."""
    return x


def gaussian(key: Array, x: Images, sigma: Level = 25.0) -> Images:
    """White Gaussian noise of standard deviation `sigma` (0..255 scale). Levels below 0 are none:
    (-5, 55) leaves one image in 12 clean."""
    key, s = _drawn(key, sigma, x)
    return x + jnp.maximum(s, 0) / 255.0 * jax.random.normal(key, x.shape, x.dtype)


def poisson(key: Array, x: Images, peak: Level = 30.0) -> Images:
    """Shot noise: `peak` photons in a white pixel; the variance is x / peak."""
    key, p = _drawn(key, peak, x)
    return jax.random.poisson(key, jnp.maximum(x, 0) * p).astype(x.dtype) / p


def poisson_gaussian(key: Array, x: Images, peak: Level = 30.0, sigma: Level = 5.0) -> Images:
    """A sensor: shot noise, then read-out noise; the variance is x / peak + (sigma / 255)^2."""
    shot, read = jax.random.split(key)
    return gaussian(read, poisson(shot, x, peak), sigma)


def speckle(key: Array, x: Images, sigma: Level = 25.0) -> Images:
    """Multiplicative noise x (1 + n) with n of standard deviation sigma / 255."""
    key, s = _drawn(key, sigma, x)
    return x * (1 + s / 255.0 * jax.random.normal(key, x.shape, x.dtype))


def salt_and_pepper(key: Array, x: Images, p: Level = 0.1) -> Images:
    """A fraction `p` of the pixels (all channels together) becomes 0 or 1, half each."""
    key, p = _drawn(key, p, x)
    u = jax.random.uniform(key, (*x.shape[:3], 1), x.dtype)
    return jnp.where(u < p / 2, 0.0, jnp.where(u < p, 1.0, x))


# Annex K of ITU-T T.81: the tables every JPEG encoder scales by its quality.
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
    """DCT of the 8x8 blocks of a plane centred on 0 (-128..127), rounded to multiples of table."""
    b, h, w = plane.shape
    padded = jnp.pad(plane, ((0, 0), (0, -h % 8), (0, -w % 8)), mode="edge")
    blocks = padded.reshape(b, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8)
    f = jnp.einsum("ui,bminj,vj->bmunv", _DCT, blocks, _DCT)
    q = table[:, None, :, None, :]
    back = jnp.einsum("ui,bmunv,vj->bminj", _DCT, jnp.round(f / q) * q, _DCT)
    return back.reshape(padded.shape)[:, :h, :w]


def jpeg(key: Array, x: Images, quality: Level = 30.0, subsample: bool = True) -> Images:
    """The artefacts of a JPEG of libjpeg's `quality` 1..100: YCbCr, 4:2:0 unless told otherwise,
    8x8 DCT, quantised. No entropy coding, hence no host: the picture is what the file would show,
    up to the decoder's chroma upsampling (here: repeated). Clipped and rounded to 8 bits."""
    if x.shape[-1] not in (1, 3):
        raise UserError(f"corrupt jpeg: takes 1 or 3 channels, not {x.shape[-1]}")
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


def blur(key: Array, x: Images, sigma: Level = 1.5, radius: int | None = None) -> Images:
    """Gaussian blur of `sigma` *pixels*, edges repeated. `radius` (pixels; default 3 sigma) must be
    given if sigma is a traced array, because it is a shape."""
    if radius is None:
        top = sigma[1] if isinstance(sigma, (tuple, list)) else sigma
        if isinstance(top, jax.core.Tracer):
            raise UserError("corrupt blur: give radius, since sigma is not known at trace time")
        radius = max(1, math.ceil(3 * float(np.max(top))))
    s = jnp.maximum(level(key, sigma, x.shape[0]), 1e-3)
    t = jnp.arange(-radius, radius + 1)
    k = jnp.exp(-0.5 * (t / s[:, None]) ** 2)
    k = (k / k.sum(1, keepdims=True))[:, :, None, None, None]
    for axis in (1, 2):
        n = x.shape[axis]
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        p = jnp.pad(x, pad, mode="edge")
        x = sum(
            k[:, i] * jax.lax.slice_in_dim(p, i, i + n, axis=axis) for i in range(2 * radius + 1)
        )
    return x


def mask(key: Array, x: Images, ratio: Level = 0.5, patch: int = 1, value: float = 0.0) -> Images:
    """Squares of `patch` x `patch` pixels set to `value`, each with probability `ratio` (masking
    noise of Vincent 2010 with patch 1 on gray, masked autoencoders with patch 4 to 16)."""
    key, r = _drawn(key, ratio, x)
    b, h, w, _ = x.shape
    grid = jax.random.uniform(key, (b, -(-h // patch), -(-w // patch), 1))
    gone = jnp.repeat(jnp.repeat(grid, patch, 1), patch, 2)[:, :h, :w] < r
    return jnp.where(gone, value, x)


def quantise(key: Array, x: Images, levels: Level = 16) -> Images:
    """Rounded to `levels` equidistant values from 0 to 1 (16 levels = 4 bits); clipped."""
    top = jnp.maximum(jnp.round(level(key, levels, x.shape[0])), 2)[:, None, None, None] - 1
    return jnp.round(jnp.clip(x, 0, 1) * top) / top


def one_of(
    key: Array, x: Images, choices: Iterable[Mapping[str, Any]], weights: Iterable[float]
) -> Images:
    """Each image gets one of several corruptions, drawn with `weights` (which need not sum to 1).

    Args:
      choices: specs as `chain` takes them, one corruption each.

    The images are taken one after the other, so that each pays for its own corruption alone.
    """
    steps = [chain((spec,)) for spec in choices]
    odds = jnp.log(jnp.asarray(tuple(weights), jnp.float32))
    branches = [lambda k, v, f=f: f(k, v[None])[0][0] for f in steps]
    which, rest = jax.random.split(key)
    index = jax.random.categorical(which, odds, shape=(x.shape[0],))
    keys = jax.random.split(rest, x.shape[0])
    return jax.lax.map(lambda a: jax.lax.switch(a[0], branches, a[1], a[2]), (index, keys, x))


def chain(
    specs: Iterable[Mapping[str, Any]],
) -> Callable[[Array, Images], tuple[Images, dict[str, Array]]]:
    """Corruptions in a row, from a config: `({"name": "blur", "sigma": 1.0}, {"name": "gaussian",
    "sigma": (0, 55)})` -> `(key, x) -> (x_tilde, cond)`.

    `cond["sigma"]` [b] is the standard deviation of all Gaussian noise in the row, in the units of
    the image, for models that are told the noise level; absent if there is none in the row.

    Raises:
      UserError: unknown corruption or parameter, or no name.
    """
    steps = []
    for spec in specs:
        params = dict(spec.items())
        name = params.pop("name", None)
        if name is None:
            raise UserError(f'corrupt: {params} has no "name"{did_you_mean("", CORRUPTIONS)}')
        f = lookup(name, CORRUPTIONS, "corruption")
        known = parameters(f)[2:]
        for k, v in params.items():
            if k not in known:
                raise UserError(f'corruption {name} has no parameter "{k}"{did_you_mean(k, known)}')
            params[k] = tuple(v) if isinstance(v, list) else v
        steps.append((f, params))

    def corrupt(key: Array, x: Images) -> tuple[Images, dict[str, Array]]:
        variance = None
        for i, (f, params) in enumerate(steps):
            k = jax.random.fold_in(key, i)
            if f is gaussian:  # drawn here, so that the model can be told
                k, sub = jax.random.split(k)
                sigma = jnp.maximum(level(sub, params.get("sigma", 25.0), x.shape[0]), 0)
                variance = (0.0 if variance is None else variance) + (sigma / 255.0) ** 2
                x = f(k, x, **{**params, "sigma": sigma})
            else:
                x = f(k, x, **params)
        return x, {} if variance is None else {"sigma": jnp.sqrt(variance)}

    return corrupt


from aejax.corrupt.cameras import camera  # noqa: E402  (it uses blur, jpeg and level)

CORRUPTIONS = {
    "identity": identity,
    "gaussian": gaussian,
    "poisson": poisson,
    "poisson_gaussian": poisson_gaussian,
    "speckle": speckle,
    "salt_and_pepper": salt_and_pepper,
    "jpeg": jpeg,
    "blur": blur,
    "mask": mask,
    "quantise": quantise,
    "camera": camera,
    "one_of": one_of,
}
