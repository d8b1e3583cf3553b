"""A real server on a free port, around work that needs no model."""

import contextlib
import http.client
import io
import json
import threading

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="aejax[serve] is not installed")

from tests.helpers import wait_for
from tests.serve.standin import StandIn


class Running:
    """A server in a thread."""

    def __init__(self, work, limits, header_seconds):
        import uvicorn

        from aejax.serve.app import build_app
        from aejax.serve.server import Server, TimedProtocol, listen

        self.work, sock = work, listen("127.0.0.1", 0)
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(
            build_app(work, limits, ("localhost", "127.0.0.1")),
            http=type("Protocol", (TimedProtocol,), {"header_seconds": header_seconds}),
            ws="none", log_level="critical",
            access_log=False, timeout_graceful_shutdown=20, h11_max_incomplete_event_size=1 << 14,
        )  # fmt: skip
        self.server = Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [sock]})
        self.thread.start()
        wait_for(lambda: self.server.started, what="the server")

    def stop(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def ask(self, method, path, body=None, headers=None):
        """(status, headers, body) of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read()

    def error(self, *request, **more):
        """(status, reason) of a request that is refused."""
        status, _, body = self.ask(*request, **more)
        return status, json.loads(body)["error"]


@pytest.fixture
def serve():
    from aejax.serve.limits import Limits

    running = []

    def start(work=None, header_seconds=10.0, **limits):
        running.append(Running(work or StandIn(), Limits(**limits), header_seconds))
        return running[-1]

    yield start
    for server in running:
        server.work.release.set()
        server.stop()


@pytest.fixture
def png():
    def make(h=32, w=48, c=3, seed=0):
        from PIL import Image

        x = np.random.default_rng(seed).integers(20, 256, (h, w, c), np.uint8)
        out = io.BytesIO()
        Image.fromarray(x[..., 0] if c == 1 else x).save(out, "PNG")
        return out.getvalue()

    return make
