"""The closed-form baselines of a study's table, measured once per data set, patch and size of h."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.pictures import common_crop
from aejax.report.pca import pca_of
from aejax.study.definition import Results, Study
from aejax.study.store import read_json, write_json

# The keys of config.data that decide which images are seen: runs that agree in them share a PCA.
DATA_KEYS = (
    *("source", "split", "eval_source", "eval_split", "holdout", "size", "crop", "flip", "rotate"),
    *("channels", "on_bad", "fold", "folds"),
)


def add(
    study: Study,
    results: Results,
    directory: pathlib.Path,
    say: Callable[[str], None] = print,
) -> JsonObject:
    """Measures the study's baselines for every result, once per data set, patch and latent size.
    What baselines.json has already is not measured again.

    Returns:
      The content of baselines.json: {"pca": {"runs": {run id: key}, "values": {key: {...}}}}. Runs
      to which a baseline does not apply are left out; `say` is called with the reason where the
      data cannot be used.

    Raises:
      UserError: the study asks for a baseline that does not exist.
    """
    for name in study.baselines:
        if name not in MEASURES:
            raise UserError(f'no baseline "{name}"; known: {", ".join(MEASURES)}')
    previous = read_json(directory / "baselines.json") or {}
    measured = {
        name: MEASURES[name](results, directory, previous.get(name), say)
        for name in study.baselines
    }
    if measured != previous:
        write_json(directory / "baselines.json", measured)
    return measured


def _measure_pca(
    results: Results,
    directory: pathlib.Path,
    previous: JsonObject | None,
    say: Callable[[str], None],
) -> JsonObject:
    values = dict((previous or {}).get("values", {}))
    runs: dict[str, str] = {}
    missing: dict[str, tuple[ConfigDict, int, set[int]]] = {}
    for result in results:
        try:
            config, patch = _config_and_patch(result)
        except (KeyError, AttributeError, TypeError, UserError):
            continue  # the result of a custom trainer, or a model without f_E and f_D
        latent = int(config.model.latent)
        data_key = _data_key(config, patch)
        key = runs[result["id"]] = f"{data_key}-{latent}"
        if key not in values:
            missing.setdefault(data_key, (config, patch, set()))[2].add(latent)
    for data_key, (config, patch, latents) in missing.items():
        try:
            baselines = pca_of(config, sorted(latents), patch)
        except (UserError, MemoryError) as e:
            say(f"no PCA for {config.data.source}: {e}")
            runs = {i: key for i, key in runs.items() if not key.startswith(data_key)}
            continue
        for latent, baseline in baselines.items():
            fields = {"metrics": baseline.metrics, "parameters": baseline.parameters}
            values[f"{data_key}-{latent}"] = fields
            if baseline.pictures:
                folder = directory / "baselines"
                folder.mkdir(exist_ok=True)
                y = common_crop(baseline.pictures)
                np.savez_compressed(folder / f"pca-{data_key}-{latent}.npz", y=y)
    return {"runs": runs, "values": values}


def _config_and_patch(result: JsonObject) -> tuple[ConfigDict, int]:
    """The run's config, and the side in pixels of the patch that one position of a spatial h covers
    (0 for a vector h).

    Raises:
      UserError: the model is not made of f_E and f_D.
    """
    from aejax.config import from_json

    config = from_json(json.dumps(result["config"]))
    if config.model.name:
        raise UserError("a model in place of f_E and f_D has no comparable latent size")
    return config, _patch(json.dumps(result["config"]["model"], sort_keys=True))


@functools.lru_cache(1024)
def _patch(model: str) -> int:
    from aejax.config import from_json
    from aejax.nets.autoencoder import build_model
    from aejax.nets.f_E import stride_of

    config = from_json(model)
    config.init = "random"  # the bare f_E
    return stride_of(build_model(config, (64, 64, 3)).f_E)


def _data_key(config: ConfigDict, patch: int) -> str:
    """A hash of everything that a baseline depends on but the latent size."""
    settings = {k: config.data[k] for k in DATA_KEYS if k in config.data}
    settings |= {"patch": patch, "metrics": list(config.eval.metrics)}
    settings |= {"examples": config.eval.examples}
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


MEASURES = {"pca": _measure_pca}
