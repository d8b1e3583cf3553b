"""Doing a study: each run once, by as many processes as there are, then the report.

A process takes a run that is not done by its lease (lease.py), trains it and looks for the next;
what a stopped or dead one leaves is taken over. The rest is a line of progress, a budget, and
processes on this machine (--workers) that each do the same.
"""

import argparse
import contextlib
import dataclasses
import inspect
import itertools
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aejax import lease
from aejax.errors import SavedAndStopped, UserError
from aejax.machine.allocator import release_memory
from aejax.result import Result
from aejax.study import (
    Run,
    Study,
    describe,
    load,
    load_results,
    plan,
    read_json,
    read_result,
    resolve,
    telling_keys,
    write_json,
)


class Progress:
    """What a study says while it runs: a line before and after each run, on stderr; on a terminal
    with a bar of what is done, above the one of the training."""

    def __init__(self, study: Study, runs: Sequence[Run], quiet: bool, expected: int = 0):
        self.columns, self.quiet = [study.y, *study.columns], quiet
        self.expected = expected  # of a search: the runs that it will have in the end
        self.seconds: list[float] = []
        self.runs(runs)

    def runs(self, runs: Sequence[Run]) -> None:
        """All that are known by now."""
        self.total, self.keys = max(len(runs), self.expected), telling_keys(runs)

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def start(self, run: Run, done: int) -> None:
        width = len(str(self.total))
        text = f"[{done + 1:{width}}/{self.total}] {describe(run, self.keys)}"
        if self.quiet or not sys.stderr.isatty():
            self.say(text)
            return
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(self.total, done, width=24), Text(text))
        Console(stderr=True).print(line)

    def end(self, result: Mapping[str, Any], seconds: float, left: int) -> None:
        self.seconds.append(seconds)
        metrics = result["metrics"]
        names = [c for c in dict.fromkeys(self.columns) if c in metrics] or list(metrics)[:4]
        words = [f"{name.removeprefix('test/')} {metrics[name]:.4g}" for name in names]
        rest = left * sum(self.seconds) / len(self.seconds)
        words.append(f"{seconds:.1f} s" + (f", about {_duration(rest)} left" if left else ""))
        self.say(" " * (2 * len(str(self.total)) + 4) + "  ".join(words))


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def run_study(
    study: Study,
    directory: str | pathlib.Path,
    *,
    train: Callable[..., dict[str, Any]] | None = None,
    only: tuple[int, int] | None = None,
    workers: int = 1,
    dry_run: bool = False,
    budget: float = 0.0,
    step_budget: float = 0.0,
    lease_timeout: float = lease.TIMEOUT,
    command: str = "",
    data_dir: str | None = None,
    quiet: bool = False,
    write_report: bool = True,
    since: float | None = None,
) -> list[dict[str, Any]]:
    """Does what is not done yet, then writes the report if nothing is left.

    Args:
      train: instead of the study's own.
      only: (i, n): the runs whose index is i modulo n, 0 <= i < n; all n together are the study.
        Of a search: whatever is free, at most the n-th part of it.
      workers: processes on this machine; more than one needs a study from a file.
      dry_run: prints the runs and what stands, does nothing.
      budget: seconds after which no further run is begun; 0 = no limit.
      step_budget: the same in training steps of all finished runs together.
      lease_timeout: seconds of silence after which another machine's run is taken over.
      since: runs that failed before this time (seconds of the epoch; None = now) are tried again.

    Returns:
      the results that stand, in the order of the manifest.

    Raises:
      SavedAndStopped: a signal stopped it, or a run of the part `only` is in the hands of another
        process; the same call continues it.
      UserError: no run could be done, or a finished one belongs to another config.
    """
    directory = pathlib.Path(directory)
    if only is not None and not 0 <= only[0] < only[1]:
        raise UserError(f"--run {only[0]}/{only[1]}: i counts from 0, so 0 <= i < n")
    if workers < 1:
        raise UserError(f"--workers {workers}: at least one")
    extra = {"command": command, "data_dir": data_dir, "quiet": quiet}
    engine = _Engine(study, directory, train or study.train, only, lease_timeout, extra)
    engine.since = engine.since if since is None else since
    if dry_run:
        _print_plan(engine)
        return []
    engine.check()
    if engine.is_first:
        engine.open()
    engine.deadline = time.monotonic() + budget if budget else float("inf")
    engine.most_steps = step_budget or float("inf")
    if workers > 1:
        _Workers(engine, workers, budget, step_budget).watch()
    else:
        engine.work()
    results = load_results(directory)
    if engine.is_first and write_report:
        left = [run for run in engine.runs if not engine.is_over(run)]
        if left or not results:
            engine.say_left(left)
        else:
            _finish(study, directory, results, quiet)
    mine = [run.id for run in engine.mine()]
    if engine.failed and not any(r["id"] in mine for r in results):
        if not (only and engine.crashed):  # a unit that crashed may be tried again
            raise UserError(f"no run could be done: {next(iter(engine.failed.values()))}")
    if only and study.more is None and since is None and not engine.is_spent():
        engine.check_part()
    return results


