"""A study: many runs of one experiment, what they are and what stands of them; runner.py does them.

A study file defines `get_study(arg="") -> Study`. Run i is a dict of overrides of the base config;
its id is a hash of them; `runs/STUDY/ID` is its directory. That is all the state there is: what has
a result is done, what has a checkpoint goes on from it, and whoever holds the lease does it. So a
study can be stopped anywhere, continued anywhere, extended later and shared by machines that see
one folder.

    runs/STUDY/manifest.json   every run in order: index, id, overrides, labels
    runs/STUDY/ID/             the workdir of a run: config, log, checkpoints, result.json
    runs/STUDY/report.html     and table.md, results.csv, figures: see report.py
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aejax import files
from aejax.errors import UserError
from aejax.registry import first_name, lookup

Overrides = Mapping[str, Any]  # {"model.latent": 16, "seed": 0, "@model": "conv"}


@dataclasses.dataclass
class Study:
    """What to run and how to show it.

    A key of `runs` is a dotted config key, or a label "@name" that only names the run in tables
    and is no part of its id. A column is a label, a config key, a metric ("test/psnr"), a field of
    the result ("parameters", "seconds.total"), or "compression" (numbers in x per number in h).

    A function (`config`, `more`, `train`, `finish`) may be given as "package.module:function".

    Attributes:
      name: names the directory.
      config: the base config, or a function that makes it.
      runs: overrides of each run, in the order in which they are to be done.
      more: (finished results, directory) -> further overrides, a function of what stands there;
        called when there is nothing left to do. What searches are made of (search.py). If it has
        `should_stop(workdir, others) -> bool`, that is asked while a run is going on.
      train: (config, workdir) -> result; default `aejax.training.run.train`.
      title, text: of the report; the text is Markdown-free prose, paragraphs by blank lines.
      columns: of the table, after the labels.
      over: keys over which rows are averaged (mean and standard deviation).
      facet: runs that differ in this are not compared: tables and figures of their own.
      x, y, by: the figure's axes, and what names its lines.
      pareto: further figures ("parameters", "test/psnr"), with the front drawn in.
      baselines: closed-form ones to put beside every row: "pca".
      published: figures of the literature: {"name": ..., "source": ..., column: value, ...}.
      reference: label of the rows that the others are compared with by a paired test over `over`.
      finish: (results, directory) -> None, or a list of {"title", "text", "picture": file} that
        become sections of the report; called when all runs are done.
      file, arg, overrides: where the study was defined, and what was set on the command line for
        all of its runs; filled by `load`.
    """

    name: str
    config: Any
    runs: Iterable[Overrides] = ()
    more: Callable[[list[dict[str, Any]], pathlib.Path], Iterable[Overrides]] | None = None
    train: Callable[..., dict[str, Any]] | None = None
    title: str = ""
    text: str = ""
    columns: Sequence[str] = (
        *("latent_size", "parameters", "compression", "test/psnr", "test/ssim"),
        "examples_per_sec",
    )
    over: Sequence[str] = ("seed", "data.fold")
    facet: str = "data.source"
    x: str = "latent_size"
    y: str = "test/psnr"
    by: str = "@model"
    pareto: Sequence[tuple[str, str]] = ()
    baselines: Sequence[str] = ("pca",)
    published: Sequence[Mapping[str, Any]] = ()
    reference: str = ""
    finish: Callable[[list[dict[str, Any]], pathlib.Path], Any] | None = None
    file: str = ""
    arg: str = ""
    overrides: Sequence[str] = ()

    def __post_init__(self):
        for field in ("config", "more", "train", "finish"):
            name = getattr(self, field)
            if isinstance(name, str):
                setattr(self, field, lookup(name, {}, f"study's {field}"))

    def settings(self) -> dict[str, Any]:
        """What a report needs to know, as JSON."""
        names = "name title text columns over facet x y by pareto baselines published reference"
        names += " file arg overrides"
        found = {name: getattr(self, name) for name in names.split()}
        if hasattr(self.more, "metric"):
            found["search"] = {"metric": self.more.metric, "better": self.more.better}
        return json.loads(json.dumps(found, default=_plain))


# --- sets of runs ---------------------------------------------------------------------------------


def grid(axes: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last key fastest: grid({"model.latent": (2, 4), "seed": (0, 1)})."""
    return [dict(zip(axes, v, strict=True)) for v in itertools.product(*map(list, axes.values()))]


