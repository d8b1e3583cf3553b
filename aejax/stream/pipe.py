"""Read, work, write: frames through a bounded queue, with measured rate and latency."""

import collections
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

RECENT = 4096  # frames of which the latency is kept


@dataclasses.dataclass
class Progress:
    """What has passed so far, and a line about it on standard error once a second.

    Attributes:
      done: frames written; dropped: of them repeated because the queue was full.
      latencies: seconds from a frame's arrival to its last byte written, of the last frames.
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
        """A frame was written, after `dropped` that were not worked on."""
        self.done += 1 + dropped
        self.dropped += dropped
        self.latencies.append(latency)
        now = time.perf_counter()
        if not self.quiet and now - self._said >= (1 if self._is_terminal else 10):
            self._said = now
            end = "\r" if self._is_terminal else "\n"
            print(f"aejax stream: {self.text()}", end=end, file=sys.stderr, flush=True)

    def percentile(self, p: float) -> float:
        """Of the latency, in milliseconds."""
        return float(np.percentile(self.latencies, p)) * 1e3 if self.latencies else 0.0

    def text(self) -> str:
        """Frames, rate and latency in a line."""
        seconds = time.perf_counter() - self.begin
        rate = self.done / max(seconds, 1e-9)
        late = f", latency p50 {self.percentile(50):.0f} ms p99 {self.percentile(99):.0f} ms"
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        return f"{self.done} frames in {seconds:.1f} s, {rate:.1f} frames/s{late}{dropped}"

    def finish(self) -> None:
        """The last line."""
        if not self.quiet:
            start = "\r" if self._is_terminal else ""
            print(f"{start}aejax stream: {self.text()}", file=sys.stderr, flush=True)


class FrameQueue:
    """At most `size` frames between the thread that reads and the one that works.

    When it is full, the reader waits; or, if `drop`, the oldest frame makes room.
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
        except Exception as e:  # is raised again where the frames are taken
            self._error = e
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def get(self) -> tuple[int, float, bytes] | None:
        """(number, time of arrival, bytes) of the next frame; None at the end.

        Raises:
          what reading raised, after the frames before it were taken.
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
        """Lets a reader that waits go home."""
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
    """Every frame of `source` through `work` to `write`.

    Args:
      size: frames that wait at most.
      drop: when they do, the oldest is not worked on, and the result before it is written in its
        place, so that a picture stays in step with its sound; otherwise reading waits.
    """
    queue = FrameQueue(source, size, drop)
    expected, result = 0, b""
    try:
        while (frame := queue.get()) is not None:
            number, arrived, data = frame
            before, result = result, work(data)
            for _ in range(number - expected):
                write(before or result)
            write(result)
            progress.count(time.perf_counter() - arrived, number - expected)
            expected = number + 1
    finally:
        queue.close()
        progress.finish()
