"""The last pooled features of Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567), which published
FIDs use; the user provides the weights, nothing is downloaded.

The network is TensorFlow's graph of 2015-12-05 in its PyTorch port (github.com/mseitzer/
pytorch-fid, `pt_inception-2015-12-05-6726825d.pth`): average pools do not count the padding, and
the pool of the last block is a max pool.
"""

import hashlib
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from aejax.errors import UserError
from aejax.generation.features.batches import Extract, in_batches
from aejax.generation.features.torch_file import read_pth
from aejax.nets.applied import applied
from aejax.types import Variables

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SIDE = 299


# The network --------------------------------------------------------------------------------------


class Unit(nn.Module):
    """Convolution, bias, relu. The batch norm of the original is in kernel and bias (`fold`)."""

    features: int
    kernel: tuple[int, int]
    stride: int
    padding: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        shape = (*self.kernel, x.shape[-1], self.features)
        w = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        y = jax.lax.conv_general_dilated(
            x, w, (self.stride,) * 2, self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",  # a Frechet distance must not depend on the accelerator
        )  # fmt: skip
        return jax.nn.relu(y + bias)


class InceptionV3(nn.Module):
    """Images [b, h, w, 3] in [0, 1] -> (features [b, 2048], logits [b, 1008]).

        x -> 299x299 -> stem -> 3 of block A -> B -> 4 of C -> D -> 2 of E -> mean -> features
             [-1, 1]    35x35                  17x17         8x8

    Units have the names of the port ("Mixed_5b.branch1x1").

    Attributes:
      narrow: divides all widths, for tests.
      classes: number of logits.
    """

    narrow: int = 1
    classes: int = 1008

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Array, Array]:
        """Resized to 299 x 299, bilinear without antialiasing as in the port, then to [-1, 1]."""
        u = jax.image.resize(x, (len(x), SIDE, SIDE, 3), "bilinear", antialias=False)
        u = self._unit(2.0 * u - 1.0, "Conv2d_1a_3x3", 32, 3, 2, "VALID")
        u = self._unit(u, "Conv2d_2a_3x3", 32, 3, 1, "VALID")
        u = _shrink(self._unit(u, "Conv2d_2b_3x3", 64, 3))
        u = self._unit(u, "Conv2d_3b_1x1", 80)
        u = _shrink(self._unit(u, "Conv2d_4a_3x3", 192, 3, 1, "VALID"))
        for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
            u = self._a(u, f"Mixed_{name}", pooled)
        u = self._b(u, "Mixed_6a")
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            u = self._c(u, f"Mixed_{name}", inner)
        u = self._d(u, "Mixed_7a")
        u = self._e(u, "Mixed_7b", _mean)
        u = self._e(u, "Mixed_7c", _max)
        features = jnp.mean(u, axis=(1, 2))
        return features, nn.Dense(self.classes, precision="highest", name="fc")(features)

    def _unit(self, x, name, features, kernel=1, stride=1, padding="SAME"):
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        return Unit(max(1, features // self.narrow), kernel, stride, padding, name=name)(x)

    def _branch(self, x, name, *units):
        """Units one after another: (suffix of the name, features, kernel, stride, padding)."""
        for suffix, *rest in units:
            x = self._unit(x, f"{name}.branch{suffix}", *rest)
        return x

    def _a(self, x, name, pooled):
        return _join(
            self._branch(x, name, ("1x1", 64)),
            self._branch(x, name, ("5x5_1", 48), ("5x5_2", 64, 5)),
            self._branch(x, name, ("3x3dbl_1", 64), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3)),
            self._branch(_mean(x), name, ("_pool", pooled)),
        )

    def _b(self, x, name):
        double = ("3x3dbl_1", 64), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3, 2, "VALID")
        return _join(
            self._branch(x, name, ("3x3", 384, 3, 2, "VALID")),
            self._branch(x, name, *double),
            _shrink(x),
        )

    def _c(self, x, name, n):
        row, column = (1, 7), (7, 1)
        return _join(
            self._branch(x, name, ("1x1", 192)),
            self._branch(x, name, ("7x7_1", n), ("7x7_2", n, row), ("7x7_3", 192, column)),
            self._branch(x, name, ("7x7dbl_1", n), ("7x7dbl_2", n, column), ("7x7dbl_3", n, row),
                         ("7x7dbl_4", n, column), ("7x7dbl_5", 192, row)),
            self._branch(_mean(x), name, ("_pool", 192)),
        )  # fmt: skip

    def _d(self, x, name):
        seven = ("7x7x3_1", 192), ("7x7x3_2", 192, (1, 7)), ("7x7x3_3", 192, (7, 1))
        return _join(
            self._branch(x, name, ("3x3_1", 192), ("3x3_2", 320, 3, 2, "VALID")),
            self._branch(x, name, *seven, ("7x7x3_4", 192, 3, 2, "VALID")),
            _shrink(x),
        )

    def _e(self, x, name, pool):
        three = self._branch(x, name, ("3x3_1", 384))
        double = self._branch(x, name, ("3x3dbl_1", 448), ("3x3dbl_2", 384, 3))
        return _join(
            self._branch(x, name, ("1x1", 320)),
            self._branch(three, name, ("3x3_2a", 384, (1, 3))),
            self._branch(three, name, ("3x3_2b", 384, (3, 1))),
            self._branch(double, name, ("3x3dbl_3a", 384, (1, 3))),
            self._branch(double, name, ("3x3dbl_3b", 384, (3, 1))),
            self._branch(pool(x), name, ("_pool", 192)),
        )


