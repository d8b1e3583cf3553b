"""`aejax.load`: loads a trained model from a run folder, a .safetensors file, a hub folder, the
Hugging Face hub, or the weights of this package.

A run folder has config.json (the model), spec.json (shape of the images, names of the classes) and
checkpoints (the variables). A .safetensors file has the variables and, in the .json beside it, the
config and the shape.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from aejax import weights
from aejax.config import current, from_json, to_json
from aejax.data.pipeline import make_pipeline
from aejax.data.source import is_own
from aejax.errors import UserError
from aejax.nets.autoencoder import build_model
from aejax.registry import did_you_mean, lookup, part_module
from aejax.trained import Trained
from aejax.training.checkpoint import Checkpoints
from aejax.training.workdir import Spec, read_config
from aejax.types import Shape
from aejax.weights import hub

TRUSTED = ("aejax", "optax")  # packages whose parts are imported even with own_parts=False


def load(
    source: str | os.PathLike,
    checkpoint: str | int = "last",
    *,
    data_dir: str | None = None,
    own_parts: bool | None = None,
) -> Trained:
    """Loads a trained model.

    A run folder is enough: the training data and the experiment file are not needed. Global
    settings of the process are not changed.

    Args:
      source: a run folder ("runs/digits"), a shipped model ("gray", "codec", "fashion-mnist"),
        "model.safetensors", a folder of `aejax export --folder`, or "hf://user/name" (needs
        huggingface-hub).
      checkpoint: of a run: "last", "best" or a step.
      data_dir: data folder; needed for some runs of aejax 0.1, which did not store the image size.
      own_parts: whether to import parts from outside this package that the config names. False is
        safe for files from a stranger; None = False for models of the hub, else True.

    Raises:
      UserError: no such model or checkpoint, or parts that cannot be imported.

    >>> aejax.load("runs/digits", "best").encode(images).shape
    (8, 4)
    """
    if hub.is_address(source):
        folder = hub.download(str(source))
        trained = load(folder, checkpoint, own_parts=bool(own_parts))
        return dataclasses.replace(trained, name=str(source))
    own_parts = own_parts is not False
    path = pathlib.Path(source)
    if (path / "config.json").is_file() and not weights.is_folder(path):
        return _load_run(path, checkpoint, data_dir, own_parts)
    if str(checkpoint) != "last":
        if path.is_dir() and not weights.is_folder(path):
            read_config(path)  # raises: not a run folder
        raise UserError(f'"{source}" has no checkpoints; leave "{checkpoint}" out')
    if weights.exists(source):
        return _load_weights(source, own_parts)
    if path.is_dir():
        read_config(path)
    known = [*weights.names(), *weights.ALIASES]
    raise UserError(f'no run and no weights "{source}"{did_you_mean(str(source), known)}')


def _load_run(
    workdir: pathlib.Path, checkpoint: str | int, data_dir: str | None, own_parts: bool
) -> Trained:
    config = read_config(workdir)
    if not own_parts:
        refuse_own_parts(config, str(workdir))
    folder = workdir.resolve() / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{workdir} has no checkpoint; train it first")
    checkpoints = Checkpoints(folder, best=config.eval.best, read_only=True)
    try:
        variables, step = checkpoints.variables(_step(checkpoints, checkpoint, workdir))
    finally:
        checkpoints.close()
    spec = Spec.read(workdir) or Spec(_shape_of(workdir, config, data_dir))
    model = build_model(config.model, spec.example_shape)
    return Trained(
        model, variables, config, step, spec.example_shape, spec.class_names, str(workdir)
    )


def _step(checkpoints: Checkpoints, which: str | int, workdir: pathlib.Path) -> int | None:
    """The step of the checkpoint "best" or a number; None for "last".

    Raises:
      UserError: no such checkpoint.
    """
    steps, best = checkpoints.steps(), checkpoints.best_step()
    if not steps:
        raise UserError(f"{workdir} has no checkpoint; train it first")
    if str(which) == "last":
        return None
    if str(which) == "best":
        if best is None:
            raise UserError(f"{workdir} has no evaluated checkpoint yet; load the last one")
        return best
    if str(which).isdigit() and int(which) in steps:
        return int(which)
    evaluated = f', "best" (step {best})' if best is not None else ""
    raise UserError(
        f'no checkpoint "{which}" in {workdir}; there are "last"{evaluated} and the steps '
        + ", ".join(map(str, steps))
    )


def _shape_of(workdir: pathlib.Path, config: ConfigDict, data_dir: str | None) -> Shape:
    """(h, w, c) of the images of a run of aejax 0.1, which has no spec.json: from its config, the
    example images of its last evaluation, or its data."""
    data, pictures = config.data, workdir / "pictures" / "examples.npz"
    size = (data.crop, data.crop) if data.crop else tuple(data.size)
    stored = None
    if pictures.is_file():
        with np.load(pictures) as arrays:
            stored = arrays["x"].shape[1:] if "x" in arrays else None
    channels = data.channels or (stored[-1] if stored else 0)
    if len(size) == 2 and channels:
        return int(size[0]), int(size[1]), int(channels)
    if stored and not data.crop:
        h, w, c = map(int, stored)
        return h, w, c
    pipeline = make_pipeline(config, training=True, data_dir=data_dir)
    pipeline.close()
    return pipeline.image_shape


def _load_weights(name: str | os.PathLike, own_parts: bool) -> Trained:
    variables, meta = weights.load(name)
    stored = meta.config
    if meta.fields and not stored:  # a frozen codec without config
        stored = {"task": "compress", "model": {"name": "aejax.codec.nets:Codec"}}
    if not stored:
        raise UserError(f'the .json of "{name}" has no config, so the model cannot be built')
    config = current(from_json(json.dumps(stored)))
    if not own_parts:
        refuse_own_parts(config, str(name))
    data = config.data
    shape = meta.shape
    if not shape and meta.model.get("shape"):
        h, w, c = meta.model["shape"]
        shape = (h, w, c)
    elif not shape and data.crop and data.channels:
        shape = (data.crop, data.crop, data.channels)
    if meta.fields:  # a frozen codec: integers and tables in its own format
        room = config.model.name.partition(":")[0].rpartition(".")[0]
        frozen = lookup(f"{room}.freeze:load", {}, "reader")(name)
        config.model.kwargs = _tuples(frozen.fields | {"frozen": True})
        variables = {"params": frozen.params}
    elif meta.model:  # a classifier: arguments of its class
        config.model.kwargs = _tuples(meta.model)
    model = build_model(config.model, shape or (1, 1, data.channels or 3))
    classes = meta.class_names or ()
    return Trained(model, variables, config, meta.steps, shape, classes, str(name))


def _tuples(values: Mapping[str, object]) -> ConfigDict:
    return from_json(json.dumps(dict(values)))


def refuse_own_parts(config: ConfigDict, name: str) -> None:
    """Checks that a config names no part outside this package.

    Raises:
      UserError: it names one; the message has its key.
    """
    for path, value in flatten_dict(json.loads(to_json(config))).items():
        is_source = path[0] == "data" and path[-1] in ("source", "eval_source")
        for text in _texts([*path, value]):
            module = part_module(text)
            if not module or (is_source and not is_own(text)) or module.split(".")[0] in TRUSTED:
                continue
            raise UserError(
                f'{name}: {".".join(path)} names "{text}", a part outside aejax, and own_parts is '
                "False; read that code first, then load with own_parts=True"
            )


def _texts(value: object) -> list[str]:
    """All keys and values that are text, in nested mappings and sequences."""
    if isinstance(value, Mapping):
        return [t for item in value.items() for t in _texts(item)]
    if isinstance(value, list | tuple):
        return [t for item in value for t in _texts(item)]
    return [value] if isinstance(value, str) else []
