"""One worker thread; requests of one kind and shape are worked on together."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from aejax.serve.limits import Limits, busy
from aejax.serve.telemetry import Telemetry

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclasses.dataclass(frozen=True)
class _Job:
    key: Hashable
    function: Callable[[Sequence], Sequence]
    item: object
    result: asyncio.Future


class Batcher:
    """Runs `function(items) -> results` for the items of all requests with the same key; a key of
    its own (`object()`) is worked on alone.

    A batch begins `wait_ms` after its first item, or as soon as the one before it is done, and has
    at most `limits.batch` items. A single thread does the work: a model uses all cores by itself.
    """

    def __init__(self, limits: Limits, telemetry: Telemetry):
        self._limits, self._telemetry = limits, telemetry
        self._jobs: collections.deque[_Job] = collections.deque()
        self._arrived = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="aejax-serve")
        self._loop_task: asyncio.Task | None = None
        self.seconds_per_item = 0.1  # running mean, for Retry-After

    def start(self) -> None:
        """Begins to work; within a running event loop."""
        self._loop_task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends after the batch in work; requests that wait are told to come again."""
        if self._loop_task:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        while self._jobs:
            job = self._jobs.popleft()
            if not job.result.done():
                job.result.set_exception(busy("the server is being stopped", 10))
        self._thread.shutdown(wait=True)

    @property
    def waiting(self) -> int:
        """Requests that wait for the worker."""
        return len(self._jobs)

    async def run(
        self, key: Hashable, function: Callable[[Sequence[Item]], Sequence[Outcome]], item: Item
    ) -> Outcome:
        """The result for `item`.

        Raises:
          Refused: it took longer than `limits.seconds`.
          what `function` raised for this item.
        """
        job = _Job(key, function, item, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await job.result
        except TimeoutError:
            reason = f"the work was not done within {self._limits.seconds:g} s"
            raise busy(reason, self.waiting * self.seconds_per_item) from None

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await asyncio.sleep(self._limits.wait_ms / 1e3)
            jobs = self._take()
            if not self._jobs:
                self._arrived.clear()
            if not jobs:
                continue
            self._telemetry.batch(len(jobs))
            begin = time.perf_counter()
            await asyncio.shield(loop.run_in_executor(self._thread, self._run, loop, jobs))
            seconds = (time.perf_counter() - begin) / len(jobs)
            self.seconds_per_item += 0.2 * (seconds - self.seconds_per_item)

    def _take(self) -> list[_Job]:
        """The first job and those after it with its key; those given up are dropped."""
        taken: list[_Job] = []
        kept: collections.deque[_Job] = collections.deque()
        for job in self._jobs:
            if job.result.done():
                continue
            fits = not taken or job.key == taken[0].key and len(taken) < self._limits.batch
            (taken if fits else kept).append(job)
        self._jobs = kept
        return taken

    def _run(self, loop: asyncio.AbstractEventLoop, jobs: Sequence[_Job]) -> None:
        """In the thread. A batch that fails is done again one by one: the fault is one item's."""
        try:
            outcomes = list(jobs[0].function([job.item for job in jobs]))
        except Exception as e:
            if len(jobs) > 1:
                for job in jobs:
                    self._run(loop, [job])
                return
            outcomes = [e]
        for job, outcome in zip(jobs, outcomes, strict=True):
            loop.call_soon_threadsafe(_settle, job.result, outcome)


def _settle(result: asyncio.Future, outcome: object) -> None:
    if result.done():
        return
    if isinstance(outcome, Exception):
        result.set_exception(outcome)
    else:
        result.set_result(outcome)
