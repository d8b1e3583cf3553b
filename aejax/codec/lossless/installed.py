"""The lossless models available in this process: the shipped one, and those registered by `use`."""

import functools
import json
import pathlib

from aejax.codec.errors import CodecError
from aejax.codec.lossless.freeze import load
from aejax.codec.lossless.runtime import Runtime, Weights
from aejax.weights import FOLDER

SHIPPED = "lossless"  # name of the shipped weights

_registered: dict[bytes, Runtime] = {}  # by model id


@functools.cache
def shipped() -> Runtime:
    """The shipped model."""
    return Runtime(load(SHIPPED))


def use(weights: str | pathlib.Path | Weights) -> Runtime:
    """Registers other weights (a path, a name, or Weights): `decode` then reads files made with
    them, and the returned Runtime makes such files, `encode(..., lossless=True, runtime=...)`.

    Raises:
      UserError: there are no such weights, or they are damaged.
    """
    weights = weights if isinstance(weights, Weights) else load(weights)
    runtime = _registered.get(weights.id) or Runtime(weights)
    _registered[weights.id] = runtime
    return runtime


def is_installed() -> bool:
    """Whether the weights of the shipped model are installed."""
    return (FOLDER / f"{SHIPPED}.safetensors").exists()


def runtime_of(model: bytes) -> Runtime:
    """The runtime of the model with this id, as in the header of a file.

    Raises:
      CodecError: the model is not available.
    """
    if model in _registered:
        return _registered[model]
    if is_installed():
        path = FOLDER / f"{SHIPPED}.json"
        if json.loads(path.read_text())["id"] == model.hex():
            return shipped()
    raise CodecError(
        f"the file was made with model {model.hex()}, which this installation does not have; "
        "install the version of aejax that has it, or give its weights to "
        "aejax.codec.lossless.installed.use"
    )
