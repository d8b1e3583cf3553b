"""The cache folder: what was decoded or scanned once is kept there, and may be deleted."""

import contextlib
import hashlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from aejax import files

VERSION = "2"  # of what is kept: raise it when a decoded pixel, or its form, may change


def cache_dir() -> Path:
    """Where decoded copies are kept: AEJAX_CACHE, else aejax in the user's cache folder. All in it
    may be deleted at any time that no run is using it."""
    if os.environ.get("AEJAX_CACHE"):
        return Path(os.environ["AEJAX_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aejax"


@contextlib.contextmanager
def remembered(name: str) -> Generator[dict]:
    """A dict kept in the cache folder; a folder that cannot be written only forgets."""
    path = cache_dir() / f"{name}.json"
    try:
        memory = json.loads(path.read_text())
    except (OSError, ValueError):
        memory = {}
    known = bool(memory)
    yield memory
    if not known:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(path, json.dumps(memory))


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Of two processes of one machine one decodes and the other waits for it."""
    try:
        import fcntl
    except ImportError:  # not a Unix: both decode, the last one's file stays
        yield
        return
    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def hash_of(*parts) -> str:
    """20 hex digits that differ whenever a part, as JSON, does."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:20]
