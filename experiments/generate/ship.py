"""Converts a run to shipped weights, and scores them.

    python experiments/generate/ship.py classifier|generator|mixture RUN NAME
    python experiments/generate/ship.py score NAME digits|fashion
    python experiments/generate/ship.py rivals STUDY

"mixture" is for the run of an autoencoder: a Gaussian mixture of ten components is fitted to the
latents of each class, which takes seconds. NAME may be a path. "score" measures a generator on
10,000 samples and writes the metrics to its .json. "rivals" stores some samples of the VAE and the
GAN of table.py:fashion, for the quickstart.

Weights are stored as float16, large kernels of generators in 6 bits; the .json holds config,
command, versions, machine and wall time.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from aejax.weights import Metadata

BITS = 6  # of a generator's kernels: FD 0.191 where 8 bits have 0.189 and 5 bits 0.202


def meta_of(run: str) -> dict:
    """Provenance from a run's result.json."""
    result = json.loads((pathlib.Path(run) / "result.json").read_text())
    keys = ("config", "command", "versions", "machine", "date", "git", "steps", "seconds", "data")
    return {k: result[k] for k in keys} | {"metrics": result["metrics"]}


def started(run: str, step: int) -> dict:
    """Provenance of a run that was stopped before its end."""
    folder = pathlib.Path(run)
    meta = json.loads((folder / "provenance.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    return meta | {"config": config, "steps": step, "note": "stopped before its full length"}


def half(tree):
    """Floats as float16, exact to 1 part in 2,000."""
    return jax.tree.map(
        lambda a: np.asarray(a, np.float16 if a.dtype.kind == "f" else a.dtype), tree
    )


def classifier(run: str, name: str) -> None:
    """The averaged weights, and the one number that its features are divided by."""
    from aejax import load, weights
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source
    from aejax.generation.features.classifier import as_meta, scale_of

    trained = load(run)
    variables = jax.tree.map(np.asarray, trained.variables)
    train = decoded(open_source(trained.config.data.source, "train"))
    apply = jax.jit(lambda v, x: trained.model.apply(v, x.astype(np.float32) / 255.0).h)
    images = np.asarray(train.data).reshape(-1, *trained.model.shape)[:10000]
    as_stored = jax.tree.map(lambda a: a.astype(np.float32), half(variables))
    features = np.concatenate([apply(as_stored, images[i : i + 500]) for i in range(0, 10000, 500)])
    meta = meta_of(run) | {"model": as_meta(trained.model), "feature_scale": scale_of(features)}
    weights.save(name, half(variables), Metadata.from_dict(meta))


def generator(run: str, name: str) -> None:
    """A LatentModel: autoencoder and prior in one file."""
    from aejax import load, weights
    from aejax.data.source import open_source

    trained = load(run)
    classes = list(open_source(trained.config.data.source, "train").class_names)
    variables = dict(jax.tree.map(np.asarray, trained.variables))
    # statistics stay exact
    out = {"params": weights.packed(variables.pop("params"), BITS), **variables}
    meta = meta_of(run) | {"shape": list(trained.model.shape), "class_names": classes}
    meta["storage"] = weights.storage(BITS)
    weights.save(name, out, Metadata.from_dict(meta))


def mixture(run: str, name: str) -> None:
    """A LatentModel of a trained autoencoder with ten normals for each class."""
    import time

    from aejax import load, weights
    from aejax.config import plain
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source
    from aejax.generation.latent import LatentModel, fit_prior

    trained, begun = load(run), time.perf_counter()
    train = decoded(open_source(trained.config.data.source, "train"))
    images, labels = np.asarray(train.data).reshape(-1, *train.source.shape), train.labels
    kwargs = {
        "autoencoder": plain(trained.config.model),
        "prior": {"name": "mixture", "components": 10},
        "classes": len(train.source.class_names),
    }
    model = LatentModel(shape=train.source.shape, **kwargs)
    variables = {n: {"ae": tree} for n, tree in trained.variables.items()}
    variables = dict(jax.tree.map(np.asarray, fit_prior(model, variables, images, labels)))
    done = (pathlib.Path(run) / "result.json").exists()
    meta = meta_of(run) if done else started(run, trained.step)
    meta["config"]["model"] |= {"name": "aejax.generation.latent:LatentModel", "kwargs": kwargs}
    meta |= {"shape": list(train.source.shape), "fit_seconds": time.perf_counter() - begun}
    meta["class_names"] = list(train.source.class_names)
    out = {"params": half(variables.pop("params")), **variables}
    weights.save(name, out, Metadata.from_dict(meta))


def score(name: str, data: str) -> None:
    """The metrics of 10,000 samples, and the FD of 10,000 reconstructions, into the .json."""
    import time

    from aejax import weights
    from aejax.generation.generator import load_generator
    from aejax.generation.metrics import frechet
    from aejax.generation.score import open_reference
    from aejax.generation.score import score as measure

    real = open_reference({"digits": "tfds:mnist", "fashion": "tfds:fashion_mnist"}[data])
    test = real.images
    generator = load_generator(name)
    generator.sample(500)  # compiled
    begun = time.perf_counter()
    samples = generator.sample(10000, seed=1)
    draw_seconds = time.perf_counter() - begun
    again = np.concatenate(
        [generator.decode(generator.encode(test[i : i + 500])) for i in range(0, len(test), 500)]
    )
    result = measure(real, samples)
    figures = result.to_dict() | {
        "draw_seconds": draw_seconds,
        "fd_reconstruction": frechet(real.features, real.extract(again)[0]),
    }
    print(result.caption(), json.dumps(figures))
    path = weights.file_of(name).with_suffix(".json")
    meta = json.loads(path.read_text()) | {"score": figures}
    path.write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")


def rivals(study: str) -> None:
    """Twelve samples of the plain VAE and of the GAN, and the metrics of 10,000."""
    from aejax.config import from_json, load_module
    from aejax.generation.demo import RIVALS

    table = load_module(str(pathlib.Path(__file__).parent / "table.py"))
    root = pathlib.Path(study)
    runs = json.loads((root / "manifest.json").read_text())["runs"]
    real, pictures, models = table.judged("tfds:fashion_mnist", None, ""), {}, {}
    for name, model, prior in (("plain VAE", "vae", "normal"), ("GAN", "gan", "own")):
        folder = next(root / r["id"] for r in runs if r["labels"]["model"] == model)
        result = json.loads((folder / "result.json").read_text())
        config = from_json(json.dumps(result["config"]))
        pictures[name] = table.drawn(config, prior, folder, real, 12, None, {})[0]
        score = json.loads((folder / "scores.json").read_text())[prior]
        models[name] = {
            k: score[k] for k in ("fd", "fd_floor", "n", "n_real", "extractor", "fit_s")
        }
        models[name] |= {k: result[k] for k in ("command", "versions", "machine", "date", "git")}
    np.savez_compressed(RIVALS.with_suffix(".npz"), **pictures)
    text = json.dumps({"models": models}, indent=1)
    RIVALS.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    verbs = {
        "classifier": classifier, "generator": generator, "mixture": mixture, "score": score,
        "rivals": rivals,
    }  # fmt: skip
    verbs[sys.argv[1]](*sys.argv[2:])
