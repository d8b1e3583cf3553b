"""Exit status 75 instead of an abort when JAX or gloo aborts because another process is lost."""

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Callable

_handler = None  # the C library calls it: it must outlive `replace_abort`


def reachable(address: str, timeout: float = 5.0) -> bool:
    """Whether a process listens at "host:port"; waits at most `timeout` seconds."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout):
        return True
    return False


def replace_abort(coordinator: str, wait: Callable[[], None]) -> None:
    """Installs a handler for abort() that ends this process with status 75 if another is lost.

    JAX's client calls abort() in a thread of its own when its connection to the coordinator breaks,
    and takes no other callback from Python (`missed_heartbeat_callback` ends in std::bad_cast in
    jaxlib 0.10 to 0.12); gloo calls it when a collective is interrupted. A handler of Python's
    `signal.signal` would run too late, in the main thread, which an abort never reaches. So this
    one is installed in the C library.

    Args:
      coordinator: "host:port" of process 0. If nothing listens there, process 0 is lost.
      wait: called if process 0 is alive; it ends this process with status 75 if it finds that
        another one is lost. If it returns, the abort continues.
    """
    global _handler
    libc = ctypes.CDLL(None)

    def on_abort(number: int) -> None:
        if not reachable(coordinator):
            text = (
                f"lost: process 0 at {coordinator}, which coordinates the run; this process exits "
                "with status 75: the same command resumes from the last checkpoint\n"
            )
            os.write(2, text.encode())
            os._exit(75)
        wait()
        libc.signal(number, None)  # the default handler: abort() raises the signal again and exits

    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    libc.signal(signal.SIGABRT, _handler)
