"""Searches: studies whose next runs follow from results. Nothing here keeps a server or a state of
its own: a search is a function of the results that stand (`Study.more`), TPE with a journal beside
them.

    space = {"model.latent": choice(8, 16), "optim.lr": log_uniform(1e-4, 1e-2)}
    Study(..., runs=random(space, 30))                     thirty draws, all known at once
    Study(..., more=TPE(space, 30, metric="test/mse", better=-1))
    Study(..., more=Halving(space, 27, lengths=("1 epochs", "3 epochs", "9 epochs")))

Choose by what was not trained on and will not be reported: data.eval_split = "train[90%:]".
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aejax import lease
from aejax.errors import UserError
from aejax.study import run_id

# --- spaces ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Axis:
    """One dimension: a range of numbers, or options. Made by the four functions below."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    options: tuple[Any, ...] = ()

    def at(self, u: float) -> Any:
        """The value at u in [0, 1): four digits of numbers, which is all a search can tell."""
        if self.options:
            return self.options[int(u * len(self.options))]
        low, high = self.low, self.high + self.whole
        value = low * (high / low) ** u if self.log else low + u * (high - low)
        return min(int(value), int(self.high)) if self.whole else rounded(value)

    def suggest(self, trial: Any, name: str) -> Any:
        """The same by an Optuna trial; of numbers that rise it is told that they have an order."""
        if self.options:
            numbers = all(isinstance(o, int | float) for o in self.options)
            if numbers and list(self.options) == sorted(self.options):
                return self.options[trial.suggest_int(name, 0, len(self.options) - 1)]
            return self.options[trial.suggest_categorical(name, list(range(len(self.options))))]
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return rounded(trial.suggest_float(name, self.low, self.high, log=self.log))


Space = Mapping[str, Axis]


def uniform(low: float, high: float) -> Axis:
    """A number between `low` and `high`."""
    return _checked(Axis(low, high))


def log_uniform(low: float, high: float) -> Axis:
    """A positive number, each octave as likely."""
    return _checked(Axis(low, high, log=True))


def integer(low: int, high: int, log: bool = False) -> Axis:
    """A whole number, both ends included."""
    return _checked(Axis(low, high, log=log, whole=True))


def choice(*options: Any) -> Axis:
    """One of `options`."""
    if not options:
        raise UserError("choice() needs at least one option")
    return Axis(options=options)


