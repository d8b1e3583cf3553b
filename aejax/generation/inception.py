"""The FID of the literature: Inception-v3's last pooled features, weights from the user's own file.

The network is the one every figure in print rests on, TensorFlow's graph of 2015-12-05 in its
PyTorch port (github.com/mseitzer/pytorch-fid, `pt_inception-2015-12-05-6726825d.pth`): its average
pools do not count the padding, and the pool of the last block takes the maximum. Nothing is
downloaded. The .pth is read without torch, by an unpickler that knows tensors and nothing else.
"""

import collections
import hashlib
import io
import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from aejax.errors import UserError

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SIDE = 299


# The network --------------------------------------------------------------------------------------


class Unit(nn.Module):
    """Convolution, bias, relu; the batch norm of the original is folded into the two by `fold`."""

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
    """[b, h, w, 3] in [0, 1] -> (features [b, 2048], logits [b, 1008]).

    Units have the names of the port ("Mixed_5b.branch1x1"). `narrow` divides all widths: for tests.
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


class _Unpickler(pickle.Unpickler):
    """A state dict's pickle: tensors over storages. Any other name in it is refused, not called."""

    def __init__(self, file: Any, storage: Any):
        super().__init__(file)
        self._storage = storage

    def persistent_load(self, pid: Any) -> np.ndarray:
        return self._storage(*pid[1:5])  # type, key, device, count

    def find_class(self, module: str, name: str) -> Any:
        types = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4"}
        if module == "torch" and name.removesuffix("Storage") in types:
            return np.dtype(types[name.removesuffix("Storage")])
        known = {"OrderedDict": collections.OrderedDict, "_rebuild_tensor_v2": _tensor}
        if module in ("collections", "torch._utils") and name in known:
            return known[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a state dict")


def _tensor(storage, offset, size, stride, *_):
    end = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    if min(offset, *stride, 0) < 0 or end > len(storage):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    step = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, step)


def read_pth(data: bytes) -> dict[str, np.ndarray]:
    """A state dict as `torch.save` writes it, {name: array}: as a zip file, or in the form of
    before 2020 (four pickles, then each storage with its length before it)."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            top = next(n for n in archive.namelist() if n.endswith("data.pkl"))

            def member(dtype, key, _, n):
                raw = archive.read(f"{top.removesuffix('data.pkl')}data/{key}")
                return np.frombuffer(raw, dtype, n)

            return dict(_Unpickler(io.BytesIO(archive.read(top)), member).load())
    file, storages = io.BytesIO(data), {}

    def later(dtype, key, _, n):
        return storages.setdefault(key, np.zeros(n, dtype))

    if _plain(file) != 0x1950A86A20F9469CFC6C:
        raise pickle.UnpicklingError("no file of torch.save")
    _plain(file), _plain(file)  # version and byte order: "<" above
    found = _Unpickler(file, later).load()
    for key in _plain(file):
        n = int(np.frombuffer(file.read(8), "<i8")[0])
        storages[key][:] = np.frombuffer(file.read(n * storages[key].itemsize), storages[key].dtype)
    return dict(found)


def _plain(file: io.BytesIO) -> Any:
    """The next pickle of the file, of plain values only."""
    return _Unpickler(file, None).load()


def fold(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables of `InceptionV3` from the port's state dict; batch norms (eps 1e-3) go into the
    kernels and biases.

    Raises:
      UserError: names or shapes are missing.
    """
    params: dict[str, Any] = {}
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
        raise UserError(f"the Inception weights lack {e}; take {FILE}") from None
    return {"params": jax.tree.map(lambda a: np.asarray(a, np.float32), params)}


def load(path: str | pathlib.Path, any_hash: bool = False) -> tuple[dict[str, Any], str]:
    """(variables, name for captions) of a .pth or .safetensors with the port's names.

    Raises:
      UserError: no such file; another file than the published one and not any_hash; or a file that
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
            f"{path} has the SHA-256 {digest[:8]}..., the weights of the FID in print {SHA256[:8]}"
            "...; --any-hash (any_hash=True) takes it all the same"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load as read_safetensors

            state = read_safetensors(data)
        else:
            state = read_pth(data)
    except Exception as e:  # whatever a damaged file makes of its parser
        raise UserError(f"{path} is no .pth or .safetensors of tensors: {e}") from None
    variables = fold(state)
    shapes = jax.tree.map(lambda a: a.shape, variables["params"])
    if shapes != expected():
        raise UserError(f"{path} holds another network than Inception-v3; take {FILE}")
    kind = "inception-2015-12-05" if digest == SHA256 else f"inception of {path.name} (not the FID)"
    return variables, f"{kind} {digest[:8]}"


def expected() -> Any:
    """The shapes of the parameters, a tree of tuples."""
    abstract = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return jax.tree.map(lambda a: a.shape, abstract["params"])


# The extractor ------------------------------------------------------------------------------------


def extractor(variables: Any, batch: int = 50, narrow: int = 1):
    """uint8 images [n, h, w, 1 or 3] -> (features float64 [n, 2048], ImageNet classes int [n]).

    Gray is repeated to three channels, as the reference's `convert("RGB")` does. 11.4 GFLOP an
    image: 10,000 of them take 19 minutes at 100 GFLOP/s.
    """
    variables = jax.device_put(variables)
    run = jax.jit(lambda v, x: InceptionV3(narrow).apply(v, x.astype(jnp.float32) / 255.0))

    def extract(images: UInt8[np.ndarray, "n h w c"]) -> tuple[np.ndarray, np.ndarray]:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise UserError(
                f"Inception judges uint8 images [n, h, w, 1 or 3]; got {images.dtype} "
                f"{list(images.shape)}"
            )
        features, labels = [], []
        for i in range(0, len(images), batch):
            part = np.broadcast_to(images[i : i + batch], (*images[i : i + batch].shape[:3], 3))
            full = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            f, logits = run(variables, full)
            features.append(np.asarray(f, np.float64)[: len(part)])
            labels.append(np.asarray(logits)[: len(part)].argmax(-1))
        return np.concatenate(features), np.concatenate(labels)

    return extract
