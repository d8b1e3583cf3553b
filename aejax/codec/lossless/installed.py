"""The networks that can be used here: those that ship, and those given to `use`."""

import functools
import json
import pathlib

from aejax.codec.errors import CodecError
from aejax.codec.lossless.freeze import load
from aejax.codec.lossless.runtime import Runtime, Weights
from aejax.weights import FOLDER

SHIPPED = "lossless"  # weights

_given: dict[bytes, Runtime] = {}  # by id


@functools.cache
def shipped() -> Runtime:
    """The networks for photographs."""
    return Runtime(load(SHIPPED))


def use(weights: str | pathlib.Path | Weights) -> Runtime:
    """A Runtime of other weights (a path, a name, or Weights), for `encode(..., runtime=...)`;
    files made with them are then decoded too, as they name their model."""
    weights = weights if isinstance(weights, Weights) else load(weights)
    runtime = _given.get(weights.id) or Runtime(weights)
    _given[weights.id] = runtime
    return runtime


def is_installed() -> bool:
    """Whether there are weights for photographs."""
    return (FOLDER / f"{SHIPPED}.safetensors").exists()


def runtime_of(model: bytes) -> Runtime:
    """The runtime of the model that a file names.

    Raises:
      CodecError: it is not here.
    """
    if model in _given:
        return _given[model]
    if is_installed():
        path = FOLDER / f"{SHIPPED}.json"
        if json.loads(path.read_text())["id"] == model.hex():
            return shipped()
    raise CodecError(
        f"the file was made with model {model.hex()}, which this installation does not have; "
        "install the version of aejax that has it, or give its weights to "
        "aejax.codec.lossless.installed.use"
    )
