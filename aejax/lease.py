"""Who does this run? A lease is a file in the run's directory that one process holds at a time.

It works on a shared folder without a server. `lease.0`, `lease.1`, ... are created exclusively; the
highest one counts. A holder touches its file now and then; one that has gone quiet (or whose
process is seen to be dead, on the same machine) is succeeded by creating the next number, which
only one process can do. Nothing is ever renamed or rewritten, so a slow reader cannot take a lease
it did not judge.
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

TIMEOUT = 120.0  # seconds of silence after which another machine may take over


class Lease:
    """Held until `release`; use `take`."""

    def __init__(self, path: pathlib.Path, timeout: float):
        self.path, self.timeout = path, timeout
        self.thread = threading.get_ident()
        _heart.add(self)

    def release(self) -> None:
        """Gives the lease back and removes what it succeeded."""
        _heart.remove(self)
        for _, path in _leases(self.path.parent):  # lowest first: the highest one decides
            if _number(path) <= _number(self.path):
                path.unlink(missing_ok=True)

    def beat(self) -> bool:
        """Shows that the holder lives; False if another process has taken over."""
        try:
            os.utime(self.path)
            return _leases(self.path.parent)[-1][1] == self.path
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the file server is away for a moment; silence has its timeout


class _Heart:
    """One thread that beats for all leases of this process; on losing one it ends the process."""

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
        with self._lock:  # so that no beat is under way on a lease that is given back
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
                    time.sleep(1)  # who creates a lease beside a living one steps back at once
                    if lease.beat():
                        continue
                    # Silent for too long, so another process trains this run now. Nothing may be
                    # written any more, not even a checkpoint.
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
        return None  # held, or given back while we looked: the next look finds it free
    path = directory / f"lease.{number + 1}"
    # Content first, name second: link() is exclusive, also on NFS, and never shows a half file.
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
    # If leases were cleared and begun anew between the look and the creation, two files can stand:
    # then both step back rather than both go on.
    for _, other in _leases(directory):
        if other != path and not _is_dead(other, timeout):
            path.unlink(missing_ok=True)
            return None
    return Lease(path, timeout)


def take_or_explain(directory: pathlib.Path, timeout: float = TIMEOUT) -> Lease | None:
    """The lease of `directory`; None if this thread holds it already.

    A holder on another machine that shows no sign of life is waited for until its lease expires: a
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
        held = _leases(directory)
        if held and (who := _read(held[-1][1])) is not None:
            with contextlib.suppress(FileNotFoundError):
                sign = (held[-1][0], held[-1][1].stat().st_mtime)
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
    held = _leases(directory)
    if not held or _is_dead(held[-1][1], timeout):
        return ""
    who = _read(held[-1][1]) or {}
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
    """Names this kernel's space of process numbers; containers of one host have their own."""
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
