"""Writes a model as a folder for a hub: weights, config, spec and a filled-in model card.

    model.safetensors  the variables          config.json  the config, every key
    model.json         hash, provenance       spec.json    shape of the images, classes
    README.md          the model card, with the front matter that hubs read

`aejax.load(DIR)` loads the folder, `aejax.load("hf://user/name")` a copy on a hub.
"""

import json
import math
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

from aejax import __version__, files, weights
from aejax.config import to_json
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.trained import Trained
from aejax.training.build import count_parameters

# task -> the hub's name of the task, a tag, and the card's first words
TASKS = {
    "denoise": ("image-to-image", "denoising", "An image denoiser"),
    "compress": ("image-to-image", "image-compression", "A learned image codec"),
    "generate": ("unconditional-image-generation", "image-generation", "An image generator"),
}
OTHER = ("image-feature-extraction", "autoencoder", "An image autoencoder")
NAMES = (weights.IN_FOLDER, "model.json", "config.json", "spec.json", "README.md")


def write(
    trained: Trained, folder: str | pathlib.Path, licence: str = "", force: bool = False
) -> pathlib.Path:
    """Writes the folder of a model; returns its path.

    Args:
      licence: of the weights, by the short name that hubs use ("apache-2.0", "cc-by-4.0"); "" =
        apache-2.0 for weights that come with the package, else unknown.
      force: overwrites files that exist.

    Raises:
      UserError: a file of it exists, or `folder` is that of a run.
    """
    folder = pathlib.Path(folder)
    if (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} is the folder of a run; give another one for the export")
    files.check_outputs([folder / name for name in NAMES], force=force)
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(trained, folder)
    files.write_atomically(folder / "config.json", to_json(trained.config))
    spec = {"version": 1, "example_shape": trained.shape and list(trained.shape),
            "class_names": list(trained.class_names)}  # fmt: skip
    files.write_atomically(folder / "spec.json", json.dumps(spec, indent=1) + "\n")
    files.write_atomically(folder / "README.md", card(trained, folder, licence))
    return folder


def _write_weights(trained: Trained, folder: pathlib.Path) -> None:
    """Writes model.safetensors and model.json: a copy of stored weights, or those of a run as
    float32, with the provenance that its result.json has."""
    if weights.exists(trained.name):
        source = weights.file_of(trained.name)
        for suffix in (".safetensors", ".json"):
            with files.replacing(folder / f"model{suffix}") as part:
                shutil.copyfile(source.with_suffix(suffix), part)
        return
    trained.save(folder / "model")
    file = folder / "model.json"
    result = _json(pathlib.Path(trained.name) / "result.json")
    provenance = {
        k: result[k]
        for k in ("command", "versions", "machine", "date", "data", "seconds")
        if k in result
    }
    text = json.dumps(provenance | json.loads(file.read_text()), indent=1, sort_keys=True)
    files.write_atomically(file, text + "\n")


def _json(path: pathlib.Path) -> JsonObject:
    """The content of a JSON file; {} if there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def card(trained: Trained, folder: pathlib.Path, licence: str) -> str:
    """The text of README.md for a model whose weights are in `folder`."""
    import jinja2

    about = _json(folder / "model.json")
    is_shipped = weights.exists(trained.name) and (
        weights.file_of(trained.name).parent == weights.FOLDER
    )
    pipeline_tag, tag, sentence = TASKS.get(trained.config.task, OTHER)
    metrics, examples, tested = results(trained, about)
    shape = "x".join(map(str, trained.shape)) if trained.shape else "any size"
    channels = trained.shape[-1] if trained.shape else trained.config.data.channels
    template = pathlib.Path(__file__).with_name("card.md").read_text()
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        name=pathlib.PurePath(trained.name).name or "model",
        license=licence or ("apache-2.0" if is_shipped else ""),
        pipeline_tag=pipeline_tag,
        tag=tag,
        sentence=sentence,
        version=__version__,
        model=type(trained.model).__name__,
        parameters=count_parameters(trained.variables.get("params", {})),
        megabytes=(folder / weights.IN_FOLDER).stat().st_size / 1e6,
        images=f"{shape} (height x width x channels) in training",
        channels=channels,
        steps=trained.step,
        trained_on=_training_data(about.get("data")),
        facts=[(k, about[k]) for k in ("date", "machine", "command") if about.get(k)],
        metrics=metrics,
        examples=examples,
        tested=tested,
        has_intervals=any(m["interval"] for m in metrics),
    )


def _training_data(data: object) -> str:
    """The training data in words, from the field "data" of a model.json."""
    return str(data.get("train", "")) if isinstance(data, dict) else str(data or "")


def results(trained: Trained, about: JsonObject) -> tuple[list[JsonObject], int, str]:
    """The results of a model, for its card.

    They are from eval.json or result.json of a run, if these belong to the loaded step; else from
    `about`, the model.json of stored weights.

    Returns:
      (metrics with their 95 % intervals, number of test images, name of the test data).
    """
    run = pathlib.Path(trained.name)
    evaluation, result = _json(run / "eval.json"), _json(run / "result.json")
    if evaluation.get("step") == trained.step:
        per_example = evaluation["per_example"]
        metrics = [_metric(k, v, per_example.get(k.removeprefix("test/"), ()))
                   for k, v in evaluation["metrics"].items()]  # fmt: skip
        return metrics, evaluation["examples"], evaluation["data"]["source"]
    if result.get("steps") == trained.step:
        source = trained.config.data.eval_source or trained.config.data.source
        tested = f"{source} {trained.config.data.eval_split}".strip()
        metrics = [_metric(k, v) for k, v in result["metrics"].items()]
        return metrics, result["examples"], tested
    stored = about.get("metrics")
    numbers = {k: v for k, v in (stored or {}).items() if isinstance(v, int | float)}
    source = trained.config.data.eval_source or trained.config.data.source
    return [_metric(k, v) for k, v in numbers.items()], int(about.get("examples") or 0), source


def _metric(name: str, mean: float, values: Sequence[float] = ()) -> JsonObject:
    """A line of the card. The interval is the normal approximation for the mean of `values`."""
    interval = ""
    if len(values) > 1:
        half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
        interval = f"{mean - half:.5g} to {mean + half:.5g}"
    return {"name": name.removeprefix("test/"), "value": f"{mean:.5g}", "interval": interval}
