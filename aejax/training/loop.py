"""The only training loop of the package.

One pass of `Loop.run` is one dispatch, that is train.steps_per_dispatch steps in one program. Its
phases have a fixed order: batch, step, metrics of the step before, log, stopping, evaluation,
checkpoint, signals.
"""

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import PyTree

from aejax.cluster.slow import Watch
from aejax.errors import SavedAndStopped, UserError
from aejax.training.log import Progress, Throughput
from aejax.training.prepared import PreparedRun
from aejax.units import Clock, duration_of

Metrics = dict[str, float]


class Due:
    """Tells when an action that repeats every so many steps or seconds is due.

    Args:
      duration: such as "500 steps", "2 epochs" or "300 seconds".
      clock: turns epochs into steps.
      what: the config key, for messages.
      step: the first step, from which it counts.
    """

    def __init__(self, duration: str, clock: Clock, what: str, step: int):
        number, unit = duration_of(duration, what)
        self.in_seconds = unit == "second"
        self.every = number if self.in_seconds else clock.steps(duration, what)
        self.last_step, self.last_time = step, time.monotonic()

    def __call__(self, step: int) -> bool:
        if self.in_seconds:
            due = time.monotonic() - self.last_time >= self.every
        else:
            due = step // self.every > self.last_step // self.every
        if due:
            self.last_step, self.last_time = step, time.monotonic()
        return due


class Signals:
    """SIGTERM and Ctrl-C ask the loop to save and stop; a second Ctrl-C stops at once."""

    def __init__(self):
        self.received: str = ""

    def __enter__(self):
        self._old = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: the calling program handles signals
                pass
        return self

    def _note(self, number, frame):
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)