def _write_manifest(study: Study, directory: pathlib.Path, runs: Sequence[Run]) -> None:
    manifest = study.settings() | {"runs": [dataclasses.asdict(run) for run in runs]}
    if read_json(directory / "manifest.json") != manifest:
        write_json(directory / "manifest.json", manifest)


def _check_same(config: Any, directory: pathlib.Path) -> None:
    """A finished run whose base config has changed since is not a result of this study."""
    old = read_json(directory / "config.json")
    if not isinstance(old, dict):
        return
    new = json.loads(config.to_json())

    def differences(a: Any, b: Any, prefix: str) -> Iterator[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in a.keys() & b.keys():  # a key that only one has is another version's
                yield from differences(a[key], b[key], f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix[:-1]} was {a!r}, is {b!r}"

    found = sorted(differences(old, new, ""))
    if found:
        raise UserError(
            f"{directory} was done with another base config ({'; '.join(found[:3])}); "
            "move it away to do it again, or give the study another --directory"
        )


def _finish(study: Study, directory: pathlib.Path, results: list[dict], quiet: bool) -> None:
    """The study's own hook, then the report. Several may come here at once: files are replaced."""
    from aejax import baselines, report

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    baselines.add(study, results, directory, say)
    sections = (study.finish(results, directory) if study.finish else None) or []
    write_json(directory / "sections.json", list(sections))
    report.write([directory], directory)
    if not quiet:
        report.print_table([directory])
        for section in sections:
            print(f"\n{section['title']}\n" + textwrap.fill(section["text"], 88))
        print(f"\n{directory / 'report.html'}")


class _Engine:
    """One process's part in a study (or several processes', joined by jax.distributed)."""

    def __init__(self, study, directory, train, only, timeout, extra):
        self.study, self.directory, self.only, self.timeout = study, directory, only, timeout
        self.extra, self._train = extra, train
        self.deadline, self.most_steps, self.steps = float("inf"), float("inf"), 0
        self.since = time.time()  # failures from before it are tried again
        self.given_back = time.monotonic()
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.crashed = False  # by what was no mistake of the user
        self.group = _Group()
        self.is_first = self.group.is_first
        self.static = list(study.runs)
        if not self.static and study.more is None:
            raise UserError(f'study "{study.name}" has no runs')
        self.runs = plan(self.static)
        if study.more is not None:
            self.grow(ask=False)
        self.base = study.config() if callable(study.config) else study.config
        expected = len(plan(self.static)) + getattr(study.more, "total", 0)
        quiet = extra["quiet"] or not self.is_first
        self.progress = Progress(study, self.runs, quiet, expected)

    @property
    def train(self) -> Callable[..., dict[str, Any]]:
        if self._train is None:
            from aejax.training.run import train

            self._train = train
        return self._train

    def check(self) -> None:
        """A bad key is found before the first hour of training, not after it."""
        for run in self.mine():
            config = resolve(self.base, run)
            if self.is_done(run):
                _check_same(config, self.directory / run.id)

    def open(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _write_manifest(self.study, self.directory, self.runs)
        except OSError as e:
            raise UserError(f"cannot write to {self.directory}: {e.strerror or e}") from e

    def grow(self, ask: bool = True) -> None:
        """Adds what `study.more` has, or (without asking) what the manifest has of it."""
        if ask:
            further = list(self.study.more(load_results(self.directory), self.directory))
        else:
            manifest = read_json(self.directory / "manifest.json") or {"runs": []}
            further = [
                {**entry["overrides"], **{f"@{k}": v for k, v in entry["labels"].items()}}
                for entry in manifest["runs"]
            ]
        self.runs = plan([*self.static, *further])

    def is_done(self, run: Run) -> bool:
        if run.id not in self.done:
            result = read_result(self.directory / run.id)
            if result is not None:
                self.done.add(run.id)
                self.steps += result.get("steps") or 0
        return run.id in self.done

    def is_over(self, run: Run) -> bool:
        """Nothing more is to be done: finished, ended early by the search, or failed in it."""
        names = ("pruned.json", "failed.json") if self.study.more is not None else ()
        where = self.directory / run.id
        return self.is_done(run) or any((where / name).exists() for name in names)

    def has_failed(self, run: Run) -> bool:
        """Here, or in another process since this one began."""
        if run.id not in self.failed:
            path = self.directory / run.id / "failed.json"
            note = read_json(path) or {}
            if note.get("time", 0) >= self.since:
                self.failed[run.id] = note["error"]
        return run.id in self.failed

    def mine(self) -> list[Run]:
        if self.only is None or self.study.more is not None:
            return self.runs
        i, n = self.only
        return [run for run in self.runs if run.index % n == i]

    def is_spent(self) -> bool:
        """Whether the budget allows no further run."""
        return time.monotonic() > self.deadline or self.steps >= self.most_steps

    def check_part(self) -> None:
        """Ends with "to be queued again" if this part is not over: another process has a run of it,
        or had it and stopped."""
        for run in self.mine():
            if not self.is_done(run) and not self.has_failed(run):
                who = lease.holder(self.directory / run.id, self.timeout) or "nobody any more"
                raise SavedAndStopped(
                    f"run {run.index} ({run.id}) is not done, and in the hands of {who}. "
                    + self.how_to_go_on()
                )

    def stopped(self) -> SavedAndStopped:
        stand = sum(self.is_done(run) for run in self.runs)
        return SavedAndStopped(
            f"stopped; {stand} of {len(self.runs)} runs done. {self.how_to_go_on()}"
        )

    def how_to_go_on(self) -> str:
        if not self.study.file:
            return "The same call goes on from here."
        words = ["aejax", "study", self.study.file + (self.study.arg and f":{self.study.arg}")]
        words += ["--directory", str(self.directory), *self.study.overrides]
        words += ["--run", "{}/{}".format(*self.only)] if self.only else []
        return f"Go on with: {shlex.join(words)}"

    def say_left(self, left: Sequence[Run]) -> None:
        held = sum(bool(lease.holder(self.directory / run.id, self.timeout)) for run in left)
        failed = [run.id for run in left if (self.directory / run.id / "failed.json").exists()]
        words = [f"{len(self.runs) - len(left)} of {len(self.runs)} runs done"]
        words += [f"{held} in the hands of other processes"] if held else []
        words += [f"{len(failed)} failed ({failed[0]}/failed.json ...)"] if failed else []
        self.progress.say(f"{self.study.name}: {'; '.join(words)}. {self.how_to_go_on()}")

    def work(self) -> None:
        """Takes what is free until there is nothing left for this process."""
        with _sigterm_stops(), contextlib.closing(self._take()) as runs:
            try:
                for run in self.group.share(runs):
                    self._do(run)
            except (KeyboardInterrupt, SavedAndStopped) as e:
                raise self.stopped() from e

    def _take(self) -> Iterator[Run]:
        """Runs, each with its lease held until the next one is asked for."""
        told = False
        while True:
            share = float("inf")
            if self.study.more is not None:
                self.grow()
                _write_manifest(self.study, self.directory, self.runs)
                self.progress.runs(self.runs)
                if self.only:
                    share = -(-len(self.runs) // self.only[1])
            took, waiting = False, 0
            for run in self.mine():
                if self.is_done(run) or self.has_failed(run):
                    continue
                if (self.directory / run.id / "pruned.json").exists():
                    continue
                if len(self.progress.seconds) >= share:
                    return
                if self.is_spent():
                    self.progress.say("the budget is spent; no further run is begun")
                    return
                where = self.directory / run.id
                where.mkdir(exist_ok=True)
                held = lease.take(where, self.timeout)
                if held is None:
                    waiting += 1
                    continue
                try:
                    if not self.is_done(run):  # whoever held it a moment ago may have done it
                        took = True
                        yield run
                finally:
                    held.release()
            # A part of an array job gives its machine back. Everybody else waits for the others:
            # what they leave behind has to be taken over, and the last one writes the report.
            part = self.only is not None and self.study.more is None
            if part or not (took or waiting):
                return
            if not took:
                if self.study.more is None and not told:
                    told = True
                    self.progress.say(f"waiting for {waiting} runs that other processes have")
                time.sleep(min(2.0, self.timeout / 10))

    def _do(self, run: Run) -> None:
        where = self.directory / run.id
        self.progress.start(run, len(self.done) + len(self.failed))
        began = time.monotonic()
        pruned = threading.Event()
        try:
            with self._judged(run, pruned):
                result = _call(self.train, resolve(self.base, run), str(where), run, self.extra)
            result = result.to_dict() if isinstance(result, Result) else result
        except SavedAndStopped as e:
            if not pruned.is_set():
                raise
            if read_result(where) is None:
                write_json(where / "pruned.json", {"date": _now(), "why": str(e)})
                self.progress.say("    ended early: worse than the median of the others")
                return
            result = read_result(where)
        except Exception as e:
            self._note_failure(run, e)
            return
        if self.is_first:
            if (
                read_result(where) != result
            ):  # a trainer of the study's own: what it returned stands
                write_json(where / "result.json", result)
            (where / "failed.json").unlink(missing_ok=True)
        if time.monotonic() - self.given_back > 20:  # a large process takes 0.1 s for it
            release_memory()  # or a thousand runs grow by what each left in pieces
            self.given_back = time.monotonic()
        self.done.add(run.id)
        self.steps += result.get("steps") or 0
        left = sum(r.id not in self.done and r.id not in self.failed for r in self.mine())
        if self.study.more is not None and not self.only:
            left = self.progress.total - len(self.done) - len(self.failed)
        self.progress.end(result, time.monotonic() - began, left)

    @contextlib.contextmanager
    def _judged(self, run: Run, pruned: threading.Event) -> Iterator[None]:
        """While a run goes on, a search may end it: by SIGTERM, upon which it saves and stops."""
        judge = getattr(self.study.more, "should_stop", None)
        main = threading.current_thread() is threading.main_thread()
        if judge is None or self.group.client is not None or not main:
            yield
            return
        ended = threading.Event()
        others = [self.directory / other.id for other in self.runs if other.id != run.id]

        def watch():
            while not ended.wait(getattr(self.study.more, "poll", 1.0)):
                if judge(self.directory / run.id, others):
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

    def _note_failure(self, run: Run, error: Exception) -> None:
        """One failed run does not end a study; three, with none done, do."""
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.failed[run.id] = text
        self.crashed = not isinstance(error, UserError)
        if self.is_first:
            note = {"error": text, "time": time.time(), "date": _now()}
            if self.crashed:
                note["traceback"] = "".join(traceback.format_exception(error)).splitlines()
            write_json(self.directory / run.id / "failed.json", note)
        self.progress.say(f"    failed: {text}")
        if len(self.failed) >= 3 and not self.done and self.study.more is None:
            raise UserError(f"three runs failed and none was done: {text}")


def _call(train: Callable, config: Any, workdir: str, run: Run, extra: Mapping[str, Any]) -> dict:
    """train(config, workdir) with whatever else it takes."""
    offered = {"overrides": run.overrides, **extra}
    known = inspect.signature(train).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return train(config, workdir, **offered)
    return train(config, workdir, **{k: v for k, v in offered.items() if k in known})


class _Group:
    """The processes that train each run together; nearly always one."""

    turns = itertools.count()

    def __init__(self):
        distributed = None
        if "jax" in sys.modules:  # without it nothing can have joined processes
            from aejax.cluster import processes as distributed
        self.is_first = distributed.is_first() if distributed else True
        joined = distributed is not None and distributed.count() > 1
        self.client = distributed.client() if joined else None

    def share(self, runs: Iterator[Run]) -> Iterator[Run]:
        """The first process takes runs; the others are told which."""
        if self.client is None:
            yield from runs
            return
        while True:
            key = f"aejax/study/{next(self.turns)}"
            if self.is_first:
                run = next(runs, None)
                self.client.key_value_set(key, json.dumps(run and dataclasses.asdict(run)))
            else:
                told = json.loads(self.client.blocking_key_value_get(key, 7 * 86400 * 1000))
                run = Run(**told) if told else None
            if run is None:
                return
            yield run


@contextlib.contextmanager
def _sigterm_stops() -> Iterator[None]:
    """Between runs, too, SIGTERM means: stop, exit status 75."""

    def stop(number, frame):
        raise SavedAndStopped("stopped by SIGTERM")

    try:
        old = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


# --- several processes on this machine ------------------------------------------------------------


class _Workers:
    """Processes that each do the study; leases keep them apart. This one watches and tells."""

    def __init__(self, engine: _Engine, count: int, budget: float, step_budget: float):
        study = engine.study
        if not study.file:
            raise UserError("several workers need a study from a file; use workers=1 here")
        self.engine = engine
        todo = sum(not engine.is_done(run) for run in engine.mine())
        self.count = min(count, todo) if study.more is None else count
        self.command = [sys.executable, "-m", "aejax", "study"]
        self.command += [study.file + (study.arg and f":{study.arg}")]
        self.command += ["--directory", str(engine.directory), *study.overrides]
        self.command += ["--lease-timeout", str(engine.timeout)]
        self.command += ["--run", "{}/{}".format(*engine.only)] if engine.only else []
        self.command += ["--budget", f"{budget} seconds"] if budget else []
        self.command += ["--budget", f"{step_budget} steps"] if step_budget else []
        data_dir = engine.extra["data_dir"]
        self.command += ["--data-dir", str(data_dir)] if data_dir else []
        self.said = {run.id for run in engine.runs if engine.is_done(run)}
        self.deaths = 0

    def start(self, k: int) -> subprocess.Popen:
        role = f"{k}/{self.count}/{os.getpid()}/{self.engine.since}"
        with open(self.log(k), "a") as log:
            return subprocess.Popen(
                [*self.command, "--worker", role],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C comes to this process, which passes it on once
            )

    def log(self, k: int) -> pathlib.Path:
        return self.engine.directory / f"worker-{k}.log"

    def last_word(self, k: int) -> str:
        lines = self.log(k).read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("aejax: ") if lines else "no word"

    def watch(self) -> None:
        engine = self.engine
        running = {k: self.start(k) for k in range(self.count)}
        began = time.monotonic()
        with _sigterm_stops():
            try:
                while running:
                    time.sleep(0.2)
                    self.tell(began)
                    for k, process in list(running.items()):
                        status = process.poll()
                        if status is None:
                            continue
                        del running[k]
                        if self.should_restart(k, status):
                            running[k] = self.start(k)
                self.tell(began)
            except (KeyboardInterrupt, SavedAndStopped) as e:
                raise engine.stopped() from e
            finally:
                for process in running.values():
                    process.terminate()  # they save; a second signal to this process cuts it short
                for process in running.values():
                    process.wait()

    def tell(self, began: float) -> None:
        """A line for each run that was finished since the last look."""
        engine, progress = self.engine, self.engine.progress
        if engine.study.more is not None:
            engine.grow(ask=False)
            progress.runs(engine.runs)
        for run in engine.runs:
            if run.id in self.said or not engine.is_done(run):
                continue
            progress.start(run, len(self.said))
            self.said.add(run.id)
            self.deaths = 0
            left = sum(r.id not in self.said for r in engine.runs)
            since = time.monotonic() - began - sum(progress.seconds)  # adds up to the time so far
            progress.end(read_result(engine.directory / run.id), since, left)

    def should_restart(self, k: int, status: int) -> bool:
        if status in (0, 1):  # nothing left for it
            return False
        if status == 2:
            raise UserError(self.last_word(k))
        self.deaths += 1
        self.engine.progress.say(f"worker {k} ended with status {status}: {self.last_word(k)}")
        if self.deaths > 3 * self.count:
            raise UserError(f"workers die again and again; see {self.log(k)}")
        return any(not self.engine.is_done(run) for run in self.engine.mine())


def _become_worker(role: str) -> float:
    """One of several processes: a share of the cores, and an end when the parent ends.

    Returns:
      since when (seconds of the epoch) a failed run is not tried again.
    """
    k, count, parent, since = role.split("/")
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(k) % len(cores) :: int(count)])

    def watch_parent():
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)  # saves; the next start of the study goes on

    threading.Thread(target=watch_parent, daemon=True).start()
    return float(since)


