"""The cache folder, and in it JAX's persistent cache of compiled programs.

Importing this module has no side effects and does not import jax.
"""

import os
import pathlib
import sys

from aejax.machine import cpu


def cache_folder() -> pathlib.Path:
    """The cache folder: AEJAX_CACHE, else "aejax" in the user's cache folder."""
    if folder := os.environ.get("AEJAX_CACHE"):
        return pathlib.Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base).expanduser() / "aejax"


def compilation_cache_folder() -> pathlib.Path:
    """The folder of compiled programs; one per CPU model, because they contain its instructions."""
    return cache_folder() / f"xla-{cpu.identifier()}"


def compilation_cache() -> pathlib.Path | None:
    """Turns on JAX's persistent compilation cache, unless the user has set it.

    A second run of the same program then compiles nothing. The folder may be deleted at any time.
    AEJAX_NO_CACHE=1 leaves the cache off; JAX_COMPILATION_CACHE_DIR sets another folder.

    Returns:
      the folder of the cache; None if it is off or the folder cannot be written.
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
    else:  # read when jax is imported
        os.environ.update({name.upper(): str(value) for name, value in settings.items()})
    return folder
