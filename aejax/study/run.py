"""run_study: trains the runs that are not done, in one process or several, then reports."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from aejax import lease
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.registry import lookup
from aejax.result import Result
from aejax.study import store
from aejax.study.definition import Study, resolve
from aejax.study.pool import WorkerPool
from aejax.study.progress import Progress
from aejax.study.state import StudyState
from aejax.study.worker import ProcessGroup, Worker

if TYPE_CHECKING:
    from ml_collections import ConfigDict


# Above 60 lines for its thirteen arguments, which are documented here once for all callers.
def run_study(
    study: Study,
    directory: str | pathlib.Path,
    *,
    train: Callable[..., Result | JsonObject] | None = None,
    part: tuple[int, int] | None = None,
    workers: int = 1,
    budget: float = 0.0,
    step_budget: float = 0.0,
    lease_timeout: float = lease.TIMEOUT,
    command: str = "",
    data_dir: str | None = None,
    quiet: bool = False,
    write_report: bool = True,
    retry_before: float | None = None,
) -> list[JsonObject]:
    """Trains the runs that are not done yet, then writes the report if all are.

    Args:
      directory: the study's folder; created if it does not exist.
      train: replaces `study.train`.
      part: (i, n) with 0 <= i < n: only the runs whose index is i modulo n. In a search, whose runs
        are not known beforehand: any free runs, at most one n-th of all.
      workers: processes on this machine; more than one needs a study that was loaded from a file.
      budget: seconds after which no further run is started; 0 = no limit.
      step_budget: the same in training steps of all finished runs together.
      lease_timeout: a run whose worker has given no sign of life for so many seconds is taken over.
      command: the command line, recorded in the results.
      data_dir: the data folder; None = AEJAX_DATA.
      quiet: prints nothing.
      write_report: whether to call `study.finish` and `study.report` when all runs are done.
      retry_before: runs that failed before this time (seconds since the epoch; None = now) are
        tried again.

    Returns:
      The results of all finished runs, in the order of the manifest.

    Raises:
      SavedAndStopped: a signal stopped it, or another process trains a run of `part`; the same call
        resumes it.
      UserError: all runs failed, or a finished run was trained with another base config.
    """
    directory = pathlib.Path(directory)
    if workers < 1:
        raise UserError(f"--workers {workers}: at least one")
    state = StudyState(study, directory, part, lease_timeout, retry_before)
    check_configs(state)
    group = ProcessGroup()
    if group.is_first:
        create_folder(state)
    progress = Progress(study, state.runs, state.expected, quiet or not group.is_first)
    arguments = {"command": command, "data_dir": data_dir, "quiet": quiet}
    train = train or study.train
    worker = Worker(state, progress, group, train, arguments, budget, step_budget)
    if workers > 1:
        WorkerPool(state, progress, workers, budget, step_budget, data_dir).run()
    else:
        worker.work()
    results = store.load_results(directory)
    if group.is_first and write_report:
        open_runs = [run for run in state.runs if not state.is_settled(run)]
        if open_runs or not results:
            progress.say(state.open_runs_summary(open_runs))
        else:
            _finish(study, directory, results, quiet)
    own_ids = {run.id for run in state.own_runs()}
    if state.failed and not any(result["id"] in own_ids for result in results):
        if not (part and worker.crashed):  # a part of an array job that crashed may be tried again
            raise UserError(f"all runs failed: {next(iter(state.failed.values()))}")
    is_array_part = part and study.search is None and retry_before is None
    if is_array_part and not worker.is_out_of_budget():
        state.check_part_is_done()
    return results


def check_configs(state: StudyState) -> None:
    """Resolves the config of every run, so that a wrong key is found before any training.

    Raises:
      UserError: an override does not fit, or a finished run was trained with another config.
    """
    for run in state.own_runs():
        config = resolve(state.base_config, run)
        if state.is_done(run):
            _check_same_config(config, state.workdir(run))


def _check_same_config(config: "ConfigDict", workdir: pathlib.Path) -> None:
    old = store.read_json(workdir / "config.json")
    if not isinstance(old, dict):
        return

    def differences(a: object, b: object, prefix: str) -> Iterator[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in a.keys() & b.keys():  # other keys were added or removed by a new version
                yield from differences(a[key], b[key], f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix[:-1]} was {a!r}, is {b!r}"

    changes = sorted(differences(old, json.loads(config.to_json()), ""))
    if changes:
        raise UserError(
            f"{workdir} was trained with another base config ({'; '.join(changes[:3])}); "
            "move the folder away to train it again, or give the study another --directory"
        )


def create_folder(state: StudyState) -> None:
    """Creates the study's folder and writes its manifest.

    Raises:
      UserError: they cannot be written.
    """
    try:
        state.directory.mkdir(parents=True, exist_ok=True)
        store.write_manifest(state.study, state.directory, state.runs)
    except OSError as e:
        raise UserError(f"cannot write to {state.directory}: {e.strerror or e}") from e


def _finish(study: Study, directory: pathlib.Path, results: list[dict], quiet: bool) -> None:
    """Calls the study's `finish`, then its `report`. Several processes may do so at once."""
    sections = (study.finish(results, directory) if study.finish else None) or []
    store.write_json(directory / "sections.json", list(sections))
    report = study.report
    if isinstance(report, str):  # by name: `study` does not import `report`
        report = lookup(report, {}, "study's report")
    if report is not None:
        report(study, results, directory, quiet)
