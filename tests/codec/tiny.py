"""A codec small enough for tests: random but lively weights, made by NumPy alone, so that every
machine has the same ones."""

import functools

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from aejax.codec import nets
from aejax.codec.entropy import Tables
from aejax.codec.freeze import frozen_params
from aejax.codec.frozen import Frozen
from aejax.codec.quality import KNOTS, RATES
from aejax.codec.runtime import Runtime
from aejax.codec.transforms import KLT_SCALE

FIELDS = {
    "latent": 24,
    "width": [8, 8],
    "encoder": [1, 1],
    "decoder": [1, 1],
    "slices": [8, 16],
    "z": 4,
    "features": 8,
    "context": 16,
}


def model(**changes) -> nets.Codec:
    """The unfrozen model."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in FIELDS.items()}
    return nets.Codec(**(fields | changes))


@functools.cache
def shapes():
    """Shapes of all parameters."""
    import jax
    import jax.numpy as jnp

    key = jax.random.key(0)
    x = jnp.zeros((1, 32, 32, 3))
    made = jax.eval_shape(lambda: model().init({"params": key, "bottleneck": key}, x))
    return made["params"]


@functools.cache
def params(seed: int = 0):
    """Weights whose linear path is a cosine transform of 16x16 blocks and whose entropy model
    predicts something."""
    rng = np.random.default_rng(seed)
    out = {}
    for path, leaf in sorted(flatten_dict(shapes(), sep="/").items()):
        name, shape = path.rsplit("/", 1)[-1], leaf.shape
        value = np.zeros(shape)
        if name == "kernel":
            value = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
            value *= 2.0 if path.startswith("bottleneck/passes_") else 1.0
            value *= 0.1 if "/mean/" in path else 1.0
        elif name == "depthwise":
            value[1, 1] = 1.0
            value = value + 0.2 * rng.normal(size=shape)
        elif name in ("norm1", "norm2", "weigh"):
            value[...] = 1.0
        elif name in ("bias", "colour", "quality") and path.startswith("bottleneck/"):
            value = 0.1 * rng.normal(size=shape)
        elif name in ("gain", "ungain"):
            gain = np.log(255.0) - 0.5 * np.log(15.0 / np.geomspace(*RATES, KNOTS))
            value[...] = (gain if name == "gain" else -gain)[:, None]
        elif name == "base":
            value[...] = np.linspace(2.2, 1.0, shape[1]) + np.linspace(-0.7, 0.7, 9)[:, None]
        elif name == "z_base":
            value[...] = 1.0
        if path.endswith("Mix_2/kernel") and path.startswith(("f_E", "f_D")):
            value *= 0.02  # the last layers: small beside the linear path
        out[path] = value.astype(np.float32)
    klt = _cosines(24) * KLT_SCALE
    out["f_E/klt"], out["f_D/klt"] = klt, klt.T.copy()
    return unflatten_dict(out, sep="/")


def _cosines(count: int) -> np.ndarray:
    """[768, count]: luminance of the lowest frequencies, and the colour differences' means."""
    t = (np.arange(16) + 0.5) / 16
    columns = []
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], float)
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    for n in range(count):
        colour = {1: 1, 2: 2}.get(n, 0)
        i, j = [(0, 0), (0, 0), (0, 0), *((a, b) for s in range(1, 9) for a in range(s + 1)
                for b in [s - a])][n]  # fmt: skip
        plane = np.outer(np.cos(np.pi * i * t), np.cos(np.pi * j * t))[..., None] * colours[colour]
        columns.append(plane.reshape(-1) / np.linalg.norm(plane))
    return np.stack(columns, axis=1).astype(np.float32)


@functools.cache
def frozen(seed: int = 0) -> Frozen:
    """Ready to code."""
    return Frozen(frozen_params(params(seed)), Tables.fitted(), FIELDS)


@functools.cache
def runtime() -> Runtime:
    """Compiled, and known to `decode`."""
    from aejax.codec import api as codec

    return codec.use(frozen())


def photo(height: int = 48, width: int = 72, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Something with edges, slopes and a little noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16.0
    a, b, f = rng.normal(size=3)
    light = 60 * np.sin(a * x + b * y + f) + 40 * (x**2 + y**2 < 6)
    tint = rng.normal(size=channels) * 20
    planes = [120 + t + light + 2 * rng.normal(size=light.shape) for t in tint]
    image = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    return image[..., 0] if channels == 1 else image
