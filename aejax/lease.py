"""Leases: one process at a time trains a run. A lease is a file in the run's folder.

They work on a shared folder without a server. `lease.0`, `lease.1`, ... are created exclusively,
and the highest number is the valid one. Its holder touches the file at intervals. If it has not
been touched for the timeout, or if its process on the same machine has ended, the lease has expired
and another process creates the next number; of several that try, one succeeds. No file is renamed
or rewritten, so a slow reader never replaces a lease other than the one that it looked at.
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

TIMEOUT = 120.0  # seconds without a sign of life after which a lease expires


class Lease:
    """A lease that this process holds until `release`. Made by `take`."""

    def __init__(self, path: pathlib.Path, timeout: float):
        self.path, self.timeout = path, timeout
        self.thread = threading.get_ident()
        _heart.add(self)

    def release(self) -> None:
        """Deletes the file and those of the expired leases before it."""
        _heart.remove(self)
        for _, path in _leases(self.path.parent):  # lowest first: the highest one decides
            if _number(path) <= _number(self.path):
                path.unlink(missing_ok=True)

    def beat(self) -> bool:
        """Touches the file; False if another process holds the run now."""
        try:
            os.utime(self.path)
            return _leases(self.path.parent)[-1][1] == self.path
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the file server is away for a moment; the timeout decides


class _Heart:
    """One thread touches the files of all leases of this process. If one is lost, it ends the
    process."""

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
        with self._lock:  # so that the thread is not touching the lease that is released
            self._leases.discard(lease)

    def holds(self, directory: pathlib.Path) -> bool:
        """Whether this thread holds the lease of `directory`."""
        me = threading.get_ident()
        with self._lock:
            return any(
                lease.thread == me and lease.path.parent.resolve() == directory.resolve()
                for lease in self._leases
            )

    def _run(self) -> None:
        while True:
            with self._lock:
                for lease in self._leases:
                    if lease.beat():
                        continue
                    time.sleep(1)  # of two created at the same time one is deleted at once
                    if lease.beat():
                        continue
                    # The lease expired and another process trains this run now: nothing may be
                    # written any longer, not even a checkpoint.
                    where = lease.path.parent
                    sys.stderr.write(f"{where}: taken over by another process; stopping\n")
                    sys.stderr.flush()
                    os._exit(75)
                pause = min((lease.timeout / 6 for lease in self._leases), default=None)
            self._wake.wait(pause)
            self._wake.clear()


_heart = _Heart()


def take(directory: pathlib.Path, timeout: float = TIMEOUT) -> Lease | None:
    """The lease of `directory` (which exists), or None while another process holds it."""
    number, last = max(_leases(directory), default=(-1, None))
    if last and not (_is_dead(last, timeout) and last.exists()):
        return None  # held, or released just now: the next try finds it free
    path = directory / f"lease.{number + 1}"
    # Written first, named second: link() is exclusive, also on NFS, and never shows half a file.
    draft = directory / f".lease-{uuid.uuid4().hex}"
    draft.write_text(json.dumps(_myself()))
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
    # If the leases were deleted and begun anew between the look and the creation, there can be two:
    # then both processes delete theirs and try again.
    for _, other in _leases(directory):
        if other != path and not _is_dead(other, timeout):
            path.unlink(missing_ok=True)
            return None
    return Lease(path, timeout)


def take_or_explain(directory: pathlib.Path, timeout: float = TIMEOUT) -> Lease | None:
    """The lease of `directory`; None if this thread holds it already.

    A holder on another machine that gives no sign of life is waited for until its lease expires: a
    preempted job may start again elsewhere sooner than that.

    Raises:
      UserError: another process is alive and holds it.
    """
    if _heart.holds(directory):
        return None
    seen = None
    while True:
        lease = take(directory, timeout)
        if lease is not None:
            return lease
        leases = _leases(directory)
        if leases and (who := _read(leases[-1][1])) is not None:
            number, path = leases[-1]
            with contextlib.suppress(FileNotFoundError):
                sign = (number, path.stat().st_mtime)
                if who.get("machine") == _machine() or seen not in (None, sign):
                    raise UserError(
                        f"{directory} is being trained by {holder(directory, timeout)}; wait until "
                        "it ends, or use another --workdir"
                    )
                if seen is None:
                    print(
                        f"{directory}: {holder(directory, timeout)} trained here last and has not "
                        f"ended properly; waiting up to {timeout:.0f} s for a sign of it",
                        file=sys.stderr,
                        flush=True,
                    )
                seen = sign
        time.sleep(0.5)


def holder(directory: pathlib.Path, timeout: float = TIMEOUT) -> str:
    """ "host, process 123" of whoever holds `directory` now; "" if nobody does."""
    leases = _leases(directory)
    if not leases or _is_dead(leases[-1][1], timeout):
        return ""
    who = _read(leases[-1][1]) or {}
    return f"{who.get('host', 'unknown host')}, process {who.get('pid', '?')}"


def _number(path: pathlib.Path) -> int:
    return int(path.name.partition(".")[2])


def _leases(directory: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    with contextlib.suppress(FileNotFoundError):
        names = (n for n in os.listdir(directory) if n.startswith("lease."))
        numbers = sorted(int(n[6:]) for n in names if n[6:].isdigit())
        return [(n, directory / f"lease.{n}") for n in numbers]
    return []


def _is_dead(path: pathlib.Path, timeout: float) -> bool:
    who = _read(path)
    if who and who.get("machine") == _machine():
        # Here the process itself can be asked. A suspended laptop's runs stay its own.
        return who.get("born") != _born(who["pid"])
    try:
        return _now(path.parent) - path.stat().st_mtime > timeout
    except FileNotFoundError:
        return True


def _read(path: pathlib.Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _now(directory: pathlib.Path) -> float:
    """The time by the clock that stamps files in `directory`, which may be another machine's."""
    probe = directory / f".clock-{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _myself() -> dict:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "machine": _machine(),
    }


def _machine() -> str:
    """This kernel and its process numbers: containers of one host have different ones."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"


def _born(pid: int) -> str:
    """Start time of a process, so that a number used again is not taken for it; "" = no process."""
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