def zip_(axes: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Keys that change together: zip_({"model.latent": (2, 4), "optim.lr": (1e-3, 3e-3)})."""
    axes = {key: list(values) for key, values in axes.items()}
    lengths = {key: len(values) for key, values in axes.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"zip_ needs lists of one length, not {lengths}")
    return [dict(zip(axes, v, strict=True)) for v in zip(*axes.values(), strict=True)]


def named(label: str, members: Mapping[str, Overrides]) -> list[dict[str, Any]]:
    """Overrides with a name for tables: named("model", {"conv": {"model.f_E": "conv", ...}})."""
    return [{f"@{label}": name, **overrides} for name, overrides in members.items()]


def seeds(n: int) -> list[dict[str, Any]]:
    """n repetitions: seed = 0 ... n - 1."""
    return grid({"seed": range(n)})


def product(*sets: Iterable[Overrides]) -> list[dict[str, Any]]:
    """Each of the first set with each of the second, ...; the last set fastest."""
    found = []
    for parts in itertools.product(*map(list, sets)):
        merged: dict[str, Any] = {}
        for part in parts:
            for key in part:
                if key in merged and merged[key] != part[key]:
                    raise UserError(f'two sets of a product both set "{key}"')
            merged |= part
        found.append(merged)
    return found


# --- runs and their ids ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """One unit of work; `overrides` without the labels."""

    index: int
    id: str
    overrides: dict[str, Any]
    labels: dict[str, Any]


def telling_keys(runs: Sequence[Run]) -> list[str]:
    """The overrides without which two runs of the same labels would look the same."""
    found: list[str] = []
    for key in dict.fromkeys(key for run in runs for key in run.overrides):
        looks: dict[str, set[str]] = {}
        for run in runs:
            look = repr([run.labels, [run.overrides.get(k) for k in found]])
            looks.setdefault(look, set()).add(repr(run.overrides.get(key)))
        if any(len(values) > 1 for values in looks.values()):
            found.append(key)
    return found


def describe(run: Run, keys: Sequence[str]) -> str:
    """ "conv, latent 16, seed 0": the labels, and of the overrides `keys`."""
    words = [str(value) for value in run.labels.values()]
    for key in keys:
        value = run.overrides.get(key)
        value = value.get("name", "...") if isinstance(value, dict) else value
        tail = key.rpartition(".")[2]
        words.append(str(value) if isinstance(value, str) else f"{tail} {value}")
    return ", ".join(words) or "base config"


def run_id(overrides: Overrides) -> str:
    """Ten hex digits of keys and values alone: not of their order, labels, or 1 against 1.0."""
    canonical = {k: _canonical(v) for k, v in overrides.items() if not k.startswith("@")}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _plain(value: Any) -> Any:
    """JSON of what users put into overrides: NumPy numbers, tuples, ConfigDicts, paths."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, range | set | frozenset):
        return list(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise UserError(f"an override must be a number, text, list or dict, not {value!r}")


def _canonical(value: Any) -> Any:
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
    return _canonical(_plain(value))


def plan(all_overrides: Iterable[Overrides]) -> list[Run]:
    """The runs in order; one that comes twice is one run."""
    found: dict[str, Run] = {}
    for overrides in all_overrides:
        if not isinstance(overrides, Mapping):
            raise UserError(f"a run must be a dict of overrides, not {overrides!r}")
        clean = json.loads(json.dumps(dict(overrides), default=_plain))
        labels = {k[1:]: clean.pop(k) for k in list(clean) if k.startswith("@")}
        found.setdefault(run_id(clean), Run(len(found), run_id(clean), clean, labels))
    return list(found.values())


def load(spec: str, overrides: Sequence[str] = ()) -> Study:
    """The study of "FILE[:arg]"; `overrides` ("optim.lr=0.01") hold for every run of it.

    Raises:
      UserError: no such file, or no `get_study` in it.
    """
    from aejax import config

    path, arg = config.split_arg(spec)
    module = config.load_module(path)
    if not hasattr(module, "get_study"):
        raise UserError(f'"{path}" has no get_study(arg); is it one run? then: aejax train')
    with config.file_errors(path):
        study = module.get_study(arg)
    if not isinstance(study, Study):
        raise UserError(f"{path}: get_study returns {type(study).__name__}, not a Study")
    study.file, study.arg = path, arg
    study.text = study.text or (module.__doc__ or "").strip()
    study.overrides = tuple(overrides)
    if overrides:
        fixed = {}
        for text in overrides:
            key, equals, value = text.partition("=")
            if not equals:
                raise UserError(f'"{text}" is not of the form key=value')
            fixed[key.removeprefix("--").removeprefix("config.")] = config._parse(value)
        runs, more = list(study.runs), study.more
        study.runs = [{**run, **fixed} for run in runs]
        if more:
            study.more = lambda results, where: [{**r, **fixed} for r in more(results, where)]
    return study


def resolve(base: Any, run: Run) -> Any:
    """The config of one run, `base` with its overrides.

    Raises:
      UserError: an override does not fit the base config.
    """
    from aejax.config import apply_overrides

    # A part ("model.f_E") is set before what is inside it ("model.f_E.widths").
    ordered = sorted(run.overrides, key=lambda key: (key.count("."), key))
    return apply_overrides(base, {key: run.overrides[key] for key in ordered})


# --- what stands in a directory -------------------------------------------------------------------


def read_json(path: pathlib.Path) -> Any:
    """None for a file that is not there or not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: pathlib.Path, value: Any) -> None:
    """All or nothing, whoever else writes it."""
    files.write_atomically(path, json.dumps(value, indent=1, default=_plain) + "\n")


def read_result(directory: pathlib.Path) -> dict[str, Any] | None:
    """The result of a finished run, else None."""
    found = read_json(directory / "result.json")
    return found if isinstance(found, dict) and "metrics" in found else None


def load_results(directory: str | pathlib.Path) -> list[dict[str, Any]]:
    """Results of the finished runs in the manifest's order, with id, overrides and labels.

    Raises:
      UserError: `directory` holds no study.
    """
    directory = pathlib.Path(directory)
    manifest = read_json(directory / "manifest.json")
    if not manifest:
        raise UserError(f"{directory} holds no study (no manifest.json)")
    found = []
    for entry in manifest["runs"]:
        result = read_result(directory / entry["id"])
        if result is not None:
            named = {key: entry[key] for key in ("id", "overrides", "labels")}
            found.append(result | named | {"directory": str(directory / entry["id"])})
    return found