def _checked(axis: Axis) -> Axis:
    if not axis.low < axis.high or (axis.log and axis.low <= 0):
        raise UserError(f"a range from {axis.low} to {axis.high} cannot be searched")
    return axis


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def random(space: Space, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """n independent draws; a larger n only adds to a smaller one's."""
    draws = (np.random.default_rng([seed, i]).random(len(space)) for i in range(n))
    return [
        {name: axis.at(float(u)) for (name, axis), u in zip(space.items(), draw, strict=True)}
        for draw in draws
    ]


# --- what stands of a run -------------------------------------------------------------------------


def value_of(result: Mapping[str, Any], metric: str, better: int) -> float:
    """The metric, or for what is missing or not finite the worst value there is."""
    value = result["metrics"].get(metric)
    if value is None:
        known = ", ".join(result["metrics"])
        raise UserError(f'the search is by "{metric}", but results have {known}')
    return float(value) if math.isfinite(value) else -better * math.inf


def is_settled(directory: pathlib.Path, ident: str) -> bool:
    """Whether nothing more will come of a run: done, pruned or failed."""
    names = ("result.json", "pruned.json", "failed.json")
    return any((directory / ident / name).exists() for name in names)


def evaluations(workdir: pathlib.Path, metric: str) -> list[tuple[int, float]]:
    """(step, value) of the evaluations on the way, from the run's log."""
    name = "eval/" + metric.rpartition("/")[2]
    found = []
    try:
        with open(workdir / "log.jsonl") as f:
            for line in f:
                with contextlib.suppress(ValueError):  # the line that is just being written
                    row = json.loads(line)
                    if isinstance(row.get(name), int | float):
                        found.append((int(row["step"]), float(row[name])))
    except OSError:
        pass
    return found


@dataclasses.dataclass(frozen=True)
class Pruner:
    """Ends a run whose best evaluation so far is worse than the median of the others' at that step
    (the median rule of Golovin et al., Google Vizier, 2017). Needs config.eval.every.

    Attributes:
      startup: others that must have come as far.
      skip: evaluations of a run that are not judged.
    """

    metric: str = "test/psnr"
    better: int = 1
    startup: int = 4
    skip: int = 1

    def should_stop(self, workdir: pathlib.Path, others: Sequence[pathlib.Path]) -> bool:
        mine = evaluations(workdir, self.metric)
        if len(mine) <= self.skip:
            return False
        step = mine[-1][0]
        theirs = []
        for other in others:
            rows = evaluations(other, self.metric)
            if rows and rows[-1][0] >= step:
                theirs.append(max(self.better * v for s, v in rows if s <= step))
        if len(theirs) < self.startup:
            return False
        return max(self.better * v for _, v in mine) < statistics.median(theirs)


# --- searches -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Halving:
    """Successive halving (Jamieson and Talwalkar 2016): n draws for the shortest length, the best
    n / eta of them for the next, and so on. Each length is a run of its own from the start, because
    a schedule belongs to its length.

    Attributes:
      lengths: values of `key`, shortest first.
    """

    space: Space
    n: int
    lengths: Sequence[str]
    metric: str = "test/psnr"
    better: int = 1
    eta: int = 3
    seed: int = 0
    key: str = "train.length"

    @property
    def total(self) -> int:
        """Runs of all rungs."""
        return sum(max(1, self.n // self.eta**i) for i in range(len(self.lengths)))

    def __call__(
        self, results: Sequence[Mapping[str, Any]], directory: pathlib.Path
    ) -> list[dict[str, Any]]:
        """The runs known so far: a rung follows when all of the rung before it are settled."""
        done = {r["id"]: r for r in results}
        rung = random(self.space, self.n, self.seed)
        found: list[dict[str, Any]] = []
        for i, length in enumerate(self.lengths):
            runs = [{"@rung": i, **overrides, self.key: length} for overrides in rung]
            found += runs
            if not all(is_settled(directory, run_id(run)) for run in runs):
                break
            scored = [
                (-self.better * value_of(done[run_id(run)], self.metric, self.better), k)
                for k, run in enumerate(runs)
                if run_id(run) in done
            ]
            rung = [rung[k] for _, k in sorted(scored)[: max(1, len(runs) // self.eta)]]
        return found


@dataclasses.dataclass
class TPE:
    """Bayesian search by Optuna's tree-structured Parzen estimator, `n` trials. The trials are in a
    journal in the study's directory; several machines may add to it without a server.

    Attributes:
      fixed: overrides of every trial.
      first: trials to begin with, such as the defaults; values of `space`'s keys.
      startup: trials drawn at random before the estimator is used.
      pruner: ends bad runs early; None = none.
    """

    space: Space
    n: int
    metric: str = "test/psnr"
    better: int = 1
    seed: int = 0
    startup: int = 10
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    first: Sequence[Mapping[str, Any]] = ()
    pruner: Pruner | None = None
    poll: float = 1.0  # seconds between two looks of the pruner

    def __post_init__(self):
        for name, value in ((n, v) for start in self.first for n, v in start.items()):
            if name not in self.space or value not in (self.space[name].options or (value,)):
                raise UserError(f"first: {name} = {value!r} is not in the space of the search")

    def __call__(
        self, results: Sequence[Mapping[str, Any]], directory: pathlib.Path
    ) -> list[dict[str, Any]]:
        """All trials so far, and a new one if none of them is free and there are fewer than n."""
        with _alone(directory / "search"):
            study = self._open(directory / "search")
            done = {r["id"]: r for r in results}
            trials = study.get_trials(deepcopy=False)
            free = 0
            for trial in trials:
                ident = trial.user_attrs.get("id")
                if ident is None or trial.state.is_finished():
                    continue
                if not self._tell(study, trial, directory / ident, done.get(ident)):
                    free += not lease.holder(directory / ident)
            if not free and len(trials) < self.n:
                self._ask(study)
            known = [t for t in study.get_trials(deepcopy=False) if "overrides" in t.user_attrs]
            return [t.user_attrs["overrides"] for t in known]

    @property
    def total(self) -> int:
        """Trials of the whole search."""
        return self.n

    def should_stop(self, workdir: pathlib.Path, others: Sequence[pathlib.Path]) -> bool:
        return self.pruner is not None and self.pruner.should_stop(workdir, others)

    def _open(self, folder: pathlib.Path) -> Any:
        optuna = _optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
        study = optuna.create_study(
            storage=storage, study_name="search", load_if_exists=True,
            direction="maximize" if self.better > 0 else "minimize",
        )  # fmt: skip
        # A sampler begins its random stream anew in every process: the trial's number seeds it, so
        # that a search that was stopped goes on as it would have.
        study.sampler = optuna.samplers.TPESampler(
            seed=self.seed + 1000 * len(study.get_trials(deepcopy=False)),
            n_startup_trials=self.startup, multivariate=True, constant_liar=True,
        )  # fmt: skip
        return study

    def _ask(self, study: Any) -> None:
        number = len(study.get_trials(deepcopy=False))
        if number < len(self.first):
            study.enqueue_trial(
                {
                    name: axis.options.index(self.first[number][name]) if axis.options
                    else self.first[number][name]
                    for name, axis in self.space.items() if name in self.first[number]
                }
            )  # fmt: skip
        trial = study.ask()
        drawn = {name: axis.suggest(trial, name) for name, axis in self.space.items()}
        overrides = {**self.fixed, **drawn}
        trial.set_user_attr("id", run_id(overrides))
        trial.set_user_attr("overrides", overrides)

    def _tell(self, study: Any, trial: Any, workdir: pathlib.Path, result: Any) -> bool:
        """Tells Optuna what came of a trial; False if nothing has yet."""
        optuna = _optuna()
        states = optuna.trial.TrialState
        if result is not None:
            value = value_of(result, self.metric, self.better)
            if math.isfinite(value):
                study.tell(trial.number, value)
            else:
                study.tell(trial.number, state=states.FAIL)
        elif (workdir / "pruned.json").exists():
            live = optuna.trial.Trial(study, trial._trial_id)
            for step, value in evaluations(workdir, self.metric):
                live.report(value, step)
            study.tell(trial.number, state=states.PRUNED)
        elif (workdir / "failed.json").exists():
            study.tell(trial.number, state=states.FAIL)
        else:
            return False
        return True


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as e:
        raise UserError('a TPE search needs optuna: pip install "aejax[hpo]"') from e
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    import warnings

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return optuna


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """One process at a time, over machines."""
    folder.mkdir(parents=True, exist_ok=True)
    held = lease.take(folder)
    while held is None:
        time.sleep(0.1)
        held = lease.take(folder)
    try:
        yield
    finally:
        held.release()


def best(
    results: Sequence[Mapping[str, Any]], metric: str = "test/psnr", better: int = 1
) -> Mapping[str, Any]:
    """The result with the best metric."""
    if not results:
        raise UserError("there is no finished run to choose from")
    return max(results, key=lambda r: better * value_of(r, metric, better))
