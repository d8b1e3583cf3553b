"""`aejax serve` with the shipped models: 16 clients for five minutes, then 1,000 hostile requests.

    python experiments/benchmarks/serve.py

Load: each client sends random requests one after the other: denoise, encode, decode and compare
with JPEG for images of 256x192 and 512x384, latents, 16 samples, and a damaged image, for which the
answer must be 422. Any other status than the expected one is an error.

Hostile requests, to a second server: those of tests/serve/hostile.py (decompression bombs, wrong
lengths, path names, deep multiparts, damaged images, broken protocol, slow clients). An error is a
5xx, or a server that answers a good request differently afterwards.

Memory is that in the server's /metrics, read once a second.

Cost: 685 s on two cores of an AMD EPYC beside other work (load 10). Results: serve.md beside this
file.
"""

import argparse
import collections
import contextlib
import functools
import http.client
import io
import pathlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from common import begin, table, write

ROUTES = {
    "denoise 256x192": ("POST", "/api/denoise", "small", 200),
    "denoise 512x384": ("POST", "/api/denoise?strength=0.7", "large", 200),
    "encode 256x192": ("POST", "/api/encode?quality=40", "small", 200),
    "decode 256x192": ("POST", "/api/decode", "coded", 200),
    "compare 256x192": ("POST", "/api/compare?quality=40", "small", 200),
    "latents": ("POST", "/api/latents", "small", 200),
    "16 samples": ("GET", "/api/sample?n=16&class=3&seed={seed}", None, 200),
    "damaged": ("POST", "/api/denoise", "damaged", 422),
}
KINDS = {
    "with_body": "damaged pictures, bombs, noise", "lying_length": "wrong lengths",
    "chunked": "broken chunks", "form": "multiparts: deep, cut, path names",
    "path": "paths, parameters", "protocol": "no HTTP, huge headers", "slow": "slow clients",
}  # fmt: skip
SENDERS = 8  # threads that send hostile requests


class Server:
    """A process of `aejax serve`, with its resident memory over time.

    Attributes:
      port: of the server.
      memory: (seconds since the start of `watch`, MiB).
      status: exit status after SIGTERM; None before.
    """

    def __init__(self, *options: str):
        command = [sys.executable, "-m", "aejax", "serve", "--port", "0", *options]
        root = pathlib.Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        self.memory: list[tuple[float, float]] = []
        self.status: int | None = None

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """(status, body) of a request on a new connection."""
        with contextlib.closing(self.connect()) as connection:
            return exchange(connection, method, path, body)

    def resident(self) -> float:
        """Resident memory in MiB."""
        text = self.request("GET", "/metrics")[1].decode()
        line = next(x for x in text.splitlines() if x.startswith("process_resident"))
        return float(line.split()[1]) / 2**20

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Records the memory once a second within this context."""
        stopped, start = threading.Event(), time.monotonic()

        def record() -> None:
            while not stopped.wait(1):
                self.memory.append((time.monotonic() - start, self.resident()))

        self.memory.append((0.0, self.resident()))
        thread = threading.Thread(target=record)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            self.memory.append((time.monotonic() - start, self.resident()))

    def stop(self) -> None:
        self._process.terminate()
        self.status = self._process.wait(120)

    def about(self) -> str:
        """Lines of the report: memory at the start, in the middle and at the end; exit status."""
        seconds = self.memory[-1][0]
        middle = min(self.memory, key=lambda m: abs(m[0] - seconds / 2))[1]
        half = [max(m for t, m in self.memory if (t > seconds / 2) == second) for second in (0, 1)]
        where = f"{self.memory[0][1]:.0f} MiB at the start, {middle:.0f} in the middle, "
        where += f"{self.memory[-1][1]:.0f} at the end"
        peaks = f"at most {half[0]:.0f} in the first half, {half[1]:.0f} in the second"
        return f"""- resident memory of the server: {where}; {peaks}
- exit status after SIGTERM: {self.status}"""


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
) -> tuple[int, bytes]:
    """(status, body) of a request on an open connection."""
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def in_parallel(*functions: Callable[[], object]) -> None:
    """Runs functions in threads and waits for all."""
    threads = [threading.Thread(target=f) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Load:
    """The state that the clients share: request bodies, times in seconds and errors."""

    def __init__(self, server: Server, bodies: dict[str, bytes]):
        self._server, self._bodies, self._lock = server, bodies, threading.Lock()
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: collections.Counter[str] = collections.Counter()
        self._bodies["coded"] = server.request("POST", "/api/encode", bodies["small"])[1]

    def arguments(self, name: str, seed: int) -> tuple[str, str, bytes | None]:
        """(method, path, body) of a kind of request."""
        method, path, body, _ = ROUTES[name]
        return method, path.format(seed=seed), self._bodies[body] if body else None

    def warm(self) -> None:
        """Sends every kind of request, so that all shapes and batch sizes are compiled."""
        for name in ROUTES:
            for n in (1, 2, 4, 8) if "denoise" in name else (1,):
                send = functools.partial(self._server.request, *self.arguments(name, 0))
                in_parallel(*[send] * n)

    def client(self, number: int, seconds: float) -> None:
        """Sends random requests for some time."""
        rng, connection = random.Random(number), self._server.connect()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name = rng.choice(list(ROUTES))
            start = time.perf_counter()
            try:
                status = exchange(connection, *self.arguments(name, rng.randrange(1000)))[0]
            except (OSError, http.client.HTTPException) as e:
                status, connection = type(e).__name__, self._server.connect()
            with self._lock:
                self.seconds[name].append(time.perf_counter() - start)
                if status != ROUTES[name][3]:
                    self.errors[f"{name}: {status}"] += 1
        connection.close()

    def report(self, duration: float) -> str:
        """The table of times; `duration` in seconds."""
        import numpy as np

        all_seconds = sum(self.seconds.values(), [])
        rows = []
        for name, seconds in [*self.seconds.items(), ("all", all_seconds)]:
            ms = 1e3 * np.array(seconds)
            columns = (*np.percentile(ms, (50, 99)), ms.max())
            rows.append((name, len(ms), *(f"{v:.0f}" for v in columns)))
        return f"""{duration:.0f} s, {len(all_seconds) / duration:.1f} requests/s; milliseconds:

