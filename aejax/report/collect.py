"""Reads the results of studies and groups them into facets and rows of repeated runs."""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from aejax.config import split_key
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.report.columns import BASELINES
from aejax.study.definition import Study
from aejax.study.store import load_results, read_json, read_manifest, read_result


@dataclasses.dataclass
class Settings:
    """How a study is to be shown; the fields are those of `Study`.

    Attributes:
      search: {"metric", "larger_is_better"} of a study that is a search, else None.
    """

    name: str
    title: str
    text: str
    columns: list[str]
    repeats: list[str]
    facet: str
    x: str
    y: str
    by: str
    pareto: list[list[str]]
    baselines: list[str]
    published: list[JsonObject]
    reference: str
    search: JsonObject | None = None

    @classmethod
    def of(cls, settings: JsonObject) -> "Settings":
        """From what `Study.settings` returns or manifest.json holds; unknown names are ignored."""
        names = [f.name for f in dataclasses.fields(cls) if f.name in settings]
        return cls(**{name: settings[name] for name in names})

    @property
    def heading(self) -> str:
        """The title; the name if there is no title."""
        return self.title or self.name


@dataclasses.dataclass
class Collection:
    """Results of one or more studies and how they are to be shown.

    Attributes:
      settings: the joint settings of all studies.
      results: contents of result.json, with id, overrides, labels, directory, study, baselines.
      studies: the settings of each study.
      sections: {"title", "text", "picture": path} from each study's `finish`.
      missing: how many runs of the studies are not done.
    """

    settings: Settings
    results: list[JsonObject]
    studies: list[Settings]
    sections: list[JsonObject]
    missing: int = 0


def collect(directories: Sequence[str | pathlib.Path]) -> Collection:
    """The results in `directories`: each is a study's folder, a run's, or one that holds runs.

    Raises:
      UserError: there is no finished run.
    """
    results, studies, sections, missing = [], [], [], 0
    for directory in map(pathlib.Path, directories):
        manifest = read_manifest(directory)
        if manifest:
            settings = Settings.of(manifest.settings)
            finished = load_results(directory)
            missing += len(manifest.runs) - len(finished)
            for section in read_json(directory / "sections.json") or []:
                picture = section.get("picture")
                section |= {"picture": str(directory / picture)} if picture else {}
                sections.append(section)
        else:
            settings, finished = _single_runs(directory)
        _add_baselines(finished, directory)
        for result in finished:
            result["study"] = settings.name
        studies.append(settings)
        results += finished
    if not results:
        raise UserError(f"no finished run in {', '.join(map(str, directories))}")
    if len(studies) > 1:
        for result in results:
            result["labels"] = {"study": result["study"]} | result["labels"]
    return Collection(_joined(studies), results, studies, sections, missing)


def _joined(studies: Sequence[Settings]) -> Settings:
    """The first study's settings, with the columns, published results, Pareto figures and
    repetitions of all."""
    settings = dataclasses.replace(studies[0])
    for other in studies[1:]:
        settings.columns = list(dict.fromkeys([*settings.columns, *other.columns]))
        for key in ("published", "pareto", "repeats"):
            values = getattr(settings, key)
            setattr(settings, key, [*values, *(v for v in getattr(other, key) if v not in values)])
    if len(studies) > 1:
        settings.title = " + ".join(study.heading for study in studies)
    return settings


def _single_runs(directory: pathlib.Path) -> tuple[Settings, list[JsonObject]]:
    """The run in `directory`, or those in its sub-folders, as a study; runs are named by folder."""
    folders = [directory, *sorted(p.parent for p in directory.glob("*/result.json"))]
    results = []
    for folder in folders:
        result = read_result(folder)
        if result is not None:
            identity = {"id": folder.name, "labels": {"run": folder.name}, "directory": str(folder)}
            results.append({"overrides": {}} | result | identity)
    if not results:
        raise UserError(f"{directory} holds no study (manifest.json) and no run (result.json)")
    study = Study(directory.name, None, by="@run")
    return Settings.of(study.settings()), results


def _add_baselines(results: list[JsonObject], directory: pathlib.Path) -> None:
    """Adds to each result the baselines that were measured for it: {"baselines": {name: ...}}."""
    for name, measured in (read_json(directory / "baselines.json") or {}).items():
        for result in results:
            key = measured["runs"].get(result["id"])
            if key in measured["values"]:
                value = dict(measured["values"][key])
                pictures = directory / "baselines" / f"{name}-{key}.npz"
                value["pictures"] = str(pictures) if pictures.exists() else ""
                result.setdefault("baselines", {})[name] = value


