"""The models that can be used here: those that ship, and those given to `use`."""

import functools
import json
import pathlib

from aejax import weights as stored
from aejax.codec.errors import CodecError
from aejax.codec.freeze import load
from aejax.codec.frozen import Frozen
from aejax.codec.lossless import installed as lossless
from aejax.codec.runtime import Runtime

METRICS = {"mse": "codec", "ms-ssim": "codec-ms-ssim"}  # metric -> weights
OLDER = ("codec-1",)  # of earlier versions: their files stay readable

_given: dict[bytes, Runtime] = {}  # by id


@functools.cache
def _shipped(name: str) -> Runtime:
    return Runtime(load(name))


def use(weights: str | pathlib.Path | Frozen) -> Runtime:
    """Weights of one's own, for `encode(..., runtime=...)`; streams made with them are then
    decoded too, as they name their model."""
    frozen = weights if isinstance(weights, Frozen) else load(weights)
    runtime = _given.get(frozen.id) or Runtime(frozen)
    _given[frozen.id] = runtime
    return runtime


def use_any(weights: str | pathlib.Path) -> None:
    """Makes files of these weights readable: of the lossy or of the lossless codec."""
    fields = stored.load(weights)[1].fields
    (use if "latent" in fields else lossless.use)(weights)


def runtime_for(metric: str = "mse") -> Runtime:
    """The shipped model for a metric.

    Raises:
      CodecError: no such metric, or no weights for it.
    """
    if metric not in METRICS:
        raise CodecError(f'metric "{metric}" is unknown; known: {", ".join(METRICS)}')
    if not (stored.FOLDER / f"{METRICS[metric]}.safetensors").exists():
        raise CodecError(f'no weights for metric "{metric}" in this installation')
    return _shipped(METRICS[metric])


def runtime_of(model: bytes) -> Runtime:
    """The runtime of the model that a file names by its id.

    Raises:
      CodecError: it is not here.
    """
    if model in _given:
        return _given[model]
    for name in (*METRICS.values(), *OLDER):
        path = stored.FOLDER / f"{name}.json"
        if path.exists() and json.loads(path.read_text())["id"] == model.hex():
            return _shipped(name)
    raise CodecError(
        f"the file was made with model {model.hex()}, which this installation does not have; "
        "install the version of aejax that has it, or give its weights to aejax.codec.use"
    )
