"""The settings of glibc's malloc that decide the speed of JAX on a CPU.

XLA:CPU takes every temporary array from malloc, and glibc returns large ones to the kernel at once:
without the settings here page faults take up to half the time of a convolutional net. They are read
before main() runs, so a process must be started with them. The command line starts itself again; a
library cannot, so `tune_cpu()` prints what to export.

Importing this module imports no jax and changes nothing.
"""

import ctypes
import os
import platform
import sys

from aejax.machine.cpu import expects_accelerator

# Huge pages; no separate mapping per large array (below 8 GiB); return nothing (below 16 GiB);
# grow by 256 MiB at a time.
ALLOCATOR = {
    "glibc.malloc.hugetlb": 1,
    "glibc.malloc.mmap_threshold": 8 << 30,
    "glibc.malloc.trim_threshold": 16 << 30,
    "glibc.malloc.top_pad": 256 << 20,
}


def has_glibc() -> bool:
    """Whether malloc is glibc's."""
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def is_tuned() -> bool:
    """Whether this process was started with settings of glibc's malloc (ours or the user's)."""
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")


def environment() -> dict[str, str]:
    """What to export before the process starts, so that jax is fast on this machine's CPU.

    Empty where nothing helps: an accelerator, no glibc, or settings that are there already.
    """
    if not has_glibc() or expects_accelerator() or is_tuned():
        return {}
    ours = ":".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    other = os.environ.get("GLIBC_TUNABLES", "")
    return {"GLIBC_TUNABLES": f"{other}:{ours}" if other else ours}


def tune_cpu() -> dict[str, str]:
    """Prints, as shell commands, what `environment()` returns, and returns it.

    For programs that use aejax as a library: `python -c "import aejax; aejax.tune_cpu()"`, then
    start the program with what it printed. Nothing of the running process is changed.
    """
    wanted = environment()
    for name, value in wanted.items():
        print(f"export {name}={value}")
    if not wanted:
        why = "set already" if is_tuned() else "not needed or not possible on this machine"
        print(f"# nothing to export: {why}")
    return wanted


def _is_the_command_line() -> bool:
    """Whether this process is `aejax ...` or `python -m aejax ...`, not a host of our main()."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name.split(".")[0] == "aejax":
        return True
    return os.path.basename(sys.argv[0]) in ("aejax", "aejax.exe")


def reexec_if_useful() -> None:
    """Starts the command line again, once, with `environment()`; returns where it would not help.

    Call it before jax is imported. AEJAX_NO_REEXEC=1 forbids it; AEJAX_REEXEC marks a process
    that was started again, so that a system which drops GLIBC_TUNABLES (set-uid programs) does not
    loop.
    """
    if os.environ.get("AEJAX_NO_REEXEC", "0") not in ("", "0") or "AEJAX_REEXEC" in os.environ:
        return
    if "jax" in sys.modules or sys.gettrace() is not None or not _is_the_command_line():
        return
    wanted = environment()
    if not wanted:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, **wanted, "AEJAX_REEXEC": "1"},
        )
    except OSError:
        pass  # no permission to exec: slower, not wrong


def release_memory() -> None:
    """Returns free memory to the system, between the tiles of a large image or the runs of a study:
    glibc's malloc, set for speed, never does so by itself."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        pass  # another libc