# --- values of columns ----------------------------------------------------------------------------


def value_of(result: JsonObject, column: str) -> Any:
    """The value of a column in one result; None if the result does not have it.

    Example:
      >>> value_of({"labels": {}, "metrics": {"test/psnr": 21.5}, "overrides": {}}, "test/psnr")
      21.5
    """
    baseline, colon, metric = column.partition(":")
    if column.startswith("@"):
        return result["labels"].get(column[1:])
    if colon and baseline in BASELINES:
        measured = result.get("baselines", {}).get(baseline)
        return measured["metrics"].get(metric) if measured else None
    if column in result["metrics"]:
        return result["metrics"][column]
    if column in result["overrides"]:
        value = result["overrides"][column]
        return value.get("name", str(value)) if isinstance(value, dict) else value
    if column == "compression":
        latent_size = result.get("latent_size")
        return result["input_size"] / latent_size if latent_size else None
    for tree in (result, result.get("config") or {}):
        value = _at_path(tree, split_key(column))
        if value is not None and not isinstance(value, dict):
            return tuple(value) if isinstance(value, list) else value
    return None


def _at_path(tree: Any, path: Sequence[str]) -> Any:
    """tree[path[0]][path[1]]...; None if there is no such entry."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def is_number(value: object) -> bool:
    """Whether `value` is a number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclasses.dataclass
class Row:
    """A row of the table: the results of runs that differ only in `Settings.repeats`."""

    results: list[JsonObject]

    def first(self, column: str) -> Any:
        """The column's value in the first of the runs."""
        return value_of(self.results[0], column)

    def numbers(self, column: str) -> list[float]:
        """The column's values in all runs where they are numbers."""
        values = [value_of(r, column) for r in self.results]
        return [float(v) for v in values if is_number(v)]

    def mean(self, column: str) -> float | None:
        """The mean over the runs; None without a number."""
        numbers = self.numbers(column)
        return statistics.fmean(numbers) if numbers else None

    def mean_or_nan(self, column: str) -> float:
        """The mean over the runs; NaN without a number."""
        mean = self.mean(column)
        return math.nan if mean is None else mean

    def spread(self, column: str) -> float | None:
        """Sample standard deviation over the runs; None for one run."""
        numbers = self.numbers(column)
        return statistics.stdev(numbers) if len(numbers) > 1 else None


def facets(collection: Collection) -> list[tuple[str, list[Row]]]:
    """(facet, rows) for each value of `Settings.facet`; rows are in the order of their runs."""
    settings = collection.settings
    repeats = set(settings.repeats)
    grouped: dict[str, dict[str, Row]] = {}
    for result in collection.results:
        facet = value_of(result, settings.facet) if settings.facet else None
        shared = {k: v for k, v in result["overrides"].items() if k not in repeats}
        key = repr((sorted(result["labels"].items()), sorted(shared.items(), key=lambda i: i[0])))
        rows = grouped.setdefault("" if facet is None else str(facet), {})
        rows.setdefault(key, Row([])).results.append(result)
    return [(name, list(rows.values())) for name, rows in grouped.items()]


def label_columns(collection: Collection) -> list[str]:
    """The columns of labels, and of the overrides that are needed to tell rows apart."""
    results, settings = collection.results, collection.settings
    labels = list(dict.fromkeys(f"@{name}" for r in results for name in r["labels"]))
    labels = [c for c in labels if c[1:] not in settings.repeats]
    hidden = {*settings.repeats, settings.facet}
    keys = list(dict.fromkeys(k for r in results for k in r["overrides"] if k not in hidden))
    shown = [*labels, settings.facet]
    shown += ["latent_size"] if "latent_size" in settings.columns else []
    for key in keys:
        values_of: dict[str, set[str]] = {}  # the columns shown so far -> values of `key`
        for result in results:
            description = repr([value_of(result, column) for column in shown])
            values_of.setdefault(description, set()).add(repr(result["overrides"].get(key)))
        if any(len(values) > 1 for values in values_of.values()):
            labels.append(key)
            shown.append(key)
    return labels


def repetition(rows: Sequence[Row], repeats: Sequence[str]) -> str:
    """The number of repetitions of the rows, in words: "3 seeds", "2 seeds x 5 folds", "1 to 3
    seeds"."""
    words = []
    for key in repeats:
        counts = sorted({len({repr(value_of(r, key)) for r in row.results}) for row in rows})
        if counts[-1] > 1:
            count = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
            words.append(f"{count} {key.rpartition('.')[2]}s")
    largest = max((len(row.results) for row in rows), default=1)
    return " x ".join(words) or f"{largest} runs"
