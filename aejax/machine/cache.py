"""Folders of what can be made again, and jax's cache of compiled programs in one of them.

Importing this module imports no jax and changes nothing.
"""

import os
import pathlib
import sys

from aejax.machine import cpu


def cache_folder() -> pathlib.Path:
    """Where aejax keeps what can be made again: AEJAX_CACHE, else XDG's folder for caches."""
    asked = os.environ.get("AEJAX_CACHE")
    if asked:
        return pathlib.Path(asked).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base).expanduser() / "aejax"


def compilation_cache_folder() -> pathlib.Path:
    """Of compiled programs; one per kind of CPU, for a program holds that CPU's instructions."""
    return cache_folder() / f"xla-{cpu.identifier()}"


def compilation_cache() -> pathlib.Path | None:
    """Turns jax's persistent compilation cache on, unless the user has set it; returns its folder.

    A second start of the same program then compiles nothing. The folder may be removed at any
    time; AEJAX_NO_CACHE=1 leaves the cache off; JAX_COMPILATION_CACHE_DIR puts it elsewhere.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if os.environ.get("AEJAX_NO_CACHE", "0") not in ("", "0"):
        return None
    folder = compilation_cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    settings: dict[str, str | int | float] = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    if "jax" in sys.modules:
        for name, value in settings.items():
            sys.modules["jax"].config.update(name, value)
    else:  # jax reads them when it is imported: no import here
        os.environ.update({name.upper(): str(value) for name, value in settings.items()})
    return folder
