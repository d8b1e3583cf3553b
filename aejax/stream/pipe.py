"""Reads, processes and writes frames through a bounded queue, and measures rate and latency."""

import collections
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

RECENT = 4096  # the percentiles are of the latencies of this many last frames


@dataclasses.dataclass
class Progress:
    """Counts frames and prints a line on standard error: every second on a terminal, else every 10
    s.

    Attributes:
      quiet: print nothing.
      done: frames written.
      dropped: frames that were dropped, in whose place the previous result was written.
      latencies: seconds from reading a frame to writing its result, of the last RECENT frames.
      begin: start time.
    """

    quiet: bool = False
    done: int = 0
    dropped: int = 0
    latencies: collections.deque = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=RECENT)
    )
    begin: float = dataclasses.field(default_factory=time.perf_counter)
    _said: float = 0.0

    def __post_init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def count(self, latency: float, dropped: int = 0) -> None:
        """Counts a frame that was written, and `dropped` ones before it."""
        self.done += 1 + dropped
        self.dropped += dropped
        self.latencies.append(latency)
        now = time.perf_counter()
        if not self.quiet and now - self._said >= (1 if self._is_terminal else 10):
            self._said = now
            end = "\r" if self._is_terminal else "\n"
            print(f"aejax stream: {self.text()}", end=end, file=sys.stderr, flush=True)

    def percentile(self, p: float) -> float:
        """The p-th percentile of the latency in milliseconds."""
        return float(np.percentile(self.latencies, p)) * 1e3 if self.latencies else 0.0

    def text(self) -> str:
        """One line with frames, rate and latency."""
        seconds = time.perf_counter() - self.begin
        rate = self.done / max(seconds, 1e-9)
        latency = f", latency p50 {self.percentile(50):.0f} ms p99 {self.percentile(99):.0f} ms"
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        return f"{self.done} frames in {seconds:.1f} s, {rate:.1f} frames/s{latency}{dropped}"

    def finish(self) -> None:
        """Prints the last line."""
        if not self.quiet:
            start = "\r" if self._is_terminal else ""
            print(f"{start}aejax stream: {self.text()}", file=sys.stderr, flush=True)


class FrameQueue:
    """A bounded queue, filled with the frames of `source` by a thread of its own.

    Args:
      source: the frames.
      size: frames in the queue, at most.
      drop: when the queue is full, drop its oldest frame; otherwise the thread waits.
    """

    def __init__(self, source: Iterable[bytes], size: int, drop: bool):
        self._frames: collections.deque = collections.deque()
        self._size, self._drop = size, drop
        self._changed = threading.Condition()
        self._ended, self._closed = False, False
        self._error: Exception | None = None
        threading.Thread(target=self._fill, args=(source,), daemon=True).start()

    def _fill(self, source: Iterable[bytes]) -> None:
        try:
            for number, data in enumerate(source):
                with self._changed:
                    while len(self._frames) >= self._size and not self._closed:
                        if self._drop:
                            self._frames.popleft()
                        else:
                            self._changed.wait()
                    if self._closed:
                        return
                    self._frames.append((number, time.perf_counter(), data))
                    self._changed.notify_all()
        except Exception as e:  # `get` raises it in the consumer's thread
            self._error = e
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def get(self) -> tuple[int, float, bytes] | None:
        """(number, time of arrival, bytes) of the next frame; None at the end.

        Raises:
          Exception: the error of `source`, after the frames before it.
        """
        with self._changed:
            while not self._frames and not self._ended:
                self._changed.wait()
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """Ends the reading thread, even if it waits for room."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def pump(
    source: Iterable[bytes],
    work: Callable[[bytes], bytes],
    write: Callable[[bytes], object],
    progress: Progress,
    *,
    size: int = 4,
    drop: bool = False,
) -> None:
    """Processes all frames of `source` by `work` and writes the results by `write`, in order.

    Args:
      progress: counts the frames.
      size: frames in the queue, at most.
      drop: when the queue is full, drop its oldest frame and write the previous result in its
        place, which keeps picture and sound synchronous; otherwise reading waits.
    """
    queue = FrameQueue(source, size, drop)
    expected, result = 0, b""
    try:
        while (frame := queue.get()) is not None:
            number, arrived, data = frame
            previous, result = result, work(data)
            for _ in range(number - expected):
                write(previous or result)
            write(result)
            progress.count(time.perf_counter() - arrived, number - expected)
            expected = number + 1
    finally:
        queue.close()
        progress.finish()