# --- the command line -----------------------------------------------------------------------------


def add_arguments(parser: Any) -> None:
    """Arguments of `aejax study`."""
    parser.usage = "%(prog)s FILE[:arg] [--config.a.b=value ...] [options]"
    parser.add_argument("study", metavar="FILE[:arg]", help="study file")
    parser.add_argument("--directory", help="default: runs/NAME of the study")
    parser.add_argument(
        "--run", metavar="i/N", help="only the i-th of N parts, i from 0: every N-th run"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes here")
    parser.add_argument("--dry-run", action="store_true", help="print the runs, do nothing")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        help='begin no further run after "2 hours", or "100000 steps" of all runs together',
    )
    parser.add_argument(
        "--lease-timeout",
        type=float,
        default=lease.TIMEOUT,
        metavar="SECONDS",
        help="a silent machine's run is taken over after this (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def run_command(args: Any) -> int:
    """`aejax study`: 0 all done, 1 some runs failed; SavedAndStopped is 75, UserError 2. Of a part
    (--run) all this is about its own runs."""
    study = load(args.study, args.overrides)
    directory = pathlib.Path(args.directory or pathlib.Path("runs") / study.name)
    since = _become_worker(args.worker) if args.worker else None
    if args.workers == 1 and not args.dry_run and study.train is None:
        from aejax.cluster import processes

        processes.initialise()
    seconds, steps = _parse_budgets(args.budget)
    only = _parse_part(args.run)
    results = run_study(
        study,
        directory,
        only=only,
        workers=args.workers,
        dry_run=args.dry_run,
        budget=seconds,
        step_budget=steps,
        lease_timeout=args.lease_timeout,
        command=shlex.join(["aejax", *sys.argv[1:]]),
        data_dir=getattr(args, "data_dir", None),
        quiet=args.quiet,
        write_report=since is None,
        since=since,
    )
    if args.dry_run:
        return 0
    i, n = only if only and study.more is None else (0, 1)
    done = {result["id"] for result in results}
    mine = [r["id"] for r in read_json(directory / "manifest.json")["runs"] if r["index"] % n == i]
    return int(any((directory / r / "failed.json").exists() for r in mine if r not in done))


def _parse_part(text: str | None) -> tuple[int, int] | None:
    if not text:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdigit() and n.isdigit()):
        raise UserError(f'--run "{text}" is not i/N, such as 0/4')
    return int(i), int(n)


