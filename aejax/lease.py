"""Leases: files in a run's folder which ensure that a single process at a time trains the run.

They need a shared folder but no server. The files `lease.0`, `lease.1`, ... are created
exclusively; the one with the highest number is valid. Its holder touches it regularly. A lease
expires when it was not touched for the timeout, or when its process on the same machine has ended.
Then another process creates the file with the next number; if several try, one succeeds. Files are
never renamed or rewritten, so a process with an outdated view cannot replace a lease that it has
not seen.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid

from aejax.errors import UserError

TIMEOUT = 120.0  # a lease expires if it was not touched for this many seconds


class Lease:
    """A lease that this process holds until `release`; created by `take`."""

    def __init__(self, path: pathlib.Path, timeout: float):
        self.path, self.timeout = path, timeout
        self.thread = threading.get_ident()
        _heartbeat.add(self)

    def release(self) -> None:
        """Deletes the lease and the expired ones with lower numbers."""
        _heartbeat.remove(self)
        for _, path in _leases(self.path.parent):  # the valid one, with the highest number, last
            if _number(path) <= _number(self.path):
                path.unlink(missing_ok=True)

    def beat(self) -> bool:
        """Touches the file; returns False if another process holds the lease of the run now."""
        try:
            os.utime(self.path)
            return _leases(self.path.parent)[-1][1] == self.path
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a temporary error of the file system; the timeout decides


class _Heartbeat:
    """A thread that touches all leases of this process and ends the process if one is lost."""

    def __init__(self):
        self._leases: set[Lease] = set()
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases.add(lease)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, lease: Lease) -> None:
        with self._lock:  # waits if the thread is just touching the lease
            self._leases.discard(lease)

    def holds(self, directory: pathlib.Path) -> bool:
        """Whether this thread holds the lease of `directory`."""
        thread = threading.get_ident()
        with self._lock:
            return any(
                lease.thread == thread and lease.path.parent.resolve() == directory.resolve()
                for lease in self._leases
            )

    def _run(self) -> None:
        while True:
            with self._lock:
                for lease in self._leases:
                    if lease.beat():
                        continue
                    # If two leases were created at the same time, the later one is deleted at once.
                    time.sleep(1)
                    if lease.beat():
                        continue
                    # The lease expired and another process trains this run now, so this one must
                    # not write anything, not even a checkpoint.
                    directory = lease.path.parent
                    sys.stderr.write(f"{directory}: taken over by another process; stopping\n")
                    sys.stderr.flush()
                    os._exit(75)
                interval = min((lease.timeout / 6 for lease in self._leases), default=None)
            self._wake.wait(interval)
            self._wake.clear()


_heartbeat = _Heartbeat()


def take(directory: pathlib.Path, timeout: float = TIMEOUT) -> Lease | None:
    """Acquires the lease of `directory`, which must exist; None while another process holds it.

    Args:
      timeout: seconds after which a lease that is not touched expires.
    """
    number, last = max(_leases(directory), default=(-1, None))
    if last and not (_is_expired(last, timeout) and last.exists()):
        return None  # held, or just released: the next call acquires it
    path = directory / f"lease.{number + 1}"
    # Written under another name and linked, because link() is exclusive, also on NFS, and the lease
    # is then never seen half written.
    draft = directory / f".lease-{uuid.uuid4().hex}"
    draft.write_text(json.dumps(_this_process()))
    try:
        os.link(draft, path)
    except FileExistsError:
        return None
    except OSError:  # a file system without hard links
        try:
            with open(path, "x") as f:
                f.write(draft.read_text())
        except FileExistsError:
            return None
    finally:
        draft.unlink(missing_ok=True)
    # If the other lease was released and a new lease.0 created after the listing above, there can
    # be two valid leases: then each process deletes its own and retries.
    for _, other in _leases(directory):
        if other != path and not _is_expired(other, timeout):
            path.unlink(missing_ok=True)
            return None
    return Lease(path, timeout)


def take_or_explain(directory: pathlib.Path, timeout: float = TIMEOUT) -> Lease | None:
    """Acquires the lease of `directory`, or explains why it cannot; None if this thread holds it.

    If the holder is on another machine and does not touch its lease, this waits until the lease
    expires: a preempted job may be restarted elsewhere before that.

    Raises:
      UserError: another process holds the lease and is alive.
    """
    if _heartbeat.holds(directory):
        return None
    last_touch = None
    while True:
        lease = take(directory, timeout)
        if lease is not None:
            return lease
        leases = _leases(directory)
        if leases and (owner := _read(leases[-1][1])) is not None:
            number, path = leases[-1]
            with contextlib.suppress(FileNotFoundError):
                touch = (number, path.stat().st_mtime)
                if owner.get("machine") == _machine() or last_touch not in (None, touch):
                    raise UserError(
                        f"{directory} is being trained by {holder(directory, timeout)}; wait until "
                        "it ends, or use another --workdir"
                    )
                if last_touch is None:
                    print(
                        f"{directory}: {holder(directory, timeout)} holds the lease of this run; "
                        f"waiting up to {timeout:.0f} s to see whether it is still alive",
                        file=sys.stderr,
                        flush=True,
                    )
                last_touch = touch
        time.sleep(0.5)


def holder(directory: pathlib.Path, timeout: float = TIMEOUT) -> str:
    """The process that holds the lease of `directory`, as "host, process 123"; "" if none does."""
    leases = _leases(directory)
    if not leases or _is_expired(leases[-1][1], timeout):
        return ""
    owner = _read(leases[-1][1]) or {}
    return f"{owner.get('host', 'unknown host')}, process {owner.get('pid', '?')}"


def _number(path: pathlib.Path) -> int:
    return int(path.name.partition(".")[2])


def _leases(directory: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    """(number, file) of all leases, in order of their numbers."""
    with contextlib.suppress(FileNotFoundError):
        names = (n for n in os.listdir(directory) if n.startswith("lease."))
        numbers = sorted(int(n[6:]) for n in names if n[6:].isdigit())
        return [(n, directory / f"lease.{n}") for n in numbers]
    return []


def _is_expired(path: pathlib.Path, timeout: float) -> bool:
    owner = _read(path)
    if owner and owner.get("machine") == _machine():
        # On the same machine it only counts whether the process is alive, so that the runs of a
        # laptop keep their leases while it is suspended.
        return owner.get("born") != _start_time(owner["pid"])
    try:
        return _now(path.parent) - path.stat().st_mtime > timeout
    except FileNotFoundError:
        return True


def _read(path: pathlib.Path) -> dict | None:
    """The content of a lease, see `_this_process`; None if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _now(directory: pathlib.Path) -> float:
    """The time by the clock of the file server of `directory`, which sets modification times."""
    probe = directory / f".clock-{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _this_process() -> dict:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _start_time(os.getpid()),
        "machine": _machine(),
    }


def _machine() -> str:
    """An id of the kernel and the PID namespace; containers of a host have different ones."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"


def _start_time(pid: int) -> str:
    """The start time of a process, which tells it from a later one with the same PID; "" if there
    is no such process, "alive" if the start time is unknown."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    except OSError:
        pass
    if sys.platform.startswith("linux"):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
