"""Command, versions, machine: what makes a number worth citing."""

import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

import jax


def provenance(command: str = "") -> dict[str, Any]:
    """Command, versions, machine, date, git revision: what makes a number worth citing."""
    return {
        "command": command or " ".join(sys.argv),
        "versions": versions(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "git": revision(),
    }


def versions() -> dict[str, str]:
    """Python and the packages that decide a result."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("aejax", "jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found


def machine() -> str:
    """The devices and the processor, in one line."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    kinds = {d.device_kind for d in jax.devices()}
    devices = f"{jax.device_count()} x {'/'.join(sorted(kinds))}"
    return f"{devices}, {os.cpu_count()} cores, {cpu}"


def revision() -> str:
    """Git revision of the code, with + for uncommitted changes; '' outside a checkout."""
    here = pathlib.Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return run.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
