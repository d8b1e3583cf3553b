"""The only training loop of the package. Its order is fixed and said in comments."""

import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from aejax.cluster.slow import Watch
from aejax.config import duration_of
from aejax.errors import SavedAndStopped, UserError
from aejax.training.checkpoint import Checkpoints
from aejax.training.log import Log, Progress, Stopwatch
from aejax.training.sharding import Sharding
from aejax.training.state import TrainState


@dataclasses.dataclass
class Job:
    """What a loop needs, all made by run.py.

    Attributes:
      dispatch: steps per dispatch -> compiled (state, batch, resident, key) -> (state, metrics).
      evaluate: state -> metrics, None = no evaluation on the way.
      total: steps of the whole run; batch: examples of a step over all processes.
      eval_every, log_every, save_every: (number, unit) with unit "step" or "second".
      best: config.eval.best.
      note: what the loop knows besides the state and a checkpoint keeps: "by" (the metric `best`),
        "best" (its best value, larger is better), "worse" (evaluations since), "stopped_by".
    """

    dispatch: Callable[[int], Callable]
    pipeline: Any
    resident: Any
    sharding: Sharding
    checkpoints: Checkpoints
    log: Log
    watch: Stopwatch
    evaluate: Callable[[TrainState], dict[str, float]] | None
    key: Any
    total: int
    batch: int
    steps_per_dispatch: int
    eval_every: int
    log_every: tuple[float, str]
    save_every: tuple[float, str]
    best: str
    note: dict[str, Any] = dataclasses.field(default_factory=dict)
    stop_loss: float = 0.0
    patience: int = 0
    max_skipped: int = 20
    profile: tuple[int, int] | tuple[()] = ()
    workdir: str = "."
    quiet: bool = False


class Due:
    """Says when something that happens every so many steps or seconds is due."""

    def __init__(self, every: tuple[float, str], step: int):
        self.every, self.unit = every
        self.last_step, self.last_time = step, time.monotonic()

    def __call__(self, step: int) -> bool:
        if self.unit == "second":
            due = time.monotonic() - self.last_time >= self.every
        else:
            due = step // self.every > self.last_step // self.every
        if due:
            self.last_step, self.last_time = step, time.monotonic()
        return due


class Signals:
    """SIGTERM and Ctrl-C ask the loop to save and stop; a second Ctrl-C stops at once."""

    def __init__(self):
        self.got: str = ""

    def __enter__(self):
        self._old = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                pass
        return self

    def _note(self, number, frame):
        if self.got and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.got = signal.Signals(number).name

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)


def agree(flags: list[bool], dispatches: int) -> list[bool]:
    """What any process wants, all processes do, at the same dispatch: looked at every 8th one."""
    if jax.process_count() == 1:
        return flags
    if dispatches % 8:
        return [False] * len(flags)
    from jax.experimental import multihost_utils

    return [bool(f) for f in multihost_utils.process_allgather(np.array(flags)).any(0)]


