"""Puts a finished run into the package's weights: python ship.py classifier|generator RUN NAME.

Float16 on disk; the .json holds what made them: config, command, versions, machine, wall time.
"""

import json
import pathlib
import sys

import jax
import numpy as np


def meta_of(run: str) -> dict:
    """Provenance from a run's result.json."""
    result = json.loads((pathlib.Path(run) / "result.json").read_text())
    keys = ("config", "command", "versions", "machine", "date", "git", "steps", "seconds", "data")
    return {k: result[k] for k in keys} | {"metrics": result["metrics"]}


def half(tree):
    """Floats as float16: an eighth of a thousandth, below what training leaves uncertain."""
    return jax.tree.map(
        lambda a: np.asarray(a, np.float16 if a.dtype.kind == "f" else a.dtype), tree
    )


def classifier(run: str, name: str) -> None:
    """The averaged weights, and the one number that its features are divided by."""
    from aejax import load, weights
    from aejax.data.source import decoded, open_source
    from aejax.generate.classifier import as_meta, scale_of

    trained = load(run)
    variables = jax.tree.map(np.asarray, trained.variables)
    train = decoded(open_source(trained.config.data.source, "train"))
    apply = jax.jit(lambda v, x: trained.model.apply(v, x.astype(np.float32) / 255.0).h)
    images = np.asarray(train.data).reshape(-1, *trained.model.shape)[:10000]
    as_stored = jax.tree.map(lambda a: a.astype(np.float32), half(variables))
    features = np.concatenate([apply(as_stored, images[i : i + 500]) for i in range(0, 10000, 500)])
    meta = meta_of(run) | {"model": as_meta(trained.model), "feature_scale": scale_of(features)}
    weights.save(name, half(variables), meta)


def generator(run: str, name: str) -> None:
    """A LatentModel: autoencoder and prior in one file."""
    from aejax import load, weights

    trained = load(run)
    variables = dict(jax.tree.map(np.asarray, trained.variables))
    out = {"params": half(variables.pop("params")), **variables}  # statistics stay exact
    weights.save(name, out, meta_of(run) | {"shape": list(trained.model.shape)})


if __name__ == "__main__":
    {"classifier": classifier, "generator": generator}[sys.argv[1]](*sys.argv[2:])
