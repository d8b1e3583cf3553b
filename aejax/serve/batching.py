"""One worker thread that runs requests of one kind and shape as a batch."""

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
    """Calls `function(items) -> results` on the items of all waiting requests with the same key. A
    request with a unique key (`object()`) is run alone.

    A batch starts `limits.wait_ms` after its first item, or as soon as the previous batch is done,
    and has at most `limits.batch` items. There is one worker thread, because a model uses all cores
    by itself.
    """

    def __init__(self, limits: Limits, telemetry: Telemetry):
        self._limits, self._telemetry = limits, telemetry
        self._jobs: collections.deque[_Job] = collections.deque()
        self._arrived = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="aejax-serve")
        self._loop_task: asyncio.Task | None = None
        self.seconds_per_item = 0.1  # running mean, for Retry-After

    def start(self) -> None:
        """Starts the worker; call it within a running event loop."""
        self._loop_task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stops after the batch that is running; waiting requests get 503 with Retry-After."""
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
        """How many requests wait for the worker."""
        return len(self._jobs)

    async def run(
        self, key: Hashable, function: Callable[[Sequence[Item]], Sequence[Outcome]], item: Item
    ) -> Outcome:
        """Waits for the result of `item`; raises what `function` raises for it.

        Args:
          key: requests with equal keys may share a call of `function`.

        Raises:
          Refused: it took longer than `limits.seconds`.
        """
        job = _Job(key, function, item, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await job.result
        except TimeoutError:
            reason = f"the request took longer than {self._limits.seconds:g} s"
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
        """Removes the first job and those with its key from the queue, at most a batch. Jobs whose
        request was given up are dropped."""
        batch: list[_Job] = []
        waiting: collections.deque[_Job] = collections.deque()
        for job in self._jobs:
            if job.result.done():
                continue
            fits = not batch or job.key == batch[0].key and len(batch) < self._limits.batch
            (batch if fits else waiting).append(job)
        self._jobs = waiting
        return batch

    def _run(self, loop: asyncio.AbstractEventLoop, jobs: Sequence[_Job]) -> None:
        """Runs a batch, in the worker thread. If it fails, its items are run one by one, so that
        only the faulty one fails."""
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
