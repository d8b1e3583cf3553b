"""Searches: studies that choose their next runs by the results of the finished ones. There is no
server: a search is a function of the results in the study's folder (`Study.search`); TPE also keeps
a journal there.

    space = {"model.latent": choice(8, 16), "optim.lr": log_uniform(1e-4, 1e-2)}
    Study(..., runs=random(space, 30))                     30 random draws, known from the start
    Study(..., search=TPE(space, 30, metric="test/mse", larger_is_better=False))
    Study(..., search=Halving(space, 27, lengths=("1 epochs", "3 epochs", "9 epochs")))

Search on images that are neither trained on nor reported, such as
data.split = "train[:90%]", data.eval_split = "train[90%:]".
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import lease
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.result import Metric
from aejax.study import store
from aejax.study.definition import Overrides, Results, Search, run_id

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

# --- spaces ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Axis:
    """One dimension of a space: a range of numbers, or options. Made by the functions below.

    Attributes:
      low, high: the ends of the range.
      log: whether draws are uniform in the logarithm.
      whole: whether draws are integers from low to high, both included.
      options: the values to choose from, instead of a range.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    options: tuple[Any, ...] = ()

    def at(self, u: float) -> Any:
        """The value at u in [0, 1), from low to high; rounded to four significant digits."""
        if self.options:
            return self.options[int(u * len(self.options))]
        low, high = self.low, self.high + self.whole
        value = low * (high / low) ** u if self.log else low + u * (high - low)
        return min(int(value), int(self.high)) if self.whole else rounded(value)

    def suggest(self, trial: "Trial", name: str) -> Any:
        """The value that an Optuna trial suggests.

        Options that are ascending numbers are passed as an integer range, so that Optuna knows
        their order; any others as categories.
        """
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
    """A number between `low` and `high`, all equally likely.

    Raises:
      UserError: low is not below high.
    """
    return _checked(Axis(low, high))


def log_uniform(low: float, high: float) -> Axis:
    """A positive number between `low` and `high`, uniform in its logarithm.

    Raises:
      UserError: low is not below high, or not positive.

    Example:
      >>> log_uniform(1e-4, 1e-2).at(0.5)
      0.001
    """
    return _checked(Axis(low, high, log=True))


def integer(low: int, high: int, log: bool = False) -> Axis:
    """An integer between `low` and `high`, both included.

    Raises:
      UserError: low is not below high, or not positive with `log`.
    """
    return _checked(Axis(low, high, log=log, whole=True))


def choice(*options: object) -> Axis:
    """One of `options`.

    Raises:
      UserError: there are none.
    """
    if not options:
        raise UserError("choice() needs at least one option")
    return Axis(options=options)


def _checked(axis: Axis) -> Axis:
    if not axis.low < axis.high or (axis.log and axis.low <= 0):
        positive = "0 < " * axis.log
        raise UserError(f"a range from {axis.low:g} to {axis.high:g}; give {positive}low < high")
    return axis


def rounded(value: float) -> float:
    """`value` with four significant digits."""
    return float(f"{value:.4g}")


def random(space: Space, n: int, seed: int = 0) -> list[Overrides]:
    """n independent draws from a space. Draw i depends on (seed, i) alone, so that a larger n only
    adds draws.

    Example:
      >>> random({"model.latent": choice(8, 16), "optim.lr": log_uniform(1e-4, 1e-2)}, 1)
      [{'model.latent': 16, 'optim.lr': 0.0003464}]
    """
    draws = (np.random.default_rng([seed, i]).random(len(space)) for i in range(n))
    return [
        {name: axis.at(float(u)) for (name, axis), u in zip(space.items(), draw, strict=True)}
        for draw in draws
    ]


# --- values of a run ------------------------------------------------------------------------------


def score_of(result: JsonObject, metric: str, larger_is_better: bool) -> float:
    """The metric, negated if smaller is better; -inf if it is not finite.

    Raises:
      UserError: the result has no such metric.
    """
    value = result["metrics"].get(metric)
    if value is None:
        known = ", ".join(result["metrics"])
        raise UserError(f'the results have no metric "{metric}" to search by; they have {known}')
    if not math.isfinite(value):
        return -math.inf
    return Metric(metric, larger_is_better).score(float(value))


def evaluations(workdir: pathlib.Path, metric: str) -> list[tuple[int, float]]:
    """(step, value) of each evaluation during training, from the run's log.jsonl."""
    name = "eval/" + metric.rpartition("/")[2]
    rows = []
    try:
        with open(workdir / "log.jsonl") as f:
            for line in f:
                with contextlib.suppress(ValueError):  # a line that is just being written
                    row = json.loads(line)
                    if isinstance(row.get(name), int | float):
                        rows.append((int(row["step"]), float(row[name])))
    except OSError:
        pass
    return rows


