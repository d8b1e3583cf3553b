"""Heartbeats between processes: names the host that is slow or silent while others wait for it, and
ends this process if another one is lost."""

import contextlib
import dataclasses
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from aejax.cluster import processes
from aejax.cluster.abort import replace_abort

NOTICEABLE = 0.01  # seconds per step, below which a process is never called slow


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """What a process reports at intervals.

    Attributes:
      step: its latest step; -1 before the first.
      seconds: its own work per step (reading data, without waiting for others).
      number: how many heartbeats it has sent before.
      ended: whether it has ended, so that no more heartbeats are to be expected.
    """

    step: int = -1
    seconds: float = 0.0
    number: int = 0
    ended: bool = False


@dataclasses.dataclass
class _Seen:
    """The latest heartbeat of a process, when it was received and when its step last changed, both
    in seconds."""

    heartbeat: Heartbeat
    received: float
    step_changed: float


def _heartbeats(client: Any) -> dict[int, Heartbeat]:
    """The latest heartbeat of each process."""
    rows = client.key_value_dir_get("aejax/watch/")
    return {int(k.rsplit("/", 1)[1]): Heartbeat(**json.loads(v)) for k, v in rows}


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Watch:
    """Watches the processes of a run, as a context.

    Each process calls `note` once per dispatch; a thread sends a heartbeat to the coordinator every
    `every` seconds and reads those of the others. Process 0 warns of processes that are slow or
    silent. If a process is lost, the others end with status 75, before JAX's own heartbeat (100 s)
    aborts them with a stack trace. For a single process it does nothing.

    Args:
      every: seconds between two heartbeats.
      silent: seconds without a heartbeat, or without a new step, after which process 0 warns.
      slow: process 0 warns of a process whose own work per step takes more than `slow` times the
        median.
      warn: called with each warning, one line; default: prints it to stderr.
      lost: seconds without a heartbeat after which a process counts as lost.
    """

    def __init__(
        self,
        every: float = 10.0,
        silent: float = 60.0,
        slow: float = 2.0,
        warn: Callable[[str], None] = _print,
        lost: float = 50.0,
    ):
        self.every, self.silent, self.slow, self.warn = every, silent, slow, warn
        self.lost_after = lost
        self._heartbeat = Heartbeat()
        self._step = -1
        self._seconds: list[float] = []  # own work on each step since the last heartbeat
        self._seen: dict[int, _Seen] = {}
        self._warned: set[str] = set()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        if processes.client() is not None and processes.count() > 1:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
            replace_abort(processes.coordinator(), self._wait_for_loss)

    def note(self, step: int, seconds: float) -> None:
        """Records that this process is at `step`, and its own work (without waiting) in seconds."""
        if self._thread is not None:
            self._step = int(step)
            self._seconds.append(float(seconds))

    def close(self) -> None:
        """Ends the thread, and tells the other processes that this one has ended."""
        self._end.set()
        if self._thread is None:
            return
        self._thread.join()
        self._heartbeat = dataclasses.replace(self._heartbeat, ended=True)
        with contextlib.suppress(jax.errors.JaxRuntimeError, RuntimeError):
            self._send(processes.client())

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            self._wait_for_loss()
        self.close()

    def _wait_for_loss(self) -> None:
        """After a failed collective: gives the thread time to find that another process is lost, in
        which case it ends this one."""
        if self._thread is not None:
            self._thread.join(self.lost_after + 2 * self.every)

    def _run(self) -> None:
        client = processes.client()
        while not self._end.wait(self.every):
            seconds, self._seconds = self._seconds, []
            if seconds:  # the mean, because a single late batch is no fault
                mean = statistics.fmean(seconds)
                self._heartbeat = dataclasses.replace(
                    self._heartbeat, step=self._step, seconds=mean
                )
            number = self._heartbeat.number + 1
            self._heartbeat = dataclasses.replace(self._heartbeat, number=number)
            try:
                self._send(client)
                heartbeats = _heartbeats(client)
            except (jax.errors.JaxRuntimeError, RuntimeError):
                return  # the coordinator is gone: the program is ending, and JAX says why
            now = time.monotonic()
            warnings = self.compare(heartbeats, now)
            for warning in warnings if processes.index() == 0 else ():
                self.warn(warning)
            if lost := self.lost(now):
                self.warn(
                    f"lost: {', '.join(map(processes.named, lost))}, no heartbeat for "
                    f"{self.lost_after:.0f} s; this process exits with status 75: the same command "
                    "resumes from the last checkpoint"
                )
                self._exit(client, lost)

    def _exit(self, client: Any, lost: list[int]) -> None:
        """Ends the program with status 75: the main thread waits in a collective that never ends.

        Process 0 exits last, at most two intervals after the others, because it is the coordinator,
        without which JAX aborts every other process.
        """
        with contextlib.suppress(jax.errors.JaxRuntimeError, RuntimeError):
            self._heartbeat = dataclasses.replace(self._heartbeat, ended=True)
            self._send(client)
            deadline = time.monotonic() + 2 * self.every
            while processes.index() == 0 and time.monotonic() < deadline:
                ended = {i for i, beat in _heartbeats(client).items() if beat.ended}
                if ended >= set(range(processes.count())) - set(lost):
                    time.sleep(0.5)  # they exit right after this heartbeat
                    break
                time.sleep(0.1)
        os._exit(75)

    def _send(self, client: Any) -> None:
        client.key_value_set(
            f"aejax/watch/{processes.index()}",
            json.dumps(dataclasses.asdict(self._heartbeat)),
            allow_overwrite=True,
        )

    def lost(self, now: float) -> list[int]:
        """The other processes whose last heartbeat is too old and which have not ended."""
        return [
            i
            for i, seen in self._seen.items()
            if i != processes.index()
            and now - seen.received > self.lost_after
            and not seen.heartbeat.ended
        ]

    def compare(self, heartbeats: dict[int, Heartbeat], now: float) -> list[str]:
        """Takes the latest heartbeat of each process; returns the warnings that are new.

        Args:
          now: seconds, of any clock.
        """
        for i, heartbeat in heartbeats.items():
            seen = self._seen.get(i)
            if seen is None or seen.heartbeat != heartbeat:
                has_same_step = seen and seen.heartbeat.step == heartbeat.step
                step_changed = seen.step_changed if seen and has_same_step else now
                self._seen[i] = _Seen(heartbeat, now, step_changed)
        warnings = self._silent(now) | self._behind(now) | self._slow()
        new = [text for fault, text in warnings.items() if fault not in self._warned]
        self._warned = set(warnings)
        return new

    def _silent(self, now: float) -> dict[str, str]:
        return {
            f"silent {i}": f"no heartbeat of {processes.named(i)} for {now - seen.received:.0f} s: "
            "it has died, or is disconnected"
            for i, seen in self._seen.items()
            if now - seen.received > self.silent
        }

    def _behind(self, now: float) -> dict[str, str]:
        steps = {i: seen.heartbeat.step for i, seen in self._seen.items()}
        pause = min((now - seen.step_changed for seen in self._seen.values()), default=0.0)
        behind = [i for i, step in steps.items() if step < max(steps.values())]
        if pause <= self.silent or not behind:
            return {}
        names = ", ".join(f"{processes.named(i)} at step {steps[i]}" for i in behind)
        text = f"no step for {pause:.0f} s: all wait for {names}, the others are at "
        return {f"behind {behind}": f"{text}{max(steps.values())}"}

    def _slow(self) -> dict[str, str]:
        beats = {i: seen.heartbeat for i, seen in self._seen.items()}
        seconds = {i: beat.seconds for i, beat in beats.items() if beat.step >= 0}
        if len(seconds) < 2:
            return {}
        median = statistics.median_low(seconds.values())  # of two processes, the faster one
        return {
            f"slow {i}": f"{processes.named(i)} needs {s:.2f} s per step for its own work, the "
            f"others {median:.2f} s: all wait for it"
            for i, s in seconds.items()
            if s > self.slow * median and s > NOTICEABLE
        }