def run_loop(job: Job, state: TrainState, start: int) -> tuple[TrainState, dict[str, Any]]:
    """Trains from step `start` to `job.total`; returns the state and a summary.

    Raises:
      SavedAndStopped: a signal came; the state is on the disk.
      UserError: the training diverged.
    """
    step, dispatches, pending = start, 0, None
    log_due = Due(job.log_every, start)
    save_due = Due(job.save_every, start)
    note = job.note
    if note.get("by") != job.best:  # a new run, or another metric decides now
        note.update(by=job.best, best=None, worse=0, stopped_by="")
    why = note["stopped_by"] or "length"
    skipped, window, save_wanted = 0, [], False
    window_start, window_step, rate = time.perf_counter(), start, 0.0
    speeds = []
    programs, evaluation_seconds = set(), float("inf")
    progress = Progress(job.total, job.quiet)
    batches = job.pipeline.prefetch(start, job.steps_per_dispatch, job.total)

    def settle(found):
        """The metrics of an earlier dispatch: waits for them, not for the one just sent."""
        nonlocal skipped
        at, count, metrics = found
        metrics = {name: float(v) for name, v in jax.device_get(metrics).items()}
        skipped = skipped + int(metrics["skipped"]) if metrics["skipped"] >= count else 0
        if skipped > job.max_skipped:
            kept = job.checkpoints.steps()
            raise UserError(
                f"training diverged: no finite gradient in the last {skipped} steps up to {at}; "
                + (f"the checkpoint of step {kept[-1]} is good; " if kept else "")
                + "lower optim.lr or set optim.clip"
            )
        window.append(metrics)
        return metrics

    with Signals() as signals, Watch() as hosts:
        try:
            while step < job.total and not note["stopped_by"]:
                if job.profile and step <= job.profile[0] < step + job.steps_per_dispatch:
                    jax.profiler.start_trace(job.workdir)

                # 1. The batch: a function of (seed, step), made ahead by another thread.
                with job.watch("data wait"):
                    begun = time.perf_counter()
                    batch = next(batches)
                    count = len(jax.tree.leaves(batch)[0])
                    batch = job.sharding.place_batch(batch)
                    waited = time.perf_counter() - begun

                # 2. The step, sent and not waited for.
                begun = time.perf_counter()
                if count not in programs:
                    progress.note(f"compiling the step ({count} in one program)")
                    programs.add(count)
                run = job.dispatch(count)
                window_start += time.perf_counter() - begun  # compiling is no training
                with job.watch("step"):
                    state, metrics = run(state, batch, job.resident, job.key)
                    step, dispatches = step + count, dispatches + 1
                    hosts.note(step, waited / count)

                    # 3. The metrics of the dispatch before: the devices never wait for us.
                    last = settle(pending) if pending else None
                    pending = (step, count, metrics)

                if job.profile and step >= sum(job.profile) > step - count:
                    jax.block_until_ready(state)
                    jax.profiler.stop_trace()

                # 4. Log and progress.
                if last and (log_due(step) or step >= job.total):
                    now = time.perf_counter()
                    rate = (step - window_step) * job.batch / (now - window_start)
                    speeds.append((step - window_step, now - window_start))
                    mean = {
                        name: float(np.mean([m[name] for m in window if name in m]))
                        for name in last
                    }
                    mean["skipped"] = float(np.sum([m["skipped"] for m in window]))
                    mean["lr"] = last["lr"]
                    with job.watch("log"):
                        job.log.write(step, mean | {"examples_per_sec": rate})
                        left = (job.total - step) * job.batch / rate
                        if job.evaluate and np.isfinite(evaluation_seconds):
                            ahead = job.total // job.eval_every - step // job.eval_every
                            left += ahead * evaluation_seconds
                        progress.show(step, mean, rate, left)
                    window.clear()
                    window_start, window_step = now, step

                # 5. Reasons to stop early.
                if last and job.stop_loss and last["loss"] <= job.stop_loss:
                    why = f"loss reached {job.stop_loss}"
                stop = why != "length"

                # 6. Evaluation, before the checkpoint, so that the best one has its metric.
                metrics = None
                if job.evaluate and step // job.eval_every > (step - count) // job.eval_every:
                    begun = time.perf_counter()
                    with job.watch("evaluate"):
                        metrics = job.evaluate(state)
                    took = time.perf_counter() - begun  # the first one compiles
                    evaluation_seconds = min(evaluation_seconds, took)
                    job.log.write(step, {f"eval/{name}": v for name, v in metrics.items()})
                    name, sign = job.best.removeprefix("-"), -1 if job.best[:1] == "-" else 1
                    if note["best"] is None or sign * metrics[name] > note["best"]:
                        note.update(best=sign * metrics[name], worse=0)
                    else:
                        note["worse"] += 1
                    if job.patience and note["worse"] >= job.patience:
                        why = f"{name} did not improve in {note['worse']} evaluations"
                        stop = True
                    window_start, window_step = time.perf_counter(), step

                note["stopped_by"] = why if stop else ""

                # 7. Checkpoint, and 8. signals: decided together by all processes.
                save_wanted = save_due(step) or save_wanted  # until all processes agree
                save, ask = agree([save_wanted, bool(signals.got)], dispatches)
                save_wanted = save_wanted and not save
                if save or ask or metrics:
                    with job.watch("checkpoint"):
                        settled = settle(pending)
                        pending = None
                        if np.isfinite(settled["loss"]):  # never over the last good one
                            job.checkpoints.save(state, metrics, note)
                        if ask:
                            job.checkpoints.wait()
                    window_start = window_start if window else time.perf_counter()
                if ask:
                    raise SavedAndStopped(
                        f"{signals.got or 'a signal to another process'}: saved step {step} of "
                        f"{job.total} in {job.workdir}; the same command goes on from there"
                    )
        finally:
            progress.close()
            batches.close()

    with job.watch("step"):
        jax.block_until_ready(state)
        if pending:
            settle(pending)
    done, seconds = np.sum(speeds[1:] or speeds or [(0, 1)], axis=0)
    summary = {
        "stopped_by": why,
        "steps": step,
        "examples_per_sec": round(float(done * job.batch / seconds), 1),
    }
    return state, summary


def every(duration: str | int, steps: Callable[[str | int, str], int], what: str):
    """A duration in seconds or steps, as (number, "second" | "step")."""
    number, unit = duration_of(duration, what)
    return (number, "second") if unit == "second" else (steps(duration, what), "step")