def _parse_budgets(texts: Sequence[str]) -> tuple[float, float]:
    """(seconds, steps) of budgets, 0 = none."""
    from aejax.units import duration_of

    found = {"second": 0.0, "step": 0.0}
    for text in texts:
        number, unit = duration_of(text, "--budget")
        if unit not in found:
            raise UserError(f'--budget "{text}": give seconds, minutes, hours or steps')
        found[unit] = number
    return found["second"], found["step"]


def _print_plan(engine: _Engine) -> None:
    """Each run with what stands of it."""
    from rich.console import Console
    from rich.table import Table

    labels = list(dict.fromkeys(label for run in engine.runs for label in run.labels))
    shown = telling_keys(engine.runs)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("i", "id", "state", *labels, *shown):
        table.add_column(column)
    for run in engine.mine():
        where = engine.directory / run.id
        state = (
            "done"
            if engine.is_done(run)
            else lease.holder(where, engine.timeout)
            or ("failed" if (where / "failed.json").exists() else "")
            or ("begun" if (where / "checkpoints").exists() else "to do")
        )
        values = [run.labels.get(label, "") for label in labels]
        values += [run.overrides.get(key, "") for key in shown]
        table.add_row(str(run.index), run.id, state, *map(str, values))
    Console().print(table)
    parts = f", {len(engine.mine())} of them here" if engine.only else ""
    print(f"{engine.study.name}: {len(engine.runs)} runs{parts}, in {engine.directory}")
