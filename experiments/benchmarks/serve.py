"""`aejax serve` under load: 16 clients on loopback, errors, latency, memory.

    python experiments/benchmarks/serve.py --seconds 300

Each client sends one request after the other, drawn from all kinds: pictures of 256x192 and 512x384
denoised, encoded, decoded, latents, 16 samples, and a damaged picture, which must be refused with
422. Anything else than the expected status is an error. Memory is the server's own count, every
second, of the second third of the time and of the last.
"""

import collections
import http.client
import io
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time

from common import begin, table, write

ROUTES = {
    "denoise 256x192": ("POST", "/api/denoise", "small", 200),
    "denoise 512x384": ("POST", "/api/denoise?strength=0.7", "large", 200),
    "encode 256x192": ("POST", "/api/encode?quality=40", "small", 200),
    "decode 256x192": ("POST", "/api/decode", "coded", 200),
    "latents": ("POST", "/api/latents", "small", 200),
    "16 samples": ("GET", "/api/sample?n=16&class=3&seed={seed}", None, 200),
    "damaged": ("POST", "/api/denoise", "damaged", 422),
}


class Load:
    """What the clients share."""

    def __init__(self, port: int, bodies: dict[str, bytes]):
        self.port, self.bodies, self.lock = port, bodies, threading.Lock()
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: collections.Counter = collections.Counter()
        self.memory: list[tuple[float, float]] = []

    def ask(self, connection, method, path, body) -> tuple[int, bytes]:
        connection.request(method, path, self.bodies.get(body))
        answer = connection.getresponse()
        return answer.status, answer.read()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def client(self, number: int, end: float) -> None:
        rng, connection = random.Random(number), self.connect()
        while time.monotonic() < end:
            name = rng.choice(list(ROUTES))
            method, path, body, expected = ROUTES[name]
            start = time.perf_counter()
            try:
                path = path.format(seed=rng.randrange(1000))
                status, _ = self.ask(connection, method, path, body)
            except (OSError, http.client.HTTPException) as e:
                status, connection = type(e).__name__, self.connect()
            with self.lock:
                self.seconds[name].append(time.perf_counter() - start)
                if status != expected:
                    self.errors[f"{name}: {status}"] += 1

    def watch(self, begin: float, end: float) -> None:
        while time.monotonic() < end:
            text = self.ask(self.connect(), "GET", "/metrics", None)[1].decode()
            line = next(x for x in text.splitlines() if x.startswith("process_resident"))
            self.memory.append((time.monotonic() - begin, float(line.split()[1]) / 2**20))
            time.sleep(1)


def bodies() -> dict[str, bytes]:
    """Noisy photographs, and a damaged one."""
    import numpy as np
    from PIL import Image

    from aejax.stream.clip import pan, photograph
    from aejax.stream.y4m import Video

    out = {}
    for name, size in (("small", (256, 192)), ("large", (512, 384))):
        _, noisy = next(pan(photograph(), Video(*size, "444"), 1, 15.0))
        file = io.BytesIO()
        Image.fromarray(np.uint8(np.clip(noisy, 0, 1) * 255)).save(file, "PNG")
        out[name] = file.getvalue()
    return out | {"damaged": out["small"][:2000]}


def main() -> None:
    args = begin(__doc__, ("--seconds", {"type": float, "default": 300.0}),
                 ("--clients", {"type": int, "default": 16}))  # fmt: skip
    seconds = min(args.seconds, 5.0) if args.smoke else args.seconds
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "aejax", "serve", "--port", str(port), "--queue", "64",
               "--seconds", "600"]  # fmt: skip
    server = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        server.stdout.readline()
        load = Load(port, bodies())
        connection = load.connect()
        load.bodies["coded"] = load.ask(connection, "POST", "/api/encode", "small")[1]
        for method, path, body, _ in ROUTES.values():  # compiled before it is measured
            for together in (1, 2, 4, 8) if "denoise" in path else (1,):
                threads = [
                    threading.Thread(
                        target=lambda m=method, p=path, b=body: load.ask(
                            load.connect(), m, p.format(seed=0), b
                        )
                    )
                    for _ in range(together)
                ]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
        start = time.monotonic()
        end = start + seconds
        threads = [threading.Thread(target=load.client, args=(i, end)) for i in range(args.clients)]
        threads.append(threading.Thread(target=load.watch, args=(start, end)))
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        took = time.monotonic() - start
    finally:
        server.terminate()
        status = server.wait(120)
    report(load, took, status, args)


def report(load: Load, took: float, status: int, args) -> None:
    import numpy as np

    rows, everything = [], []
    for name in ROUTES:
        ms = 1e3 * np.array(load.seconds[name] or [0.0])
        everything += load.seconds[name]
        rows.append((name, len(load.seconds[name]), f"{np.percentile(ms, 50):.0f}",
                     f"{np.percentile(ms, 99):.0f}", f"{ms.max():.0f}"))  # fmt: skip
    whole = 1e3 * np.array(everything)
    rows.append(("all", len(whole), f"{np.percentile(whole, 50):.0f}",
                 f"{np.percentile(whole, 99):.0f}", f"{whole.max():.0f}"))  # fmt: skip
    middle = [m for t, m in load.memory if took / 3 < t < 2 * took / 3]
    last = [m for t, m in load.memory if t > 2 * took / 3]
    most = [max(part, default=0.0) for part in (middle, last)]
    wrong = ", ".join(f"{n} x {what}" for what, n in load.errors.items()) or "none"
    rate = len(whole) / took
    text = f"""{args.clients} clients, {took:.0f} s, {rate:.1f} requests/s; milliseconds:

{table(("request", "answered", "p50", "p99", "longest"), rows)}

- errors: {wrong}
- resident memory of the server, at most: {most[0]:.0f} MiB in the second third,
  {most[1]:.0f} MiB in the last
- exit status after SIGTERM: {status}
"""
    write(__file__, text, args, "starlette", "uvicorn",
          method="16 clients at once, each waits for its answer")  # fmt: skip


if __name__ == "__main__":
    main()
