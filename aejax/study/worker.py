"""One process of a study: takes the lease of a run (aejax/lease.py), trains it, takes the next."""

import contextlib
import dataclasses
import inspect
import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from aejax import lease
from aejax.errors import SavedAndStopped, UserError
from aejax.files import JsonObject
from aejax.machine.allocator import release_memory
from aejax.result import Result
from aejax.study import store
from aejax.study.definition import Run, TrainedRun, resolve
from aejax.study.progress import Progress
from aejax.study.state import StudyState

HEAP_TRIM_INTERVAL = 20.0  # seconds between two trims, of 0.1 s each in a large process


class Worker:
    """Trains the open runs of a study one after another, alone or with other workers.

    Args:
      state: the runs of the study.
      progress: prints a line for each run.
      group: the processes that train each run together.
      train: (config, workdir, ...) -> result; None = `aejax.training.run.train`.
      arguments: further keyword arguments of `train`; those it has no parameter for are left out.
      seconds, steps: budgets after which no further run is started; 0 = no limit. `seconds` count
        from now, `steps` are those of all finished runs.
    """

    def __init__(
        self,
        state: StudyState,
        progress: Progress,
        group: "ProcessGroup",
        train: Callable[..., Result | JsonObject] | None,
        arguments: Mapping[str, Any],
        seconds: float = 0.0,
        steps: float = 0.0,
    ):
        self.state, self.progress, self.group = state, progress, group
        self._train, self._arguments = train, arguments
        self._deadline = time.monotonic() + seconds if seconds else float("inf")
        self._step_limit = steps or float("inf")
        self._last_trim = time.monotonic()
        self._sigterm = SigtermRaises()
        self.crashed = False  # whether the last failure was an exception other than UserError

    def is_out_of_budget(self) -> bool:
        """Whether the budget allows no further run."""
        return time.monotonic() > self._deadline or self.state.steps >= self._step_limit

    def work(self) -> None:
        """Trains open runs until there is none left for this process.

        Raises:
          SavedAndStopped: a signal has stopped it.
          UserError: three runs have failed and none is done.
        """
        with self._sigterm, contextlib.closing(self._leased_runs()) as runs:
            try:
                for run in self.group.share(runs):
                    self._train_run(run)
            except (KeyboardInterrupt, SavedAndStopped) as e:
                raise self.state.stopped() from e

    # --- which run is next ------------------------------------------------------------------------

    def _leased_runs(self) -> Generator[Run]:
        """Open runs, each with its lease held until the next one is asked for."""
        has_said_waiting = False
        while True:
            if self.state.study.search is not None:
                self.state.ask_search()
                self.progress.set_runs(self.state.runs, self.state.expected)
            trained = held_by_others = 0
            for run in self.state.own_runs():
                if not self._is_open(run):
                    continue
                if self._has_trained_its_share():
                    return
                if self.is_out_of_budget():
                    self.progress.say("the budget is used up; no further run is started")
                    return
                with self._leased(run) as is_held:
                    if not is_held:
                        held_by_others += 1
                    elif not self.state.is_done(run):  # the last holder may have finished it
                        trained += 1
                        yield run
            # A part of an array job ends here and frees its machine. Any other worker waits for the
            # others: it takes over runs that they abandon, and the last one writes the report.
            is_array_part = self.state.part is not None and self.state.study.search is None
            if is_array_part or not (trained or held_by_others):
                return
            if not trained:
                if self.state.study.search is None and not has_said_waiting:
                    has_said_waiting = True
                    self.progress.say(f"waiting for {held_by_others} runs of other processes")
                time.sleep(min(2.0, self.state.lease_timeout / 10))

    def _is_open(self, run: Run) -> bool:
        if self.state.is_done(run) or self.state.has_failed(run):
            return False
        return not store.is_pruned(self.state.workdir(run))

    def _has_trained_its_share(self) -> bool:
        """In part (i, n) of a search: whether this process has trained one n-th of the runs."""
        if self.state.study.search is None or self.state.part is None:
            return False
        return len(self.progress.seconds) >= -(-len(self.state.runs) // self.state.part[1])

    @contextlib.contextmanager
    def _leased(self, run: Run) -> Generator[bool]:
        """Whether the run's lease could be taken; releases it on exit."""
        workdir = self.state.workdir(run)
        workdir.mkdir(exist_ok=True)
        held = None
        try:
            # A signal between taking the lease and storing it would leave it unreleased.
            with self._sigterm.deferred():
                held = lease.take(workdir, self.state.lease_timeout)
            yield held is not None
        finally:
            if held is not None:
                with self._sigterm.deferred():
                    held.release()

    # --- one run ----------------------------------------------------------------------------------

    def _train_run(self, run: Run) -> None:
        state, workdir = self.state, self.state.workdir(run)
        self.progress.start(run, len(state.done) + len(state.failed))
        began = time.monotonic()
        pruned = threading.Event()
        try:
            with self._watched_by_search(run, pruned):
                result = self._call_train(run)
        except SavedAndStopped as e:
            if not pruned.is_set():
                raise
            result = store.read_result(workdir)
            if result is None:
                store.write_json(workdir / "pruned.json", {"date": _now(), "why": str(e)})
                self.progress.say("    ended early: worse than the median of the others")
                return
        except Exception as e:
            self._record_failure(run, e)
            return
        if self.group.is_first:
            # The return value of a custom trainer takes precedence over its result.json.
            if store.read_result(workdir) != result:
                store.write_json(workdir / "result.json", result)
            (workdir / "failed.json").unlink(missing_ok=True)
        if time.monotonic() - self._last_trim > HEAP_TRIM_INTERVAL:
            release_memory()  # or the heap grows by fragmentation over a thousand runs
            self._last_trim = time.monotonic()
        state.done.add(run.id)
        state.steps += result.get("steps") or 0
        self.progress.end(result, time.monotonic() - began, self._remaining())

    def _call_train(self, run: Run) -> JsonObject:
        """Calls the trainer with those optional arguments that it has; returns the run's result."""
        train = self._train
        if train is None:
            from aejax.training.run import train
        arguments: dict[str, Any] = {"overrides": run.overrides, **self._arguments}
        parameters = inspect.signature(train).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            arguments = {k: v for k, v in arguments.items() if k in parameters}
        config, workdir = resolve(self.state.base_config, run), self.state.workdir(run)
        result = train(config, str(workdir), **arguments)
        result = result.to_dict() if isinstance(result, Result) else result
        if self.state.study.measure is None:
            return result
        trained = TrainedRun(config, result, workdir, self._arguments["data_dir"])
        return _with_measured(result, self.state.study.measure(trained))

    def _remaining(self) -> int:
        """How many runs of this process's part are still to be trained."""
        state = self.state
        if state.study.search is not None and not state.part:
            return self.progress.total - len(state.done) - len(state.failed)
        ended = state.done | state.failed.keys()
        return sum(run.id not in ended for run in state.own_runs())

    @contextlib.contextmanager
    def _watched_by_search(self, run: Run, pruned: threading.Event) -> Generator[None]:
        """Within it a thread asks the search whether to end the run early. If so, it sets `pruned`
        and sends SIGTERM to this process, upon which the training saves and stops."""
        search = self.state.study.search
        is_main_thread = threading.current_thread() is threading.main_thread()
        if search is None or not search.can_stop_runs or self.group.is_joined or not is_main_thread:
            yield
            return
        ended = threading.Event()
        others = [self.state.workdir(other) for other in self.state.runs if other.id != run.id]

        def watch():
            while not ended.wait(search.poll):
                if search.should_stop(self.state.workdir(run), others):
                    pruned.set()
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _record_failure(self, run: Run, error: Exception) -> None:
        """Writes failed.json, so that the study can go on with the next run.

        Raises:
          UserError: three runs have failed and none is done.
        """
        state = self.state
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        state.failed[run.id] = text
        self.crashed = not isinstance(error, UserError)
        if self.group.is_first:
            failure: JsonObject = {"error": text, "time": time.time(), "date": _now()}
            if self.crashed:
                failure["traceback"] = "".join(traceback.format_exception(error)).splitlines()
            store.write_json(state.workdir(run) / "failed.json", failure)
        self.progress.say(f"    failed: {text}")
        if len(state.failed) >= 3 and not state.done and state.study.search is None:
            raise UserError(f"three runs failed and none succeeded: {text}")


def _with_measured(result: JsonObject, measured: Mapping[str, object]) -> JsonObject:
    """A result with the metrics and fields that `Study.measure` returned, and "measured": True."""
    metrics = {name: value for name, value in measured.items() if "/" in name}
    fields = {name: value for name, value in measured.items() if "/" not in name}
    metrics = {**result["metrics"], **metrics}
    return {**result, **fields, "metrics": metrics, "measured": True}


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


class ProcessGroup:
    """The processes that train each run together, joined by jax.distributed; usually just one.

    Attributes:
      is_first: whether this process writes the files.
      is_joined: whether there are several processes.
    """

    _turns = itertools.count()

    def __init__(self):
        processes = None
        if "jax" in sys.modules:  # without JAX no processes can have been joined
            from aejax.cluster import processes
        self.is_first = processes is None or processes.is_first()
        self.is_joined = processes is not None and processes.count() > 1
        self._client = None if processes is None else processes.client()

    def share(self, runs: Iterator[Run]) -> Iterator[Run]:
        """Yields the first process's `runs` in all processes: it sends each to the others."""
        if not self.is_joined:
            yield from runs
            return
        client = self._client
        if client is None:
            raise UserError(
                "there are several processes, but they are not joined by jax.distributed"
            )
        while True:
            key = f"aejax/study/{next(self._turns)}"
            if self.is_first:
                run = next(runs, None)
                client.key_value_set(key, json.dumps(run and dataclasses.asdict(run)))
            else:
                sent = json.loads(client.blocking_key_value_get(key, 7 * 86400 * 1000))
                run = Run(**sent) if sent else None
            if run is None:
                return
            yield run


class SigtermRaises:
    """A context in which SIGTERM raises SavedAndStopped (exit status 75), within runs and between
    them. Outside the main thread it does nothing."""

    def __init__(self):
        self._is_deferred = self._is_received = False

    def __enter__(self) -> "SigtermRaises":
        with contextlib.suppress(ValueError):  # not the main thread
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_previous"):
            signal.signal(signal.SIGTERM, self._previous)

    def _handle(self, number: int, frame: object) -> None:
        self._is_received = True
        self._raise_if_received()

    def _raise_if_received(self) -> None:
        if self._is_received and not self._is_deferred:
            self._is_received = False  # a search ends single runs by it, and the worker goes on
            raise SavedAndStopped("stopped by SIGTERM")

    @contextlib.contextmanager
    def deferred(self) -> Generator[None]:
        """A context that SIGTERM does not interrupt: the exception is raised on exit."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self._raise_if_received()