@dataclasses.dataclass(frozen=True)
class Pruner:
    """Ends a run early if its best evaluation so far is worse than the median of the best ones of
    the other runs up to that step (median rule of Golovin et al., Google Vizier, 2017). Needs
    config.eval.every.

    Attributes:
      metric: of the evaluations.
      larger_is_better: whether a larger `metric` is better.
      startup: how many other runs must have reached that step.
      skip: how many evaluations of a run are made before it may be ended.
    """

    metric: str = "test/psnr"
    larger_is_better: bool = True
    startup: int = 4
    skip: int = 1

    def should_stop(self, workdir: pathlib.Path, others: Sequence[pathlib.Path]) -> bool:
        """Whether to end the run in `workdir`, given the folders of the other runs."""
        score = Metric(self.metric, self.larger_is_better).score
        mine = evaluations(workdir, self.metric)
        if len(mine) <= self.skip:
            return False
        step = mine[-1][0]
        theirs = []
        for other in others:
            rows = evaluations(other, self.metric)
            if rows and rows[-1][0] >= step:
                theirs.append(max(score(v) for s, v in rows if s <= step))
        if len(theirs) < self.startup:
            return False
        return max(score(v) for _, v in mine) < statistics.median(theirs)


# --- searches -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Halving(Search):
    """Successive halving (Jamieson and Talwalkar 2016): n draws are trained for the shortest
    length, the best n / eta of them for the next, and so on. A longer run starts from scratch,
    because it has another learning rate schedule.

    Attributes:
      space: {config key: axis} to draw from.
      n: draws of the first rung.
      lengths: values of `key`, shortest first; one rung each.
      metric, larger_is_better: what the draws are ranked by.
      eta: the fraction 1 / eta of a rung goes on to the next.
      seed: of the draws.
      key: the config key of the training length.
      fixed: overrides of every run.
    """

    space: Space
    n: int
    lengths: Sequence[str]
    metric: str = "test/psnr"
    larger_is_better: bool = True
    eta: int = 3
    seed: int = 0
    key: str = "train.length"
    fixed: Overrides = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        """Runs of all rungs."""
        return sum(max(1, self.n // self.eta**i) for i in range(len(self.lengths)))

    def __call__(self, results: Results, directory: pathlib.Path) -> list[Overrides]:
        """All runs so far; a rung is added when all runs of the rung before it have ended."""
        done = {r["id"]: r for r in results}
        rung = random(self.space, self.n, self.seed)
        proposed: list[Overrides] = []
        for i, length in enumerate(self.lengths):
            runs = [{"@rung": i, **draw, self.key: length, **self.fixed} for draw in rung]
            proposed += runs
            if not all(store.is_settled(directory / run_id(run)) for run in runs):
                break
            scored = [
                (-score_of(done[run_id(run)], self.metric, self.larger_is_better), k)
                for k, run in enumerate(runs)
                if run_id(run) in done
            ]
            rung = [rung[k] for _, k in sorted(scored)[: max(1, len(runs) // self.eta)]]
        return proposed


@dataclasses.dataclass
class TPE(Search):
    """Bayesian search by Optuna's tree-structured Parzen estimator. The trials are kept in a
    journal in the study's folder, to which several machines may add without a server.

    Attributes:
      space: {config key: axis} to draw from.
      n: how many trials.
      metric, larger_is_better: what is optimised.
      seed: of the sampler.
      startup: trials drawn at random before the estimator is used.
      fixed: overrides of every trial.
      first: the first trials, as {key of `space`: value}, such as the defaults.
      pruner: ends bad runs early; None = none.
      poll: seconds between two calls of the pruner.

    Raises:
      UserError: `first` has a key or a value that is not in the space.
    """

    space: Space
    n: int
    metric: str = "test/psnr"
    larger_is_better: bool = True
    seed: int = 0
    startup: int = 10
    fixed: Overrides = dataclasses.field(default_factory=dict)
    first: Sequence[Overrides] = ()
    pruner: Pruner | None = None
    poll: float = 1.0

    def __post_init__(self):
        for name, value in ((n, v) for start in self.first for n, v in start.items()):
            if name not in self.space or value not in (self.space[name].options or (value,)):
                raise UserError(f"first: {name} = {value!r} is not in the space of the search")

    @property
    def total(self) -> int:
        """How many trials the search has in all."""
        return self.n

    @property
    def can_stop_runs(self) -> bool:
        """Whether there is a pruner."""
        return self.pruner is not None

    def should_stop(self, workdir: pathlib.Path, others: Sequence[pathlib.Path]) -> bool:
        """Whether the pruner ends the run in `workdir`."""
        return self.pruner is not None and self.pruner.should_stop(workdir, others)

    def __call__(self, results: Results, directory: pathlib.Path) -> list[Overrides]:
        """The overrides of all trials so far; adds a trial if no open one is without a worker."""
        with _exclusive(directory / "search"):
            journal = _Journal(self, directory / "search")
            done = {r["id"]: r for r in results}
            without_worker = 0
            for trial in journal.trials():
                ident = trial.user_attrs.get("id")
                if ident is None or trial.state.is_finished():
                    continue
                workdir = directory / ident
                if not journal.close_trial(trial, workdir, done.get(ident)):
                    without_worker += not lease.holder(workdir)
            if not without_worker and len(journal.trials()) < self.n:
                journal.open_trial()
            overrides = [t.user_attrs.get("overrides") for t in journal.trials()]
            return [o for o in overrides if o is not None]


class _Journal:
    """The trials of a TPE search, in Optuna's journal file."""

    NAME = "search"

    def __init__(self, search: TPE, folder: pathlib.Path):
        optuna = _optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.search, self.states = search, optuna.trial.TrialState
        self.storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
        self.study = optuna.create_study(
            storage=self.storage, study_name=self.NAME, load_if_exists=True,
            direction="maximize" if search.larger_is_better else "minimize",
        )  # fmt: skip
        # Every process creates a sampler of its own. Seeded by the number of trials, it draws the
        # same trial in a resumed search as in one that was not stopped.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=search.seed + 1000 * len(self.trials()),
            n_startup_trials=search.startup, multivariate=True, constant_liar=True,
        )  # fmt: skip

    def trials(self) -> list["FrozenTrial"]:
        """All trials, in order."""
        return self.study.get_trials(deepcopy=False)

    def open_trial(self) -> None:
        """Adds the next trial: the next of `search.first`, or what the sampler suggests."""
        search, number = self.search, len(self.trials())
        if number < len(search.first):
            start = search.first[number]
            self.study.enqueue_trial(
                {
                    name: axis.options.index(start[name]) if axis.options else start[name]
                    for name, axis in search.space.items()
                    if name in start
                }
            )
        trial = self.study.ask()
        drawn = {name: axis.suggest(trial, name) for name, axis in search.space.items()}
        overrides = {**drawn, **search.fixed}
        trial.set_user_attr("id", run_id(overrides))
        trial.set_user_attr("overrides", overrides)

    def close_trial(
        self, trial: "FrozenTrial", workdir: pathlib.Path, result: JsonObject | None
    ) -> bool:
        """Passes the outcome of a run to Optuna; returns False if the run has not ended."""
        if result is not None:
            value = result["metrics"].get(self.search.metric)
            score = score_of(result, self.search.metric, self.search.larger_is_better)
            if math.isfinite(score):
                self.study.tell(trial.number, float(value))
            else:
                self.study.tell(trial.number, state=self.states.FAIL)
        elif store.is_pruned(workdir):
            study_id = self.storage.get_study_id_from_name(self.NAME)
            ident = self.storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            for step, value in evaluations(workdir, self.search.metric):
                self.storage.set_trial_intermediate_value(ident, step, value)
            self.study.tell(trial.number, state=self.states.PRUNED)
        elif store.is_failed(workdir):
            self.study.tell(trial.number, state=self.states.FAIL)
        else:
            return False
        return True


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as e:
        raise UserError('a TPE search needs optuna: pip install "aejax[hpo]"') from e
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    import warnings

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return optuna


@contextlib.contextmanager
def _exclusive(folder: pathlib.Path) -> Generator[None]:
    """A lock between processes, also of several machines: the lease of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    held = lease.take(folder)
    while held is None:
        time.sleep(0.1)
        held = lease.take(folder)
    try:
        yield
    finally:
        held.release()


def best(results: Results, metric: str = "test/psnr", larger_is_better: bool = True) -> JsonObject:
    """The result with the best metric.

    Raises:
      UserError: there is no result, or one without the metric.

    Example:
      >>> best([{"metrics": {"test/psnr": 20.0}}, {"metrics": {"test/psnr": 21.5}}])
      {'metrics': {'test/psnr': 21.5}}
    """
    if not results:
        raise UserError("no run is finished, so there is no best one")
    return max(results, key=lambda r: score_of(r, metric, larger_is_better))
