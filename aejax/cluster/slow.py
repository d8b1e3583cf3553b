"""Names the host that is slow or silent while others wait for it; ends where one is lost."""

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

NOTICEABLE = 0.01  # seconds per step: below it a ratio is noise and nobody waits


@dataclasses.dataclass(frozen=True)
class Sign:
    """A sign of life of one process.

    Attributes:
      step: its latest one; -1 before the first.
      seconds: its own work per step (reading data, no waiting).
      number: how many signs it has given.
      ended: it has finished; its silence is no loss.
    """

    step: int = -1
    seconds: float = 0.0
    number: int = 0
    ended: bool = False


@dataclasses.dataclass
class _Seen:
    """The latest sign of a process and the times, in seconds, at which it and its step were new."""

    sign: Sign
    received: float
    moved: float


def _signs(client: Any) -> dict[int, Sign]:
    """The latest sign of each process."""
    rows = client.key_value_dir_get("aejax/watch/")
    return {int(k.rsplit("/", 1)[1]): Sign(**json.loads(v)) for k, v in rows}


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Watch:
    """Watches the processes of a run, as a context.

    Each process calls `note` once per dispatch; a thread sends it to the coordinator every `every`
    seconds and reads the signs of the others. Process 0 warns. Where a process is lost, the others
    end with status 75, before JAX's own heartbeat (100 s) aborts them with a stack trace. On one
    process it does nothing.

    Args:
      every: seconds between two signs.
      silent: seconds without a new step after which the processes that are behind are named.
      slow: a process is named when its own work on a step takes so many times the median.
      warn: takes a warning, one line; default stderr.
      lost: seconds without a sign after which a process counts as lost.
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
        self._sign = Sign()
        self._step = -1
        self._seconds: list[float] = []  # of the steps since the last sign
        self._seen: dict[int, _Seen] = {}
        self._warned: set[str] = set()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        if processes.client() is not None and processes.count() > 1:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
            replace_abort(processes.coordinator(), self._await_verdict)

    def note(self, step: int, seconds: float) -> None:
        """This process is at `step`; its own work (reading data, no waiting) took `seconds`."""
        if self._thread is not None:
            self._step = int(step)
            self._seconds.append(float(seconds))

    def close(self) -> None:
        """Ends the thread, and tells the other processes that this one has ended."""
        self._end.set()
        if self._thread is None:
            return
        self._thread.join()
        self._sign = dataclasses.replace(self._sign, ended=True)
        with contextlib.suppress(jax.errors.JaxRuntimeError, RuntimeError):
            self._send(processes.client())

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            self._await_verdict()
        self.close()

    def _await_verdict(self) -> None:
        """After a broken collective: the thread ends this process if another one is lost."""
        if self._thread is not None:
            self._thread.join(self.lost_after + 2 * self.every)

    def _run(self) -> None:
        client = processes.client()
        while not self._end.wait(self.every):
            seconds, self._seconds = self._seconds, []
            if seconds:  # the mean: one late batch is nobody's fault
                mean = statistics.fmean(seconds)
                self._sign = dataclasses.replace(self._sign, step=self._step, seconds=mean)
            self._sign = dataclasses.replace(self._sign, number=self._sign.number + 1)
            try:
                self._send(client)
                signs = _signs(client)
            except (jax.errors.JaxRuntimeError, RuntimeError):
                return  # the coordinator is gone: the program is ending, and JAX says why
            now = time.monotonic()
            lines = self.compare(signs, now)
            for line in lines if processes.index() == 0 else ():
                self.warn(line)
            if lost := self.lost(now):
                self.warn(
                    f"lost: {', '.join(map(processes.named, lost))}, no sign for "
                    f"{self.lost_after:.0f} s; this process ends too, with status 75: the same "
                    "command resumes from the last checkpoint"
                )
                self._leave(client, lost)

    def _leave(self, client: Any, lost: list[int]) -> None:
        """Ends the program with status 75: the main thread waits in a collective that never ends.

        Process 0 leaves last, at most two intervals after the others: with it goes the
        coordinator, without which JAX aborts every process that is still there.
        """
        with contextlib.suppress(jax.errors.JaxRuntimeError, RuntimeError):
            self._sign = dataclasses.replace(self._sign, ended=True)
            self._send(client)
            end = time.monotonic() + 2 * self.every
            while processes.index() == 0 and time.monotonic() < end:
                ended = {i for i, sign in _signs(client).items() if sign.ended}
                if ended >= set(range(processes.count())) - set(lost):
                    time.sleep(0.5)  # they end right after this sign
                    break
                time.sleep(0.1)
        os._exit(75)

    def _send(self, client: Any) -> None:
        client.key_value_set(
            f"aejax/watch/{processes.index()}",
            json.dumps(dataclasses.asdict(self._sign)),
            allow_overwrite=True,
        )

    def lost(self, now: float) -> list[int]:
        """The other processes that have been silent for too long and have not ended."""
        return [
            i
            for i, seen in self._seen.items()
            if i != processes.index()
            and now - seen.received > self.lost_after
            and not seen.sign.ended
        ]

    def compare(self, signs: dict[int, Sign], now: float) -> list[str]:
        """The warnings that are new.

        Args:
          signs: the latest of each process.
          now: seconds, of any clock.
        """
        for i, sign in signs.items():
            before = self._seen.get(i)
            if before is None or before.sign != sign:
                moved = now if before is None or before.sign.step != sign.step else before.moved
                self._seen[i] = _Seen(sign, now, moved)
        lines = self._silent(now) | self._behind(now) | self._slow()
        new = [line for fault, line in lines.items() if fault not in self._warned]
        self._warned = set(lines)
        return new

    def _silent(self, now: float) -> dict[str, str]:
        return {
            f"silent {i}": f"{processes.named(i)} has given no sign for {now - seen.received:.0f} "
            "s: dead or cut off"
            for i, seen in self._seen.items()
            if now - seen.received > self.silent
        }

    def _behind(self, now: float) -> dict[str, str]:
        steps = {i: seen.sign.step for i, seen in self._seen.items()}
        still = min((now - seen.moved for seen in self._seen.values()), default=0.0)
        behind = [i for i, step in steps.items() if step < max(steps.values())]
        if still <= self.silent or not behind:
            return {}
        names = ", ".join(f"{processes.named(i)} at step {steps[i]}" for i in behind)
        text = f"no step for {still:.0f} s: all wait for {names}, the others are at "
        return {f"behind {behind}": f"{text}{max(steps.values())}"}

    def _slow(self) -> dict[str, str]:
        seconds = {i: s.sign.seconds for i, s in self._seen.items() if s.sign.step >= 0}
        if len(seconds) < 2:
            return {}
        usual = statistics.median_low(seconds.values())  # of two, the quick one
        return {
            f"slow {i}": f"{processes.named(i)} needs {s:.2f} s of its own per step where the "
            f"others need {usual:.2f} s: everyone waits for it"
            for i, s in seconds.items()
            if s > self.slow * usual and s > NOTICEABLE
        }
