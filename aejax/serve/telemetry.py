"""Counts and times of a server, in the text format of Prometheus."""

import bisect
import collections
import sys
import threading

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SIZES = (1, 2, 4, 8, 16, 32)


class Histogram:
    """A cumulative histogram: how many observations were at most each of `bounds`, ascending."""

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Adds an observation."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> list[str]:
        """The histogram in the text format of Prometheus; labels: 'name="value",...' or ""."""
        out, cumulative = [], 0
        comma = "," if labels else ""
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            cumulative += count
            out.append(f'{name}_bucket{{{labels}{comma}le="{bound}"}} {cumulative}')
        braces = f"{{{labels}}}" if labels else ""
        return [*out, f"{name}_sum{braces} {self.total:.6g}", f"{name}_count{braces} {cumulative}"]


class Telemetry:
    """Counts and times of a server since it started. Its methods may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: collections.Counter = collections.Counter()
        self._times: dict[str, Histogram] = {}
        self._batches = Histogram(SIZES)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answered request. `route` is a route of the server, never a client's path."""
        with self._lock:
            self._requests[route, status] += 1
            self._times.setdefault(route, Histogram(SECONDS)).add(seconds)

    def batch(self, size: int) -> None:
        """Counts a batch of `size` requests."""
        with self._lock:
            self._batches.add(size)

    def text(self, waiting: int, active: int) -> str:
        """All metrics in the text format of Prometheus.

        Args:
          waiting: requests that wait for the worker now.
          active: requests that are being served now, waiting included.
        """
        with self._lock:
            lines = ["# HELP aejax_requests_total Requests answered.",
                     "# TYPE aejax_requests_total counter"]  # fmt: skip
            for (route, status), count in sorted(self._requests.items()):
                lines.append(f'aejax_requests_total{{route="{route}",status="{status}"}} {count}')
            lines += ["# HELP aejax_request_seconds Time to answer a request.",
                      "# TYPE aejax_request_seconds histogram"]  # fmt: skip
            for route, times in sorted(self._times.items()):
                lines += times.lines("aejax_request_seconds", f'route="{route}"')
            lines += ["# HELP aejax_batch_size Requests per batch.",
                      "# TYPE aejax_batch_size histogram"]  # fmt: skip
            lines += self._batches.lines("aejax_batch_size", "")
        for name, value, text in (
            ("aejax_waiting_requests", waiting, "Requests that wait for the worker."),
            ("aejax_active_requests", active, "Requests that are being served, waiting included."),
            ("process_resident_memory_bytes", resident_bytes(), "Resident memory."),
        ):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Resident memory of this process; 0 on systems other than Linux."""
    if not sys.platform.startswith("linux"):
        return 0
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    import resource

    return pages * resource.getpagesize()
