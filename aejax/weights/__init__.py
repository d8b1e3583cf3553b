"""Trained weights: the variables in NAME.safetensors, their metadata in NAME.json.

The files in this folder are shipped with the package; weights at any other path work the same.
Arrays are stored with the type they are given in. `load` returns floats as float32 and leaves
integers unchanged. `packed` and `stored_as` reduce the size: fewer bits, with a scale per channel.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aejax import files
from aejax.errors import UserError
from aejax.registry import did_you_mean
from aejax.weights.metadata import Metadata

if TYPE_CHECKING:
    from jaxtyping import PyTree

FOLDER = pathlib.Path(__file__).parent
IN_FOLDER = "model.safetensors"  # name of the file in a model folder, as on the Hugging Face hub
LARGE = 1 << 14  # kernels with more elements than this are quantised by `packed`
# Short names of shipped weights.
ALIASES = {
    "gray": "denoise_gray",
    "colour": "denoise_colour",
    "photo": "denoise_photo",
    "realtime": "denoise_realtime",
    "fashion": "fashion-mnist",
    "mnist": "digits",
}


def names() -> list[str]:
    """Names of the shipped weights."""
    return sorted(p.stem for p in FOLDER.glob("*.safetensors"))


def _flat(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """Nested dicts -> {"a/b/c": array}."""
    leaves = {}
    for name, value in tree.items():
        if hasattr(value, "items"):
            leaves |= _flat(value, f"{prefix}{name}/")
        else:
            leaves[prefix + name] = np.array(value, order="C")
    return leaves


def packed(tree: "PyTree", bits: int = 8, larger_than: int = LARGE) -> "PyTree":
    """Variables in the form in which most shipped weights are stored; `load` returns float32.

    Args:
      tree: float variables, nested dicts of arrays.
      bits: of large kernels, 2 to 8. Each weight takes a byte, but with fewer bits the file
        compresses better.
      larger_than: kernels with more elements become {"q": int8, "scale": float16 per output
        channel}; everything else becomes float16.
    """
    if hasattr(tree, "items"):
        return {name: packed(value, bits, larger_than) for name, value in tree.items()}
    w = np.asarray(tree, np.float32)
    if w.size <= larger_than or w.ndim < 2:
        return w.astype(np.float16)
    return _rounded_by_channel(w, 2 ** (bits - 1) - 1)


def _rounded_by_channel(w: np.ndarray, top: int) -> dict[str, np.ndarray]:
    """w quantised with a scale per channel of the last axis: {"q": int8 from -top to top, "scale":
    float16}."""
    scale = np.abs(w).max(tuple(range(w.ndim - 1))) / top
    scale = np.maximum(scale, 1e-7).astype(np.float16)
    q = np.clip(np.round(w / scale.astype(np.float32)), -top, top).astype(np.int8)
    return {"q": q, "scale": scale}


STORAGE = ("float32", "float16", "bfloat16", "int8", "int4")


def stored_as(tree: "PyTree", kind: str, sparse: bool = False) -> "PyTree":
    """Variables in a smaller type, to be written by `save`; `load` returns float32.

    Args:
      tree: nested dicts of arrays; integers are not changed.
      kind: "float32", "float16" or "bfloat16" for all arrays; "int8" or "int4" for arrays of two
        axes or more, with a float16 scale per output channel, and float16 for the others.
      sparse: store arrays of two axes or more in which over 10 % are zero as a bit mask and the
        other values (for int8 and int4: in 8 bits with a single scale).

    Raises:
      UserError: an unknown kind.
    """
    if hasattr(tree, "items"):
        return {name: stored_as(value, kind, sparse) for name, value in tree.items()}
    w = np.asarray(tree)
    if w.dtype.kind != "f":
        return w
    if sparse and w.ndim > 1 and np.count_nonzero(w) < 0.9 * w.size:
        return _without_zeros(w, kind)
    if kind in ("int8", "int4") and w.ndim > 1:
        rounded = _rounded_by_channel(w, 127 if kind == "int8" else 7)
        if kind == "int8":
            return rounded
        q, scale = rounded["q"], rounded["scale"]
        pairs = np.pad(q.reshape(-1), (0, q.size % 2)).view(np.uint8).reshape(-1, 2) & 15
        nibbles = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
        return {"nibbles": nibbles, "scale": scale, "shape": np.asarray(w.shape, np.int32)}
    return w.astype(_float_type(kind))


def _without_zeros(w: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """The sparse form: {"bits": mask, "values", "shape", and for int8 and int4 "scale"}."""
    values, parts = w[w != 0], {}
    if kind in ("int8", "int4"):
        scale = np.float16(max(np.abs(values).max() / 127 if values.size else 1.0, 1e-7))
        parts["scale"] = np.asarray(scale)
        values = np.clip(np.round(values / np.float32(scale)), -127, 127).astype(np.int8)
    else:
        values = values.astype(_float_type(kind))
    bits = np.packbits((w != 0).reshape(-1))
    return parts | {"bits": bits, "values": values, "shape": np.asarray(w.shape, np.int32)}


def _float_type(kind: str) -> np.dtype:
    if kind in ("int8", "int4", "float16"):
        return np.dtype(np.float16)
    if kind == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    if kind != "float32":
        raise UserError(f'weights can be stored as {", ".join(STORAGE)}, not "{kind}"')
    return np.dtype(np.float32)


def storage(bits: int = 8) -> str:
    """A description of what `packed` does, for Metadata.storage."""
    return f"{bits} bits with a float16 scale per output channel for large kernels, else float16"


def _unpacked(tree: "PyTree") -> "PyTree":
    """The inverse of `packed` and `stored_as`."""
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"q", "scale"}:
        return tree["q"].astype(np.float32) * tree["scale"]
    if set(tree) == {"nibbles", "scale", "shape"}:
        q = np.stack([tree["nibbles"] & 15, tree["nibbles"] >> 4], -1).astype(np.int8).reshape(-1)
        q = np.where(q > 7, q - 16, q)[: np.prod(tree["shape"])].reshape(tree["shape"])
        return q.astype(np.float32) * tree["scale"]
    if {"bits", "values", "shape"} <= set(tree):
        w = np.zeros(np.prod(tree["shape"]), np.float32)
        is_kept = np.unpackbits(tree["bits"], count=w.size).astype(bool)
        w[is_kept] = tree["values"].astype(np.float32) * tree.get("scale", np.float32(1.0))
        return w.reshape(tree["shape"])
    return {name: _unpacked(value) for name, value in tree.items()}


def save(path: str | os.PathLike, variables: Mapping, meta: Metadata) -> None:
    """Writes PATH.safetensors, and PATH.json with the metadata and the hash of the first file.

    Args:
      path: with or without the suffix; a bare name without a suffix is written to this folder.
      variables: Flax collections, nested dicts of arrays.
      meta: `sha256` is filled in.

    >>> save("w.safetensors", {"params": {"bias": np.zeros(3)}}, Metadata(step=7))
    >>> variables, meta = load("w.safetensors")
    >>> variables["params"]["bias"].dtype.name, meta.step
    ('float32', 7)
    """
    from safetensors.numpy import save_file

    path = file_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as part:
        save_file(_flat(variables), part)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    values = dataclasses.replace(meta, sha256=digest).to_dict()
    text = json.dumps(values, indent=1, sort_keys=True)
    files.write_atomically(path.with_suffix(".json"), text + "\n")


def metadata(name: str | os.PathLike) -> Metadata:
    """The metadata of weights, by the name of shipped ones or by path.

    Raises:
      UserError: there are no such weights, or their .json cannot be read.
    """
    path = file_of(name)
    if not path.is_file():
        raise UserError(f'no weights "{name}"{did_you_mean(str(name), [*names(), *ALIASES])}')
    try:
        return Metadata.from_dict(json.loads(path.with_suffix(".json").read_text()))
    except (OSError, ValueError) as e:
        raise UserError(
            f"{path.with_suffix('.json')}, the metadata of {path}, cannot be read ({e}); copy both "
            "files"
        ) from e


def load(name: str | os.PathLike, check: bool = True) -> tuple[dict, Metadata]:
    """(variables, metadata) of weights, by the name of shipped ones or by path.

    Args:
      check: verify the hash.

    Raises:
      UserError: there are no such weights, or the hash differs from that in the .json.
    """
    from safetensors.numpy import load_file

    path, meta = file_of(name), metadata(name)
    if check and hashlib.sha256(path.read_bytes()).hexdigest() != meta.sha256:
        raise UserError(
            f"{path} is damaged or was replaced: its hash differs from that in its .json"
        )
    variables: dict = {}
    for key, value in load_file(path).items():
        *parents, leaf = key.split("/")
        node = variables
        for parent in parents:
            node = node.setdefault(parent, {})
        is_float = value.dtype.kind == "f" or value.dtype.name == "bfloat16"
        node[leaf] = value.astype(np.float32) if is_float else value
    return _unpacked(variables), meta


def exists(name: str | os.PathLike) -> bool:
    """Whether there are weights of this name or path."""
    return file_of(name).is_file()


def is_folder(path: str | os.PathLike) -> bool:
    """Whether the path is a model folder, as `aejax export MODEL --folder` writes it."""
    return (pathlib.Path(path) / IN_FOLDER).is_file()


def file_of(name: str | os.PathLike) -> pathlib.Path:
    """The .safetensors file of weights: of a path (with or without the suffix), in a model folder,
    or of a name in this folder."""
    text = os.fspath(name)
    if is_folder(text):
        return pathlib.Path(text) / IN_FOLDER
    if text.endswith(".safetensors"):
        return pathlib.Path(text)
    if "/" in text or not isinstance(name, str):
        return pathlib.Path(f"{text}.safetensors")
    return FOLDER / f"{ALIASES.get(text, text)}.safetensors"
