"""`aejax serve` with the shipped models: 16 clients for five minutes, then 1,000 hostile requests.

    python experiments/benchmarks/serve.py

Load: each client sends one request after the other, drawn from all kinds: pictures of 256x192 and
512x384 denoised, encoded, decoded, compared with JPEG, latents, 16 samples, and a damaged picture,
which must be refused with 422. Anything else than the expected status is an error.

Hostile requests: those of tests/serve/hostile.py (bombs, wrong lengths, path names, deep
multiparts, damaged pictures, broken protocol, slow clients) to a second server. A 5xx, or a server
that does not answer well afterwards, is an error.

Memory is what the server says of itself, once a second.
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
SENDERS = 8  # of hostile requests at once


class Server:
    """`aejax serve` in a process of its own, and its resident memory over time.

    Attributes:
      memory: (seconds since `watch` began, MiB).
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

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """(status, body) of a request on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            return exchange(connection, method, path, body)

    def resident(self) -> float:
        text = self.ask("GET", "/metrics")[1].decode()
        line = next(x for x in text.splitlines() if x.startswith("process_resident"))
        return float(line.split()[1]) / 2**20

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Notes the memory while this is entered."""
        ended, start = threading.Event(), time.monotonic()

        def note() -> None:
            while not ended.wait(1):
                self.memory.append((time.monotonic() - start, self.resident()))

        self.memory.append((0.0, self.resident()))
        thread = threading.Thread(target=note)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.memory.append((time.monotonic() - start, self.resident()))

    def stop(self) -> None:
        self._process.terminate()
        self.status = self._process.wait(120)

    def about(self) -> str:
        """Memory at the start, in the middle and at the end, and how it ended."""
        took = self.memory[-1][0]
        middle = min(self.memory, key=lambda m: abs(m[0] - took / 2))[1]
        half = [max(m for t, m in self.memory if (t > took / 2) == second) for second in (0, 1)]
        where = f"{self.memory[0][1]:.0f} MiB at the start, {middle:.0f} in the middle, "
        where += f"{self.memory[-1][1]:.0f} at the end"
        most = f"at most {half[0]:.0f} in the first half, {half[1]:.0f} in the second"
        return f"""- resident memory of the server: {where}; {most}
- exit status after SIGTERM: {self.status}"""


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
) -> tuple[int, bytes]:
    """(status, body) of a request."""
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def together(*works: Callable[[], object]) -> None:
    """Runs them at the same time and waits for all."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Load:
    """What the clients of a server share: bodies to send, times in seconds and errors."""

    def __init__(self, server: Server, bodies: dict[str, bytes]):
        self._server, self._bodies, self._lock = server, bodies, threading.Lock()
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: collections.Counter[str] = collections.Counter()
        self._bodies["coded"] = server.ask("POST", "/api/encode", bodies["small"])[1]

    def request(self, name: str, seed: int) -> tuple[str, str, bytes | None]:
        method, path, body, _ = ROUTES[name]
        return method, path.format(seed=seed), self._bodies[body] if body else None

    def warm(self) -> None:
        """Compiles what the clients will ask for, each size and number of pictures at once."""
        for name in ROUTES:
            for n in (1, 2, 4, 8) if "denoise" in name else (1,):
                ask = functools.partial(self._server.ask, *self.request(name, 0))
                together(*[ask] * n)

    def client(self, number: int, seconds: float) -> None:
        rng, connection = random.Random(number), self._server.connect()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name = rng.choice(list(ROUTES))
            start = time.perf_counter()
            try:
                status = exchange(connection, *self.request(name, rng.randrange(1000)))[0]
            except (OSError, http.client.HTTPException) as e:
                status, connection = type(e).__name__, self._server.connect()
            with self._lock:
                self.seconds[name].append(time.perf_counter() - start)
                if status != ROUTES[name][3]:
                    self.errors[f"{name}: {status}"] += 1
        connection.close()

    def report(self, took: float) -> str:
        import numpy as np

        whole = sum(self.seconds.values(), [])
        rows = []
        for name, seconds in [*self.seconds.items(), ("all", whole)]:
            ms = 1e3 * np.array(seconds)
            marks = (*np.percentile(ms, (50, 99)), ms.max())
            rows.append((name, len(ms), *(f"{m:.0f}" for m in marks)))
        return f"""{took:.0f} s, {len(whole) / took:.1f} requests/s; milliseconds:

{table(("request", "answered", "p50", "p99", "longest"), rows)}

- errors: {counted(self.errors)}"""


def counted(errors: collections.Counter[str]) -> str:
    return ", ".join(f"{n} x {what}" for what, n in errors.items()) or "none"


def bodies() -> dict[str, bytes]:
    """Noisy photographs as PNG, and a damaged one."""
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
    """The first part of the report."""
    server = Server("--queue", "64", "--seconds", "600")
    try:
        load = Load(server, bodies())
        load.warm()
        start = time.monotonic()
        with server.watch():
            together(*[functools.partial(load.client, i, seconds) for i in range(clients)])
        took = time.monotonic() - start
    finally:
        server.stop()
    return f"## {clients} clients\n\n{load.report(took)}\n{server.about()}"


def under_attack(count: int) -> str:
    """The second part of the report."""
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
        before = server.ask("POST", "/api/denoise", png)
        assert before[0] == 200, before
        start = time.monotonic()
        with server.watch():
            together(*[functools.partial(send, seed) for seed in range(SENDERS)])
        took = time.monotonic() - start
        is_unharmed = server.ask("POST", "/api/denoise", png) == before
    finally:
        server.stop()
    return f"""## {sum(sum(s.values()) for s in statuses.values()):,} hostile requests

{SENDERS} at once, {took:.0f} s:

{attack_table(statuses)}

- answers of 5xx: {sum(n for s in statuses.values() for code, n in s.items() if code >= 500)}
- a good request has the same answer before and after: {"yes" if is_unharmed else "NO"}
{server.about()}"""


def attack_table(statuses: dict[str, collections.Counter[int]]) -> str:
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