def _join(*branches):
    return jnp.concatenate(branches, axis=-1)


def _shrink(x):
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


def _mean(x):
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _max(x):
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


# The weights --------------------------------------------------------------------------------------


def fold(state: Mapping[str, np.ndarray]) -> Variables:
    """Converts the port's state dict to variables of `InceptionV3`, with batch norms (eps 1e-3)
    folded into kernels and biases.

    Raises:
      UserError: an array is missing.
    """
    params: Variables = {}
    try:
        for name in state:
            if not name.endswith(".conv.weight") or name.startswith("AuxLogits"):
                continue
            unit = name.removesuffix(".conv.weight")
            weight, bias, mean, var = (
                np.asarray(state[f"{unit}.bn.{n}"], np.float64)
                for n in ("weight", "bias", "running_mean", "running_var")
            )
            gain = weight / np.sqrt(var + 1e-3)
            kernel = np.asarray(state[name], np.float64).transpose(2, 3, 1, 0) * gain
            params[unit] = {"kernel": kernel, "bias": bias - mean * gain}
        params["fc"] = {"kernel": np.asarray(state["fc.weight"]).T, "bias": state["fc.bias"]}
    except KeyError as e:
        raise UserError(f"the Inception weights lack {e}; use {FILE}") from None
    return {"params": jax.tree.map(lambda a: np.asarray(a, np.float32), params)}


def load(path: str | pathlib.Path, any_hash: bool = False) -> tuple[Variables, str]:
    """Reads Inception's weights: (variables, name for captions).

    Args:
      path: a .pth or .safetensors with the names of the port.
      any_hash: accept another file than the published one.

    Raises:
      UserError: no such file; another file than the published one without any_hash; or a file that
        does not hold this network.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise UserError(
            f"cannot read the Inception weights {path}: {e.strerror or e}; they are {FILE} of the "
            "releases of github.com/mseitzer/pytorch-fid"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256 and not any_hash:
        raise UserError(
            f"{path} has the SHA-256 {digest[:8]}..., the weights of published FIDs {SHA256[:8]}"
            "...; --any-hash (any_hash=True) accepts it anyway"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load as read_safetensors

            state = read_safetensors(data)
        else:
            state = read_pth(data)
    except Exception as e:  # a damaged file can make the parser raise anything
        raise UserError(f"{path} is not a .pth or .safetensors file of tensors: {e}") from None
    variables = fold(state)
    shapes = jax.tree.map(lambda a: a.shape, variables["params"])
    if shapes != expected():
        raise UserError(f"{path} holds another network than Inception-v3; use {FILE}")
    kind = "inception-2015-12-05" if digest == SHA256 else f"inception of {path.name} (not the FID)"
    return variables, f"{kind} {digest[:8]}"


def expected() -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of the parameters, a tree of tuples."""
    abstract = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return jax.tree.map(lambda a: a.shape, abstract["params"])


# The extractor ------------------------------------------------------------------------------------


def extractor(variables: Variables, batch: int = 50, narrow: int = 1) -> Extract:
    """The extractor: uint8 images [n, h, w, 1 or 3] -> (features float64 [n, 2048], ImageNet
    classes int [n]).

    Gray images are repeated to three channels, as pytorch-fid's `convert("RGB")` does. An image
    costs 11.4 GFLOP: 10,000 of them take 19 minutes at 100 GFLOP/s.
    """
    variables = jax.device_put(variables)

    @jax.jit
    def run(v, x):
        features, logits = applied(InceptionV3(narrow), v, x.astype(jnp.float32) / 255.0)
        return features, jnp.argmax(logits, axis=-1)

    def run_as_rgb(x):
        return run(variables, np.broadcast_to(x, (*x.shape[:3], 3)))

    extract_rgb = in_batches(run_as_rgb, batch)

    def extract(images: UInt8[np.ndarray, "n h w c"]) -> tuple[np.ndarray, np.ndarray]:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise UserError(
                f"Inception takes uint8 images [n, h, w, 1 or 3]; got {images.dtype} "
                f"{list(images.shape)}"
            )
        return extract_rgb(images)

    return extract
