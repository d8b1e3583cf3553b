"""The settings of glibc's malloc that decide the speed of JAX on a CPU.

XLA:CPU allocates every temporary array by malloc, and glibc returns large ones to the kernel at
once. Without these settings page faults take up to half the time of a convolutional net. glibc
reads them before main() runs, so a process must be started with them: the command line restarts
itself; a library cannot, so `tune_cpu()` prints what to export.

Importing this module has no side effects and does not import jax.
"""

import ctypes
import os
import platform
import sys

from aejax.machine.cpu import expects_accelerator

# Huge pages; no separate mapping for arrays below 8 GiB; keep up to 16 GiB of free memory; grow by
# 256 MiB at a time.
ALLOCATOR = {
    "glibc.malloc.hugetlb": 1,
    "glibc.malloc.mmap_threshold": 8 << 30,
    "glibc.malloc.trim_threshold": 16 << 30,
    "glibc.malloc.top_pad": 256 << 20,
}


def has_glibc() -> bool:
    """Whether this system uses the malloc of glibc."""
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def is_tuned() -> bool:
    """Whether this process was started with settings of glibc's malloc, ours or the user's."""
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")


def environment() -> dict[str, str]:
    """The environment variables with which JAX is fast on this machine's CPU; they must be set
    before the process starts. Empty with an accelerator, without glibc, or if settings exist
    already."""
    if not has_glibc() or expects_accelerator() or is_tuned():
        return {}
    ours = ":".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    other = os.environ.get("GLIBC_TUNABLES", "")
    return {"GLIBC_TUNABLES": f"{other}:{ours}" if other else ours}


def tune_cpu() -> dict[str, str]:
    """Prints `environment()` as shell commands, and returns it.

    For programs that use aejax as a library: run `python -c "import aejax; aejax.tune_cpu()"`, then
    start the program with these variables. The running process is not changed.
    """
    settings = environment()
    for name, value in settings.items():
        print(f"export {name}={value}")
    if not settings:
        reason = "set already" if is_tuned() else "not needed or not possible on this machine"
        print(f"# nothing to export: {reason}")
    return settings


def _is_the_command_line() -> bool:
    """Whether this process is `aejax ...` or `python -m aejax ...`, not a program that calls
    main()."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name.split(".")[0] == "aejax":
        return True
    return os.path.basename(sys.argv[0]) in ("aejax", "aejax.exe")


def reexec_if_useful() -> None:
    """Restarts the command line once with `environment()`; returns if that would not help.

    To be called before jax is imported. AEJAX_NO_REEXEC=1 turns it off. AEJAX_REEXEC marks the
    restarted process, to avoid a loop where the system drops GLIBC_TUNABLES (set-uid programs).
    """
    if os.environ.get("AEJAX_NO_REEXEC", "0") not in ("", "0") or "AEJAX_REEXEC" in os.environ:
        return
    if "jax" in sys.modules or sys.gettrace() is not None or not _is_the_command_line():
        return
    settings = environment()
    if not settings:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, **settings, "AEJAX_REEXEC": "1"},
        )
    except OSError:
        pass  # no permission to exec: go on without the settings


def release_memory() -> None:
    """Returns free memory to the system; used between the tiles of a large image or the runs of a
    study, because malloc with the settings of this module keeps it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        pass  # not glibc
