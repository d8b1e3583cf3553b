"""uvicorn, for clients that cannot be trusted to be quick."""

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


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose first request does not begin in time."""

    header_seconds = HEADER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(self.header_seconds, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, whose end by SIGINT or SIGTERM is an ordinary one: requests in work are
    answered, and `run` returns. (uvicorn would raise the signal again.)"""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """The signals end the server while this is entered; in the main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
      UserError: the address is not this machine's, or is taken.
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
        raise UserError(f"cannot listen at {host} port {port}: {reason}; give --port") from e
    sock.listen(128)
    return sock
