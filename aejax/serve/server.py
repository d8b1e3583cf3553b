"""uvicorn, with a time limit for clients that send no request, and an ordinary exit by signals."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Generator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from aejax.errors import UserError

HEADER_SECONDS = 10.0  # from the connection to the end of the first request's headers


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection if its first request's headers do not arrive in time."""

    header_seconds = HEADER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(self.header_seconds, self._close_without_request)

    def _close_without_request(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, for which SIGINT and SIGTERM are an ordinary exit: it answers the requests
    that are being served, and `run` returns. (uvicorn would raise the signal again.)"""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """A context in which the signals stop the server; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
      UserError: the address is not this machine's, or the port is in use.
    """
    sock = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as e:
        if sock is not None:
            sock.close()
        reason = getattr(e, "strerror", None) or e
        raise UserError(
            f"cannot listen on {host} port {port}: {reason}; give another --host or --port"
        ) from e
    sock.listen(128)
    return sock
