"""LPIPS, a learned perceptual distance of images (Zhang et al. 2018, arXiv 1801.03924), with
VGG-16.

The user provides the weights, nothing is downloaded: one safetensors file with the names of
torchvision's VGG-16 (`features.0.weight` [o, c, 3, 3], `features.0.bias`, ... `features.28`) and of
the `lpips` package (`lin0.model.1.weight` [1, c, 1, 1] ... `lin4`). To write it, with both packages
installed:

    import lpips, torch, torchvision
    from safetensors.torch import save_file
    vgg = torchvision.models.vgg16(weights="IMAGENET1K_V1").features.state_dict()
    state = {f"features.{k}": v for k, v in vgg.items()}
    state |= {k: v for k, v in lpips.LPIPS(net="vgg").state_dict().items()
              if k.startswith("lin") and "lins" not in k}
    save_file({k: v.contiguous() for k, v in state.items()}, "lpips_vgg.safetensors")
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.nets import ops

# torchvision's number of each convolution and its channels; "M" is a 2x2 max pool. The last
# activations before each "M" and at the end, of five stages, are compared.
LAYERS = ((0, 64), (2, 64), "M", (5, 128), (7, 128), "M", (10, 256), (12, 256), (14, 256), "M",
          (17, 512), (19, 512), (21, 512), "M", (24, 512), (26, 512), (28, 512))  # fmt: skip
STAGES = (64, 128, 256, 512, 512)
# Normalisation of pixels in [-1, 1], as in the `lpips` package.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

Weights = Mapping[str, Array | np.ndarray]


def shapes() -> dict[str, tuple[int, ...]]:
    """{name: shape} of the arrays in a weights file."""
    expected: dict[str, tuple[int, ...]] = {}
    c = 3
    for layer in LAYERS:
        if layer == "M":
            continue
        number, o = layer
        expected[f"features.{number}.weight"], expected[f"features.{number}.bias"] = (
            (o, c, 3, 3),
            (o,),
        )
        c = o
    return expected | {f"lin{i}.model.1.weight": (1, n, 1, 1) for i, n in enumerate(STAGES)}


@functools.lru_cache(2)
def load(path: str, sha256: str = "") -> Weights:
    """Reads the weights; kernels are transposed to [3, 3, c, o].

    Args:
      path: the safetensors file; "random" gives random weights, for tests and to compile a step
        where the file does not exist.
      sha256: expected hash of the file; "" = not checked.

    Raises:
      UserError: no such file, another hash, or other names and shapes than those of LPIPS.
    """
    if path == "random":
        rng = np.random.default_rng(0)
        stored = {n: rng.normal(0, 0.05, s).astype(np.float32) for n, s in shapes().items()}
        stored = {n: np.abs(v) if n.startswith("lin") else v for n, v in stored.items()}
    else:
        stored = _read(pathlib.Path(path), sha256)

    def transposed(name):
        v = stored[name]
        return v.transpose(2, 3, 1, 0) if v.ndim == 4 and not name.startswith("lin") else v

    return {name: transposed(name) for name in shapes()}


def _read(path: pathlib.Path, sha256: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load as parse

    if not path.is_file():
        raise UserError(f"no LPIPS weights {path}; aejax/metrics/lpips.py says how to write them")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256:
        raise UserError(f"LPIPS weights {path}: the SHA-256 is {digest}, not {sha256}")
    try:
        stored = parse(data)
    except Exception as e:
        raise UserError(f"LPIPS weights {path} are not a safetensors file: {e}") from e
    for name, shape in shapes().items():
        if name not in stored:
            raise UserError(f"LPIPS weights {path}: {name} {shape} is missing")
        if stored[name].shape != shape:
            raise UserError(
                f"LPIPS weights {path}: {name} has shape {stored[name].shape}, not {shape}"
            )
    return {name: stored[name].astype(np.float32) for name in shapes()}


def features(weights: Weights, x: Float[Array, "b h w 3"]) -> list[Float[Array, "b h w c"]]:
    """Activations of the five stages for images in [0, 1], normalised to unit length per pixel."""
    x = (2.0 * x - 1.0 - jnp.array(SHIFT, x.dtype)) / jnp.array(SCALE, x.dtype)
    stages = []
    for layer in (*LAYERS, "M"):
        if layer == "M":
            length = jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-20)
            stages.append(x / (length + 1e-10))
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            continue
        w, b = (weights[f"features.{layer[0]}.{part}"] for part in ("weight", "bias"))
        x = jax.nn.relu(ops.conv(x, jnp.asarray(w)) + jnp.asarray(b))
    return stages


def lpips(
    weights: Weights, x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]
) -> Float[Array, " b"]:
    """LPIPS of each pair of images in [0, 1]; 0 for equal images. Gray images are repeated to three
    channels.

    Args:
      weights: from `load`.

    Raises:
      UserError: height or width below 16.
    """
    if min(x.shape[1:3]) < 16:
        raise UserError(f"LPIPS needs images of at least 16x16, not {x.shape[1]}x{x.shape[2]}")
    x, y = (jnp.broadcast_to(v, (*v.shape[:-1], 3)) for v in (x, y))
    total = jnp.zeros(())
    for i, (a, b) in enumerate(zip(features(weights, x), features(weights, y), strict=True)):
        w = jnp.asarray(weights[f"lin{i}.model.1.weight"]).reshape(-1)
        total += jnp.mean(jnp.sum(jnp.square(a - b) * w, -1), (1, 2))
    return total
