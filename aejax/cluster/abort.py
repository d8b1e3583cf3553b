"""Status 75 instead of an abort where JAX or gloo aborts because another process is lost."""

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Callable

_handler = None  # the C library calls it: it must outlive `replace_abort`


def reachable(address: str, timeout: float = 5.0) -> bool:
    """Whether something listens at "host:port"."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout):
        return True
    return False


def replace_abort(coordinator: str, wait: Callable[[], None]) -> None:
    """From now on, abort() asks first whether another process was lost.

    JAX's client calls abort() in a thread of its own when its connection to the coordinator breaks,
    and takes no other callback from Python (`missed_heartbeat_callback` ends in std::bad_cast in
    jaxlib 0.10 to 0.12); gloo calls it when a collective is broken off. Handlers of Python's
    `signal.signal` run later, in the main thread, which an abort never reaches: so this one is
    installed in the C library.

    Args:
      coordinator: "host:port" of process 0. Nothing listens there: this process ends with 75.
      wait: called otherwise; it ends the process if it finds that another one is lost. If it
        returns, the abort goes on.
    """
    global _handler
    libc = ctypes.CDLL(None)

    def on_abort(number: int) -> None:
        if not reachable(coordinator):
            text = (
                f"lost: process 0 at {coordinator}, which coordinates the run; this process ends "
                "too, with status 75: the same command resumes from the last checkpoint\n"
            )
            os.write(2, text.encode())
            os._exit(75)
        wait()
        libc.signal(number, None)  # the default: abort() raises it again and ends the process

    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    libc.signal(signal.SIGABRT, _handler)