{table(("request", "answered", "p50", "p99", "longest"), rows)}

- errors: {counted(self.errors)}"""


def counted(errors: collections.Counter[str]) -> str:
    """Errors with their numbers, as text."""
    return ", ".join(f"{n} x {what}" for what, n in errors.items()) or "none"


def bodies() -> dict[str, bytes]:
    """{name: noisy photograph as PNG}, and a damaged one."""
    import numpy as np
    from PIL import Image

    from aejax.stream.clip import pan, photograph
    from aejax.stream.y4m import Video

    out = {}
    for name, size in (("tiny", (96, 64)), ("small", (256, 192)), ("large", (512, 384))):
        _, noisy = next(pan(photograph(), Video(*size, "444"), 1, 15.0))
        file = io.BytesIO()
        Image.fromarray(np.uint8(np.clip(noisy, 0, 1) * 255)).save(file, "PNG")
        out[name] = file.getvalue()
    return out | {"damaged": out["small"][:2000]}


def under_load(clients: int, seconds: float) -> str:
    """The part of the report about normal load."""
    server = Server("--queue", "64", "--seconds", "600")
    try:
        load = Load(server, bodies())
        load.warm()
        start = time.monotonic()
        with server.watch():
            in_parallel(*[functools.partial(load.client, i, seconds) for i in range(clients)])
        duration = time.monotonic() - start
    finally:
        server.stop()
    return f"## {clients} clients\n\n{load.report(duration)}\n{server.about()}"


def under_attack(count: int) -> str:
    """The part of the report about hostile requests."""
    from tests.serve import hostile

    server = Server("--bytes", str(hostile.LIMIT), "--pixels", str(1 << 20), "--queue", "64",
                    "--upload-seconds", "2")  # fmt: skip
    statuses: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    lock, png = threading.Lock(), bodies()["tiny"]

    def send(seed: int) -> None:
        for kind, request in hostile.requests(count // SENDERS, seed, with_slow=True):
            status = hostile.status_of(hostile.answer(server.port, request, 30, kind == "slow"))
            with lock:
                statuses[kind][status] += 1

    try:
        before = server.request("POST", "/api/denoise", png)
        assert before[0] == 200, before
        start = time.monotonic()
        with server.watch():
            in_parallel(*[functools.partial(send, seed) for seed in range(SENDERS)])
        duration = time.monotonic() - start
        is_unharmed = server.request("POST", "/api/denoise", png) == before
    finally:
        server.stop()
    return f"""## {sum(sum(s.values()) for s in statuses.values()):,} hostile requests

{SENDERS} at once, {duration:.0f} s:

{attack_table(statuses)}

- answers of 5xx: {sum(n for s in statuses.values() for code, n in s.items() if code >= 500)}
- a good request has the same answer before and after: {"yes" if is_unharmed else "NO"}
{server.about()}"""


def attack_table(statuses: dict[str, collections.Counter[int]]) -> str:
    """A Markdown table of the answers to each kind of hostile request."""
    rows: list[Sequence[object]] = []
    for kind, counts in sorted(statuses.items()):
        refused = ", ".join(f"{n} x {code}" for code, n in sorted(counts.items()) if code >= 400)
        good = sum(n for code, n in counts.items() if 200 <= code < 400)
        rows.append((KINDS[kind], sum(counts.values()), refused or "none", counts[0], good))
    head = ("kind", "sent", "refused with", "connection closed", "answered with 2xx")
    return table(head, rows)


def main() -> None:
    args: argparse.Namespace = begin(
        __doc__, ("--seconds", {"type": float, "default": 300.0}),
        ("--clients", {"type": int, "default": 16}), ("--hostile", {"type": int, "default": 1000}),
    )  # fmt: skip
    seconds, count = (5.0, 40) if args.smoke else (args.seconds, args.hostile)
    text = f"{under_load(args.clients, seconds)}\n\n{under_attack(count)}"
    write(__file__, text, args, "starlette", "uvicorn", "python-multipart",
          method="each client waits for its answer before it asks again")  # fmt: skip


if __name__ == "__main__":
    main()
