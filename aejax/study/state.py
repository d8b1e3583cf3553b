"""Which runs a study has, and which of them are done, failed or open, as one process sees it."""

import functools
import pathlib
import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aejax import lease
from aejax.errors import SavedAndStopped, UserError
from aejax.study import store
from aejax.study.definition import Run, Study, list_runs

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class StudyState:
    """The runs of a study and what this process knows of each.

    Attributes:
      study, directory: the study and its folder.
      part: (i, n): this process is responsible for runs i, i + n, i + 2n, ...; None = for all runs.
        The parts of a search share its runs as they are proposed.
      lease_timeout: seconds without a sign of life after which a lease expires.
      retry_before: runs that failed before this time (seconds since the epoch) are tried again.
      runs: all runs known by now, in order.
      done: ids of finished runs.
      steps: the training steps of all finished runs together.
      failed: id -> error message of the runs that failed since `retry_before`.

    Raises:
      UserError: the study has neither runs nor a search, or there is no such part.
    """

    def __init__(
        self,
        study: Study,
        directory: pathlib.Path,
        part: tuple[int, int] | None = None,
        lease_timeout: float = lease.TIMEOUT,
        retry_before: float | None = None,
    ):
        if part is not None and not 0 <= part[0] < part[1]:
            raise UserError(f"--run {part[0]}/{part[1]}: i counts from 0, so 0 <= i < n")
        self.study, self.directory = study, directory
        self.part, self.lease_timeout = part, lease_timeout
        self.retry_before = time.time() if retry_before is None else retry_before
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.steps = 0
        self._listed = list(study.runs)
        if not self._listed and study.search is None:
            raise UserError(f'study "{study.name}" has no runs')
        self.runs = list_runs(self._listed)
        if study.search is not None:
            self.read_proposed_runs()

    @functools.cached_property
    def base_config(self) -> "ConfigDict":
        """The config that the runs' overrides are applied to."""
        return self.study.base_config()

    @property
    def expected(self) -> int:
        """How many runs the study will have in all, as far as is known."""
        total = self.study.search.total if self.study.search else 0
        return max(len(self.runs), len(list_runs(self._listed)) + total)

    def workdir(self, run: Run) -> pathlib.Path:
        """The run's folder."""
        return self.directory / run.id

    def read_proposed_runs(self) -> None:
        """Adds the runs that any process's search has written to the manifest."""
        manifest = store.read_manifest(self.directory)
        proposed = [run.labelled_overrides for run in manifest.runs] if manifest else []
        self.runs = list_runs([*self._listed, *proposed])

    def ask_search(self) -> None:
        """Adds the runs that the search proposes now, and writes them to the manifest."""
        proposed = list(self.study.search(store.load_results(self.directory), self.directory))
        self.runs = list_runs([*self._listed, *proposed])
        store.write_manifest(self.study, self.directory, self.runs)

    def is_done(self, run: Run) -> bool:
        """Whether the run has a result, with all that `Study.measure` adds to it."""
        if run.id not in self.done:
            result = store.read_result(self.workdir(run))
            if result is not None and (self.study.measure is None or result.get("measured")):
                self.done.add(run.id)
                self.steps += result.get("steps") or 0
        return run.id in self.done

    def has_failed(self, run: Run) -> bool:
        """Whether the run failed, in any process, since `retry_before`."""
        if run.id not in self.failed:
            note = store.read_json(self.workdir(run) / "failed.json") or {}
            if note.get("time", 0) >= self.retry_before:
                self.failed[run.id] = note["error"]
        return run.id in self.failed

    def is_settled(self, run: Run) -> bool:
        """Whether the run is done; in a search also whether it was pruned or has failed."""
        if self.study.search is None:
            return self.is_done(run)
        return self.is_done(run) or store.is_settled(self.workdir(run))

    def own_runs(self) -> list[Run]:
        """The runs of this process's part."""
        if self.part is None or self.study.search is not None:
            return self.runs
        i, n = self.part
        return [run for run in self.runs if run.index % n == i]

    def resume_advice(self) -> str:
        """A sentence with the command that resumes the study."""
        if not self.study.file:
            return "The same call resumes it."
        words = ["aejax", "study", self.study.file + (self.study.arg and f":{self.study.arg}")]
        words += ["--directory", str(self.directory), *self.study.overrides]
        words += ["--run", "{}/{}".format(*self.part)] if self.part else []
        return f"Resume with: {shlex.join(words)}"

    def stopped(self) -> SavedAndStopped:
        """The exception to raise when a signal has stopped the study."""
        done = sum(self.is_done(run) for run in self.runs)
        return SavedAndStopped(
            f"stopped; {done} of {len(self.runs)} runs done. {self.resume_advice()}"
        )

    def check_part_is_done(self) -> None:
        """Checks that no run of this part is open.

        Raises:
          SavedAndStopped: another process is training one, or trained it and was stopped. The
            scheduler then queues the part again.
        """
        for run in self.own_runs():
            if not self.is_done(run) and not self.has_failed(run):
                holder = lease.holder(self.workdir(run), self.lease_timeout)
                where = f"is being trained by {holder}" if holder else "was stopped"
                raise SavedAndStopped(
                    f"run {run.index} ({run.id}) is not done; it {where}. " + self.resume_advice()
                )

    def open_runs_summary(self, open_runs: Sequence[Run]) -> str:
        """A line for a study that ends with runs still open."""
        held = sum(bool(lease.holder(self.workdir(run), self.lease_timeout)) for run in open_runs)
        failed = [run.id for run in open_runs if store.is_failed(self.workdir(run))]
        words = [f"{len(self.runs) - len(open_runs)} of {len(self.runs)} runs done"]
        words += [f"{held} being trained by other processes"] if held else []
        words += [f"{len(failed)} failed ({failed[0]}/failed.json ...)"] if failed else []
        return f"{self.study.name}: {'; '.join(words)}. {self.resume_advice()}"
