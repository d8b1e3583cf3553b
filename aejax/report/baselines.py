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

# What decides which images are seen; batch sizes, caches and workers do not.
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

    Returns:
      the content of baselines.json: {"pca": {"runs": {run id: key}, "values": {key: {...}}}}. Runs
      to which a baseline does not apply are left out, and `say` is called with the reason.

    Raises:
      UserError: the study asks for a baseline that does not exist.
    """
    for name in study.baselines:
        if name not in MEASURES:
            raise UserError(f'no baseline "{name}"; known: {", ".join(MEASURES)}')
    kept = read_json(directory / "baselines.json") or {}
    measured = {
        name: MEASURES[name](results, directory, kept.get(name), say) for name in study.baselines
    }
    if measured != kept:
        write_json(directory / "baselines.json", measured)
    return measured


def _measure_pca(
    results: Results,
    directory: pathlib.Path,
    kept: JsonObject | None,
    say: Callable[[str], None],
) -> JsonObject:
    values = dict((kept or {}).get("values", {}))
    runs: dict[str, str] = {}
    missing: dict[str, tuple[ConfigDict, int, set[int]]] = {}
    for result in results:
        try:
            config, patch = _config_and_patch(result)
        except (KeyError, AttributeError, TypeError, UserError):
            continue  # the result of a custom trainer, or a model without f_E and f_D
        latent = int(config.model.latent)
        base = _data_key(config, patch)
        key = runs[result["id"]] = f"{base}-{latent}"
        if key not in values:
            missing.setdefault(base, (config, patch, set()))[2].add(latent)
    for base, (config, patch, latents) in missing.items():
        try:
            of_latent = pca_of(config, sorted(latents), patch)
        except (UserError, MemoryError) as e:
            say(f"no PCA for {config.data.source}: {e}")
            runs = {i: key for i, key in runs.items() if not key.startswith(base)}
            continue
        for latent, value in of_latent.items():
            fields = {"metrics": value.metrics, "parameters": value.parameters}
            values[f"{base}-{latent}"] = fields
            if value.pictures:
                folder = directory / "baselines"
                folder.mkdir(exist_ok=True)
                y = common_crop(value.pictures)
                np.savez_compressed(folder / f"pca-{base}-{latent}.npz", y=y)
    return {"runs": runs, "values": values}


def _config_and_patch(result: JsonObject) -> tuple[ConfigDict, int]:
    """The run's config and, for spatial latents, the pixels of one position of h."""
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
    chosen = {k: config.data[k] for k in DATA_KEYS if k in config.data}
    chosen |= {"patch": patch, "metrics": list(config.eval.metrics)}
    chosen |= {"examples": config.eval.examples}
    text = json.dumps(chosen, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


MEASURES = {"pca": _measure_pca}
