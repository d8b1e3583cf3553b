"""What a study is: its runs and their ids.

A study file defines `get_study(arg="") -> Study`. A run is a dict of overrides of the base config;
its id is a hash of them, and `runs/STUDY/ID` is its folder. A run with a result is done, one with a
checkpoint is resumed from it, and only the process that holds its lease trains it. A study can
therefore be stopped at any time, resumed, extended, and shared by machines that see one folder.

    runs/STUDY/manifest.json   every run in order: index, id, overrides, labels
    runs/STUDY/ID/             the folder of a run: config, log, checkpoints, result.json
    runs/STUDY/report.html     and table.md, results.csv, figures: see aejax/report
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.registry import first_name, lookup
from aejax.result import Overrides, Result

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from aejax.trained import Trained

Results = Sequence[JsonObject]  # contents of result.json with id, overrides and labels


class Search:
    """Base class of searches, which propose the next runs, given the finished ones. See search.py.

    Attributes:
      metric: the metric to optimise, such as "test/psnr"; the table shows the best row in bold.
        "" = no row is marked.
      larger_is_better: whether a larger `metric` is better.
      fixed: overrides that are added to every run that the search proposes.
      poll: seconds between two calls of `should_stop`.

    Example:
      >>> class Doubling(Search):  # doubles the length of the training while the PSNR rises
      ...     def __call__(self, results, directory):
      ...         scores = [r["metrics"]["test/psnr"] for r in results]
      ...         count = len(scores) + (scores == sorted(scores))
      ...         return [{"train.length": f"{2**i} epochs"} for i in range(count)]
      >>> Study("longer", config, search=Doubling()).search([], None)
      [{'train.length': '1 epochs'}]
    """

    metric: str = ""
    larger_is_better: bool = True
    fixed: Overrides = {}
    poll: float = 1.0

    @property
    def can_stop_runs(self) -> bool:
        """Whether `should_stop` is called while a run is being trained."""
        return False

    @property
    def total(self) -> int:
        """How many runs the search will propose in all; 0 = not known."""
        return 0

    def __call__(self, results: Results, directory: pathlib.Path) -> Iterable[Overrides]:
        """The overrides of all runs proposed so far, and of new ones.

        Args:
          results: of the finished runs, in the manifest's order.
          directory: the folder of the study.
        """
        raise NotImplementedError

    def should_stop(self, workdir: pathlib.Path, others: Sequence[pathlib.Path]) -> bool:
        """Whether to end the run in `workdir` early, given the folders of the other runs."""
        return False


class FunctionSearch(Search):
    """A search made of a function (results, directory) -> overrides of all runs."""

    def __init__(self, function: Callable[[Results, pathlib.Path], Iterable[Overrides]]):
        self.function = function

    def __call__(self, results: Results, directory: pathlib.Path) -> Iterable[Overrides]:
        return [{**run, **self.fixed} for run in self.function(results, directory)]


@dataclasses.dataclass
class TrainedRun:
    """The argument of `Study.measure`: a run that was just trained.

    Attributes:
      config: the run's config.
      result: the content of its result.json.
      workdir: the run's folder.
      data_dir: the data folder; None = AEJAX_DATA.
    """

    config: "ConfigDict"
    result: JsonObject
    workdir: pathlib.Path
    data_dir: str | None = None

    @functools.cached_property
    def model(self) -> "Trained":
        """The trained model, as `aejax.load` returns it."""
        from aejax.loading import load as load_model

        return load_model(self.workdir, data_dir=self.data_dir)


@dataclasses.dataclass
class Study:
    """What to run and how to show it.

    A key of `runs` is a dotted config key, or a label "@name", which only names the run in tables
    and does not change its id. A column is a label, a config key, a metric ("test/psnr"), a field
    of the result ("parameters", "seconds.total"), or "compression" (numbers in x per number in h).

    The functions (`config`, `search`, `train`, `measure`, `finish`, `report`) may be given by name,
    as "package.module:function".

    Attributes:
      name: of the study and, by default, of its folder in runs/.
      config: the base config, or a function without arguments that returns it.
      runs: overrides of each run, in the order in which they are trained.
      search: proposes further runs as others finish: a Search, or a function
        (finished results, folder of the study) -> overrides.
      train: (config, workdir) -> result; default `aejax.training.run.train`. Arguments called
        `overrides`, `command`, `data_dir` and `quiet` are filled if it has them.
      measure: (TrainedRun) -> {name: value}: what is measured besides config.eval.metrics, once
        after the training. A name with a slash ("test/error, %") becomes a metric, any other a
        field of the result.
      title, text: of the report; paragraphs of `text` are separated by blank lines.
      columns: of the table, after the labels.
      repeats: keys of repetitions, such as the seed: runs that differ only in them share a row,
        which has their mean and standard deviation.
      facet: each value of this key has its own table and panel of the figures.
      x, y, by: the columns on the axes of the figure, and the one that names its lines.
      pareto: further figures, as (x, y) such as ("parameters", "test/psnr"), with the Pareto front.
      baselines: closed-form baselines to show beside every row: "pca".
      published: rows with results of the literature: {"name": ..., "source": ..., column: value}.
      reference: the value of `by` that all others are compared with, by a paired t-test over
        `repeats`; "" = no comparison.
      finish: (results, directory) -> None, or a list of {"title", "text", "picture": file} that
        become sections of the report; called when all runs are done.
      report: (study, results, directory, quiet) -> None; called last. None = no report.
      file, arg, overrides: where the study was defined, and what was set on the command line for
        all of its runs; filled by `load`.

    Example:
      >>> study = Study("sizes", None, grid({"model.latent": (2, 4), "seed": (0, 1)}))
      >>> [run.overrides["model.latent"] for run in list_runs(study.runs)]
      [2, 2, 4, 4]
    """

    name: str
    config: "ConfigDict | Callable[[], ConfigDict] | None"
    runs: Iterable[Overrides] = ()
    search: Any = None
    train: Callable[..., Result | JsonObject] | None = None
    measure: Callable[[TrainedRun], Mapping[str, object]] | None = None
    title: str = ""
    text: str = ""
    columns: Sequence[str] = (
        *("latent_size", "parameters", "compression", "test/psnr", "test/ssim"),
        "examples_per_sec",
    )
    repeats: Sequence[str] = ("seed", "data.fold")
    facet: str = "data.source"
    x: str = "latent_size"
    y: str = "test/psnr"
    by: str = "@model"
    pareto: Sequence[tuple[str, str]] = ()
    baselines: Sequence[str] = ("pca",)
    published: Sequence[JsonObject] = ()
    reference: str = ""
    finish: Callable[[list[JsonObject], pathlib.Path], list[JsonObject] | None] | None = None
    report: Callable[..., None] | str | None = "aejax.report.finish:finish_study"
    file: str = ""
    arg: str = ""
    overrides: Sequence[str] = ()

    def __post_init__(self):
        for field in ("config", "search", "train", "measure", "finish"):
            name = getattr(self, field)
            if isinstance(name, str):
                setattr(self, field, lookup(name, {}, f"study's {field}"))
        if self.search is not None and not isinstance(self.search, Search):
            self.search = FunctionSearch(self.search)

    def base_config(self) -> "ConfigDict":
        """The config that the overrides of the runs are applied to.

        Raises:
          UserError: the study has none.
        """
        if self.config is None:
            raise UserError(f'the study "{self.name}" has no config')
        return self.config() if callable(self.config) else self.config

    def settings(self) -> JsonObject:
        """What a report needs to know, as JSON; the head of manifest.json."""
        names = "name title text columns repeats facet x y by pareto baselines published reference"
        names += " file arg overrides"
        settings = {name: getattr(self, name) for name in names.split()}
        if self.search is not None and self.search.metric:
            settings["search"] = {
                "metric": self.search.metric,
                "larger_is_better": self.search.larger_is_better,
            }
        return json.loads(json.dumps(settings, default=to_plain))


# --- sets of runs ---------------------------------------------------------------------------------


def grid(axes: Mapping[str, Iterable[object]]) -> list[Overrides]:
    """Every combination of the values; the last key varies fastest.

    Example:
      >>> grid({"model.latent": (2, 4), "seed": (0,)})
      [{'model.latent': 2, 'seed': 0}, {'model.latent': 4, 'seed': 0}]
    """
    return [dict(zip(axes, v, strict=True)) for v in itertools.product(*map(list, axes.values()))]


def named(label: str, members: Mapping[str, Overrides]) -> list[Overrides]:
    """Overrides with a label each, for tables.

    Example:
      >>> named("model", {"wide": {"model.f_E.widths": (64, 32)}})
      [{'@model': 'wide', 'model.f_E.widths': (64, 32)}]
    """
    return [{f"@{label}": name, **overrides} for name, overrides in members.items()]


def seeds(n: int) -> list[Overrides]:
    """n repetitions: seed = 0 ... n - 1.

    Example:
      >>> seeds(2)
      [{'seed': 0}, {'seed': 1}]
    """
    return grid({"seed": range(n)})


def product(*sets: Iterable[Overrides]) -> list[Overrides]:
    """Each run of the first set with each of the second, and so on; the last set varies fastest.

    Raises:
      UserError: two sets give different values to one key.

    Example:
      >>> product(grid({"model.latent": (2, 4)}), seeds(1))
      [{'model.latent': 2, 'seed': 0}, {'model.latent': 4, 'seed': 0}]
    """
    runs: list[Overrides] = []
    for parts in itertools.product(*map(list, sets)):
        merged: JsonObject = {}
        for part in parts:
            for key in part:
                if key in merged and merged[key] != part[key]:
                    raise UserError(f'two sets of a product both set "{key}"')
            merged |= part
        runs.append(merged)
    return runs


# --- runs and their ids ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
      index: its place in the study, from 0; part i of N has the runs with index % N == i.
      id: ten hex digits, see `run_id`; the name of its folder.
      overrides: of the base config, by dotted key, without the labels.
      labels: {name: value}, for tables.
    """

    index: int
    id: str
    overrides: JsonObject
    labels: JsonObject

    @property
    def labelled_overrides(self) -> Overrides:
        """The overrides with the labels as "@name" keys, as `list_runs` takes them."""
        return self.overrides | {f"@{name}": value for name, value in self.labels.items()}


