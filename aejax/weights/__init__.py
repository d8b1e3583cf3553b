"""Trained weights: NAME.safetensors with the variables, NAME.json with where they came from.

What stands in this folder is shipped with the package; any other path works too. Leaves are stored
as they are given (float16 halves the size) and come back as float32; integers stay integers.
`packed` makes them small enough to ship: large kernels in 8 bits or fewer, a scale per channel.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax import files
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.registry import did_you_mean

FOLDER = pathlib.Path(__file__).parent
LARGE = 1 << 14  # kernels with more entries than this are packed
# Short names of what is shipped.
ALIASES = {
    "gray": "denoise_gray",
    "colour": "denoise_colour",
    "fashion": "fashion-mnist",
    "mnist": "digits",
}


def names() -> list[str]:
    """Of the weights in the package."""
    return sorted(p.stem for p in FOLDER.glob("*.safetensors"))


def _flat(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    out = {}
    for name, value in tree.items():
        if hasattr(value, "items"):
            out |= _flat(value, f"{prefix}{name}/")
        else:
            out[prefix + name] = np.array(value, order="C")
    return out


def packed(tree: Any, bits: int = 8) -> Any:
    """Float32 variables -> float16, and {"q": int8, "scale": float16} for large kernels, which
    `load` multiplies out again. Fewer `bits` are as many bytes, but smaller in an archive."""
    if hasattr(tree, "items"):
        return {name: packed(value, bits) for name, value in tree.items()}
    w = np.asarray(tree, np.float32)
    if w.size <= LARGE or w.ndim < 2:
        return w.astype(np.float16)
    top = 2 ** (bits - 1) - 1
    scale = np.abs(w).max(tuple(range(w.ndim - 1))) / top
    scale = np.maximum(scale, 1e-7).astype(np.float16)
    q = np.clip(np.round(w / scale.astype(np.float32)), -top, top).astype(np.int8)
    return {"q": q, "scale": scale}


def storage(bits: int = 8) -> str:
    """What `packed` does, for the .json."""
    return f"{bits} bits with a float16 scale per output channel for large kernels, else float16"


def _unpacked(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"q", "scale"}:
        return tree["q"].astype(np.float32) * tree["scale"]
    return {name: _unpacked(value) for name, value in tree.items()}


def save(path: str | os.PathLike, variables: Mapping, meta: JsonObject) -> None:
    """Writes PATH.safetensors and PATH.json; the hash of the first stands in the second.

    Args:
      path: with or without the suffix; a bare name without it is put into this folder.
      variables: Flax collections, nested dicts of arrays.
      meta: provenance: config, command, versions, machine, steps, wall time, data.
    """
    from safetensors.numpy import save_file

    path = _path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as part:
        save_file(_flat(variables), part)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    text = json.dumps(dict(meta) | {"sha256": digest}, indent=1, sort_keys=True)
    files.write_atomically(path.with_suffix(".json"), text + "\n")


def provenance(name: str | os.PathLike) -> JsonObject:
    """Where shipped weights, or those of a path, came from: what stands in their .json.

    Raises:
      UserError: no such weights.
    """
    path = _path(name)
    if not path.is_file():
        raise UserError(f'no weights "{name}"{did_you_mean(str(name), [*names(), *ALIASES])}')
    try:
        return json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as e:
        raise UserError(
            f"{path.with_suffix('.json')}, which belongs to {path}, cannot be read "
            f"({e}); copy both files"
        ) from e


def load(name: str | os.PathLike, check: bool = True) -> tuple[dict, JsonObject]:
    """(variables, meta) of shipped weights by name, or of a path.

    Raises:
      UserError: no such weights, or a file that is not the one its .json tells of.
    """
    from safetensors.numpy import load_file

    path, meta = _path(name), provenance(name)
    if check and hashlib.sha256(path.read_bytes()).hexdigest() != meta.get("sha256"):
        raise UserError(f"{path} is damaged or was replaced: its hash is not that of the .json")
    variables: dict = {}
    for key, value in load_file(path).items():
        *parents, leaf = key.split("/")
        node = variables
        for parent in parents:
            node = node.setdefault(parent, {})
        half = value.dtype.kind == "f" or value.dtype.name == "bfloat16"
        node[leaf] = value.astype(np.float32) if half else value
    return _unpacked(variables), meta


def exists(name: str | os.PathLike) -> bool:
    """Whether `load` would find weights of that name or path."""
    return _path(name).is_file()


def _path(name: str | os.PathLike) -> pathlib.Path:
    """A path or a name with the suffix is a file; other names are in this folder."""
    text = os.fspath(name)
    if text.endswith(".safetensors"):
        return pathlib.Path(text)
    if "/" in text or not isinstance(name, str):
        return pathlib.Path(f"{text}.safetensors")
    return FOLDER / f"{ALIASES.get(text, text)}.safetensors"
