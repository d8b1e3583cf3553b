"""Several workers on this machine: each is a process that runs the study, and leases keep two of
them from training the same run."""

import argparse
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from aejax.errors import SavedAndStopped, UserError
from aejax.study import store
from aejax.study.progress import Progress
from aejax.study.state import StudyState
from aejax.study.worker import SigtermRaises


@dataclasses.dataclass(frozen=True)
class PoolMember:
    """What the pool passes to a worker process, in hidden options of the command line.

    Attributes:
      index, count: worker `index` of `count`; it uses every count-th core from core `index` on.
      parent: process id of the pool; the worker stops when the pool ends.
      retry_before: runs that failed before this time (seconds since the epoch) are tried again.
    """

    index: int
    count: int
    parent: int
    retry_before: float

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the hidden options --worker-index, --worker-count, ..."""
        for field in dataclasses.fields(cls):
            option = "--worker-" + field.name.replace("_", "-")
            parser.add_argument(option, type=field.type, help=argparse.SUPPRESS)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> "PoolMember | None":
        """The member that the options describe; None for a process that no pool has started."""
        values = {f.name: getattr(args, f"worker_{f.name}") for f in dataclasses.fields(cls)}
        return None if values["index"] is None else cls(**values)

    def to_arguments(self) -> list[str]:
        """The options from which `from_arguments` makes this member."""
        arguments = []
        for name, value in dataclasses.asdict(self).items():
            arguments += [f"--worker-{name.replace('_', '-')}", str(value)]
        return arguments

    def set_up_process(self) -> None:
        """Pins this process to its cores, and stops it when the pool ends."""
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[self.index % len(cores) :: self.count])

        def watch_parent():
            while os.getppid() == self.parent:
                time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGTERM)  # saves a checkpoint; the next start resumes it

        threading.Thread(target=watch_parent, daemon=True).start()


class WorkerPool:
    """Starts worker processes, prints their progress, restarts those that crash.

    Args:
      count: how many processes; limited to the number of open runs.
      seconds, steps: budgets of each worker, 0 = no limit.
      data_dir: the data folder; None = AEJAX_DATA.

    Raises:
      UserError: the study was not loaded from a file.
    """

    def __init__(
        self,
        state: StudyState,
        progress: Progress,
        count: int,
        seconds: float,
        steps: float,
        data_dir: str | None,
    ):
        study = state.study
        if not study.file:
            raise UserError("several workers need a study from a file; use workers=1 here")
        self.state, self.progress = state, progress
        open_count = sum(not state.is_done(run) for run in state.own_runs())
        self.count = min(count, open_count) if study.search is None else count
        self.command = [sys.executable, "-m", "aejax", "study"]
        self.command += [study.file + (study.arg and f":{study.arg}")]
        self.command += ["--directory", str(state.directory), *study.overrides]
        self.command += ["--lease-timeout", str(state.lease_timeout)]
        self.command += ["--run", "{}/{}".format(*state.part)] if state.part else []
        self.command += ["--budget", f"{seconds} seconds"] if seconds else []
        self.command += ["--budget", f"{steps} steps"] if steps else []
        self.command += ["--data-dir", str(data_dir)] if data_dir else []
        self.reported = {run.id for run in state.runs if state.is_done(run)}
        self.crashes = 0  # of workers, since the last run that was finished
        self.began = time.monotonic()

    def run(self) -> None:
        """Returns when all workers have ended.

        Raises:
          SavedAndStopped: a signal has stopped them.
          UserError: a worker has ended with one, or workers keep crashing.
        """
        running = {k: self._start(k) for k in range(self.count)}
        with SigtermRaises():
            try:
                while running:
                    time.sleep(0.2)
                    self._report_finished_runs()
                    for k, process in list(running.items()):
                        status = process.poll()
                        if status is None:
                            continue
                        del running[k]
                        if self._should_restart(k, status):
                            running[k] = self._start(k)
                self._report_finished_runs()
            except (KeyboardInterrupt, SavedAndStopped) as e:
                raise self.state.stopped() from e
            finally:
                for process in running.values():
                    process.terminate()  # they save a checkpoint and end
                for process in running.values():
                    process.wait()

    def _start(self, k: int) -> subprocess.Popen:
        member = PoolMember(k, self.count, os.getpid(), self.state.retry_before)
        with open(self._log(k), "a") as log:
            return subprocess.Popen(
                [*self.command, *member.to_arguments()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C comes to this process, which passes it on once
            )

    def _log(self, k: int) -> pathlib.Path:
        return self.state.directory / f"worker-{k}.log"

    def _last_line(self, k: int) -> str:
        lines = self._log(k).read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("aejax: ") if lines else "its log is empty"

    def _report_finished_runs(self) -> None:
        """Prints a line for each run that was finished since the last call."""
        state, progress = self.state, self.progress
        if state.study.search is not None:
            state.read_proposed_runs()
            progress.set_runs(state.runs, state.expected)
        for run in state.runs:
            if run.id in self.reported or not state.is_done(run):
                continue
            progress.start(run, len(self.reported))
            self.reported.add(run.id)
            self.crashes = 0
            remaining = sum(r.id not in self.reported for r in state.runs)
            # Workers run side by side: the printed times add up to the time since the pool began.
            seconds = time.monotonic() - self.began - sum(progress.seconds)
            result = store.read_result(state.workdir(run)) or {"metrics": {}}
            progress.end(result, seconds, remaining)

    def _should_restart(self, k: int, status: int) -> bool:
        """Whether to start worker `k` again, which has ended with `status`."""
        if status in (0, 1):  # no run is left for it
            return False
        if status == 2:
            raise UserError(self._last_line(k))
        self.crashes += 1
        self.progress.say(f"worker {k} ended with status {status}: {self._last_line(k)}")
        if self.crashes > 3 * self.count:
            raise UserError(f"workers keep crashing; see {self._log(k)}")
        return any(not self.state.is_done(run) for run in self.state.own_runs())
