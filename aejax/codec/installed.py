"""The lossy models available in this process: the shipped ones, and those registered by `use`."""

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
OLDER = ("codec-1",)  # weights of earlier versions, kept so that their files can be read
# Earlier weights that are not in the package: model id -> their file in aejax's repository.
RETIRED = {"21ba2508": "experiments/compress/weights/codec-ms-ssim-1.safetensors"}

_registered: dict[bytes, Runtime] = {}  # by model id


@functools.cache
def _shipped(name: str) -> Runtime:
    return Runtime(load(name))


def use(weights: str | pathlib.Path | Frozen) -> Runtime:
    """Registers weights of your own: `decode` then reads files made with them, and the returned
    Runtime makes such files, `encode(..., runtime=use("my.safetensors"))`.

    Raises:
      UserError: there are no such weights, or they are damaged.
    """
    frozen = weights if isinstance(weights, Frozen) else load(weights)
    runtime = _registered.get(frozen.id) or Runtime(frozen)
    _registered[frozen.id] = runtime
    return runtime


def use_any(weights: str | pathlib.Path) -> None:
    """Registers weights of the lossy or the lossless codec, so that files made with them can be
    decoded."""
    fields = stored.load(weights)[1].fields
    (use if "latent" in fields else lossless.use)(weights)


def runtime_for(metric: str = "mse") -> Runtime:
    """The shipped model for a metric.

    Raises:
      CodecError: the metric is unknown, or its weights are not installed.
    """
    if metric not in METRICS:
        raise CodecError(f'metric "{metric}" is unknown; known: {", ".join(METRICS)}')
    if not (stored.FOLDER / f"{METRICS[metric]}.safetensors").exists():
        raise CodecError(f'no weights for metric "{metric}" in this installation')
    return _shipped(METRICS[metric])


def runtime_of(model: bytes) -> Runtime:
    """The runtime of the model with this id, as in the header of a file.

    Raises:
      CodecError: the model is not available.
    """
    if model in _registered:
        return _registered[model]
    for name in (*METRICS.values(), *OLDER):
        path = stored.FOLDER / f"{name}.json"
        if path.exists() and json.loads(path.read_text())["id"] == model.hex():
            return _shipped(name)
    if model.hex() in RETIRED:
        raise CodecError(
            f"the file was made with earlier weights, {model.hex()}, which are not installed; get "
            f"{RETIRED[model.hex()]} and its .json in its repository; give --weights FILE, "
            "or call aejax.codec.use(FILE)"
        )
    raise CodecError(
        f"the file was made with model {model.hex()}, which this installation does not have; "
        "install the version of aejax that has it, or give its weights to aejax.codec.use"
    )