def distinguishing_keys(runs: Sequence[Run]) -> list[str]:
    """The keys of overrides that are needed to tell apart runs with equal labels."""
    keys: list[str] = []
    for key in dict.fromkeys(key for run in runs for key in run.overrides):
        values_of: dict[str, set[str]] = {}  # description by labels and `keys` -> values of `key`
        for run in runs:
            description = repr([run.labels, [run.overrides.get(k) for k in keys]])
            values_of.setdefault(description, set()).add(repr(run.overrides.get(key)))
        if any(len(values) > 1 for values in values_of.values()):
            keys.append(key)
    return keys


def describe(run: Run, keys: Sequence[str]) -> str:
    """A run in words: its labels, then the values of its overrides `keys`.

    Example:
      >>> describe(Run(0, "1f", {"model.latent": 16, "seed": 0}, {"model": "conv"}), ["seed"])
      'conv, seed 0'
    """
    words = [str(value) for value in run.labels.values()]
    for key in keys:
        value = run.overrides.get(key)
        value = value.get("name", "...") if isinstance(value, dict) else value
        tail = key.rpartition(".")[2]
        words.append(str(value) if isinstance(value, str) else f"{tail} {value}")
    return ", ".join(words) or "base config"


def run_id(overrides: Overrides) -> str:
    """Ten hex digits of a hash of the overrides. It does not depend on the order of the keys, on
    labels, or on whether a number is written 1 or 1.0.

    Example:
      >>> run_id({"seed": 0}) == run_id({"@name": "the first", "seed": 0.0})
      True
    """
    canonical = {k: _canonical(v) for k, v in overrides.items() if not k.startswith("@")}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def to_plain(value: object) -> object:
    """`default` of json.dumps for overrides: NumPy numbers, ConfigDicts, ranges, sets, paths.

    Raises:
      UserError: any other object.
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, range | set | frozenset):
        return list(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise UserError(f"an override must be a number, text, list or dict, not {value!r}")


def _canonical(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str):
        return first_name(value)
    if value is None or isinstance(value, int | float):
        return value
    return _canonical(to_plain(value))


def list_runs(all_overrides: Iterable[Overrides]) -> list[Run]:
    """The runs in order; equal overrides make one run.

    Raises:
      UserError: a run is no dict, or has a value that cannot be written as JSON.

    Example:
      >>> [run.labels for run in list_runs([{"@model": "small", "model.latent": 2}])]
      [{'model': 'small'}]
    """
    runs: dict[str, Run] = {}
    for overrides in all_overrides:
        if not isinstance(overrides, Mapping):
            raise UserError(f"a run must be a dict of overrides, not {overrides!r}")
        plain = json.loads(json.dumps(dict(overrides), default=to_plain))
        labels = {k[1:]: plain.pop(k) for k in list(plain) if k.startswith("@")}
        runs.setdefault(run_id(plain), Run(len(runs), run_id(plain), plain, labels))
    return list(runs.values())


def load(spec: str, overrides: Sequence[str] = ()) -> Study:
    """The study that "FILE[:arg]" defines.

    Args:
      overrides: "--config.optim.lr=0.01", ...: set in every run.

    Raises:
      UserError: no such file, or no `get_study` in it.
    """
    from aejax import config

    path, arg = config.split_arg(spec)
    module = config.load_module(path)
    if not hasattr(module, "get_study"):
        raise UserError(
            f'"{path}" has no get_study(arg), so it is no study; aejax train runs a single config'
        )
    with config.file_errors(path):
        study = module.get_study(arg)
    if not isinstance(study, Study):
        raise UserError(f"{path}: get_study returns {type(study).__name__}, not a Study")
    study.file, study.arg = path, arg
    study.text = study.text or (module.__doc__ or "").strip()
    study.overrides = tuple(overrides)
    fixed = config.parse_overrides(overrides)
    if fixed:
        study.runs = [{**run, **fixed} for run in study.runs]
        if study.search is not None:
            study.search.fixed = {**study.search.fixed, **fixed}
    return study


def resolve(base: "ConfigDict", run: Run) -> "ConfigDict":
    """The config of one run: `base` with the run's overrides.

    Raises:
      UserError: an override does not fit the base config.
    """
    from aejax.config import apply_overrides

    # A part ("model.f_E") is set before what is inside it ("model.f_E.widths").
    ordered = sorted(run.overrides, key=lambda key: (key.count("."), key))
    return apply_overrides(base, {key: run.overrides[key] for key in ordered})
