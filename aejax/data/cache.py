"""The cache folder, for decoded images and for scans of data sets. It may be deleted."""

import contextlib
import hashlib
import json
from collections.abc import Generator
from pathlib import Path

from aejax import files
from aejax.machine.cache import cache_folder

VERSION = "2"  # of the format; raise it when decoded pixels or their layout change


@contextlib.contextmanager
def remembered(name: str) -> Generator[dict]:
    """A dict that is stored as JSON in the cache folder: empty on the first call, then as the first
    caller filled it. If the folder cannot be written, it is empty on every call."""
    path = cache_folder() / f"{name}.json"
    try:
        memory = json.loads(path.read_text())
    except (OSError, ValueError):
        memory = {}
    was_stored = bool(memory)
    yield memory
    if not was_stored:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(path, json.dumps(memory))


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Holds an exclusive file lock, so that only one process of this machine decodes a set."""
    try:
        import fcntl
    except ImportError:  # not a Unix: both decode, and the later file replaces the other
        yield
        return
    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def hash_of(*parts) -> str:
    """The first 20 hex digits of the SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:20]