def agree(flags: list[bool], dispatches: int) -> list[bool]:
    """The flags that are set in any process, in all of them at the same dispatch.

    Processes compare them at every 8th dispatch and see none in between.
    """
    if jax.process_count() == 1:
        return flags
    if dispatches % 8:
        return [False] * len(flags)
    from jax.experimental import multihost_utils

    return [bool(f) for f in multihost_utils.process_allgather(np.array(flags)).any(0)]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The fields of a Result that the loop knows; result.Result describes them."""

    stopped_by: str
    steps: int
    examples_per_sec: float


class Loop:
    """Trains a prepared run from its step to its length, or until there is a reason to stop.

    Attributes:
      step: steps of the run that were dispatched; dispatches: programs sent by this process.
      pending: the last dispatch, whose metrics may not be computed yet.
      window: metrics of the dispatches since the last line of the log.
      skipped: consecutive steps, up to now, without a finite gradient.
      now: the clock, in seconds.
    """

    def __init__(
        self,
        run: PreparedRun,
        quiet: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ):
        config, clock, start = run.parts.config, run.parts.clock, run.start
        self.prepared, self.config, self.stopping = run, config, run.stopping
        self.now = now
        self.stopping.follow(config.eval.best)
        self.step, self.total, self.dispatches = start, run.parts.steps, 0
        self.pending: tuple[int, int, PyTree] | None = None  # step, count, metrics on the devices
        self.window: list[Metrics] = []
        self.skipped, self.is_save_wanted = 0, False
        self.log_due = Due(config.log.every, clock, "log.every", start)
        self.save_due = Due(config.checkpoint.every, clock, "checkpoint.every", start)
        self.eval_every = clock.steps(config.eval.every, "eval.every") if config.eval.every else 0
        self.evaluation_seconds = float("inf")  # of the fastest so far: the first one compiles
        self.throughput = Throughput(start, config.data.batch, now)
        self.progress = Progress(self.total, quiet)
        self.announced: set[int] = set()  # program sizes whose compilation was announced

    def run(self) -> Summary:
        """Trains until the last step or an early stop; leaves the last state in the prepared run.

        Raises:
          SavedAndStopped: a signal came; the state is on the disk.
          UserError: the training diverged.
        """
        batches = self.prepared.parts.pipeline.prefetch(
            self.step, self.config.train.steps_per_dispatch, self.total
        )
        with Signals() as signals, Watch() as hosts:
            try:
                while self.step < self.total and not self.stopping.stopped_by:
                    self._start_profile()
                    # 1. The batch: a function of (seed, step), made ahead by another thread.
                    batch, count, waited = self._next_batch(batches)
                    # 2. The steps are dispatched; nothing waits for them.
                    metrics = self._send(batch, count)
                    hosts.note(self.step, waited / count)
                    # 3. The metrics of the previous dispatch: the devices never wait for us.
                    last = self._settle()
                    self.pending = (self.step, count, metrics)
                    self._end_profile(count)
                    if last:
                        # 4. Log and progress line.
                        self._log(last)
                        # 5. Stops if the loss has reached train.stop_loss.
                        self._check_loss(last)
                    # 6. Evaluation, before the checkpoint, so that the best one has its metrics.
                    evaluated = self._evaluate(count)
                    # 7. Checkpoint and 8. signals: all processes decide together.
                    self._save(evaluated, signals)
            finally:
                self.progress.close()
                batches.close()
        with self.prepared.watch("step"):
            jax.block_until_ready(self.prepared.state)
            self._settle()
        stopped_by = self.stopping.stopped_by or "length"
        return Summary(stopped_by, self.step, round(self.throughput.average(), 1))

    def _next_batch(self, batches: Iterator[PyTree]) -> tuple[PyTree, int, float]:
        """(batch on the devices, number of steps in it, seconds the loop waited for it)."""
        with self.prepared.watch("data wait"):
            begun = self.now()
            batch = next(batches)
            count = len(jax.tree.leaves(batch)[0])
            batch = self.prepared.sharding.place_batch(batch)
            return batch, count, self.now() - begun

    def _send(self, batch: PyTree, count: int) -> PyTree:
        """Dispatches `count` steps to the devices and returns their metrics, not yet computed."""
        run, begun = self.prepared, self.now()
        if count not in self.announced:
            self.progress.note(f"compiling the step ({count} in one program)")
            self.announced.add(count)
        program = run.program(count)
        self.throughput.leave_out(self.now() - begun)  # compile time is not training time
        with run.watch("step"):
            run.state, metrics = program(run.state, batch, run.resident, run.key)
        self.step, self.dispatches = self.step + count, self.dispatches + 1
        return metrics

    def _settle(self) -> Metrics | None:
        """Waits for the metrics of the pending dispatch; None if nothing is pending.

        Raises:
          UserError: too many steps in a row had no finite gradient.
        """
        if self.pending is None:
            return None
        (step, count, metrics), self.pending = self.pending, None
        with self.prepared.watch("step"):
            metrics = {name: float(v) for name, v in jax.device_get(metrics).items()}
        all_skipped = metrics["skipped"] >= count
        self.skipped = self.skipped + int(metrics["skipped"]) if all_skipped else 0
        if self.skipped > self.config.train.max_skipped:
            saved = self.prepared.checkpoints.steps()
            raise UserError(
                f"training diverged: no finite gradient in the last {self.skipped} steps up to "
                f"{step}; "
                + (f"the checkpoint of step {saved[-1]} is good; " if saved else "")
                + "lower optim.lr or set optim.clip"
            )
        self.window.append(metrics)
        return metrics

    def _log(self, last: Metrics) -> None:
        """Writes the mean metrics since the last line, when a line is due and at the end."""
        if not self.log_due(self.step) and self.step < self.total:
            return
        mean = {name: float(np.mean([m[name] for m in self.window if name in m])) for name in last}
        mean["skipped"] = float(np.sum([m["skipped"] for m in self.window]))
        mean["lr"] = last["lr"]
        rate = self.throughput.measure(self.step)
        seconds = (self.total - self.step) * self.config.data.batch / rate
        if self.eval_every and np.isfinite(self.evaluation_seconds):
            evaluations = self.total // self.eval_every - self.step // self.eval_every
            seconds += evaluations * self.evaluation_seconds
        with self.prepared.watch("log"):
            self.prepared.log.write(self.step, mean | {"examples_per_sec": rate})
            self.progress.show(self.step, mean, rate, seconds)
        self.window.clear()

    def _check_loss(self, last: Metrics) -> None:
        target = self.config.train.stop_loss
        if target and last["loss"] <= target:
            self.stopping.stopped_by = f"loss reached {target}"

    def _evaluate(self, count: int) -> Metrics | None:
        """Metrics of the evaluation split, if the last `count` steps made an evaluation due."""
        every = self.eval_every
        if not every or self.step // every == (self.step - count) // every:
            return None
        begun = self.now()
        with self.prepared.watch("evaluate"):
            metrics = self.prepared.evaluate().metrics
        self.evaluation_seconds = min(self.evaluation_seconds, self.now() - begun)
        self.stopping.evaluated(metrics, self.config.train.patience)
        self.throughput.restart(self.step)
        return metrics

    def _save(self, evaluated: Metrics | None, signals: Signals) -> None:
        """Saves when a checkpoint is due, after an evaluation, and before a signal stops the run.

        Raises:
          SavedAndStopped: a signal came to this or another process.
        """
        self.is_save_wanted |= self.save_due(self.step)  # until all processes agree
        flags = [self.is_save_wanted, bool(signals.received)]
        is_due, is_stopped = agree(flags, self.dispatches)
        self.is_save_wanted = self.is_save_wanted and not is_due
        if is_due or is_stopped or evaluated:
            with self.prepared.watch("checkpoint"):
                metrics = self._settle()
                if metrics is None or np.isfinite(metrics["loss"]):  # no diverged state is saved
                    self.prepared.save(evaluated)
                if is_stopped:
                    self.prepared.checkpoints.wait()
        if is_stopped:
            raise SavedAndStopped(
                f"{signals.received or 'a signal to another process'}: saved step {self.step} of "
                f"{self.total} in {self.prepared.workdir}; the same command goes on from there"
            )

    def _start_profile(self) -> None:
        profile = self.config.train.profile
        if profile and self.step <= profile[0] < self.step + self.config.train.steps_per_dispatch:
            jax.profiler.start_trace(str(self.prepared.workdir))

    def _end_profile(self, count: int) -> None:
        profile = self.config.train.profile
        if profile and self.step >= sum(profile) > self.step - count:
            jax.block_until_ready(self.prepared.state)
            jax.profiler.stop_trace()
