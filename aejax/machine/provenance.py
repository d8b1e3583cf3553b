"""The provenance of a result: command, versions, machine, date and revision of the code."""

import os
import pathlib
import platform
import subprocess
import sys
import time

import jax

from aejax.files import JsonObject
from aejax.machine import allocator, cache, cpu, speed


def provenance(command: str = "") -> JsonObject:
    """The provenance that is stored in result.json and provenance.json.

    Args:
      command: as the user typed it; default: sys.argv.
    """
    return {
        "command": command or " ".join(sys.argv),
        "versions": versions(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "git": revision(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {"python": platform.python_version()}
    for name in ("aejax", "jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "source"
    return installed


def machine() -> str:
    """Devices and CPU in one line."""
    kinds = {d.device_kind for d in jax.devices()}
    devices = f"{jax.device_count()} x {'/'.join(sorted(kinds))}"
    return f"{devices}, {os.cpu_count()} cores, {cpu.name()}"


def revision() -> str:
    """Git revision of the code, with "+" for uncommitted changes; "" outside a checkout."""
    package = pathlib.Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=package, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return run.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def describe() -> dict[str, str]:
    """The lines about the machine in `aejax info`: label -> text."""
    features = cpu.features()
    wide = [f for f in ("avx2", "avx512f", *cpu.BF16_FLAGS[::-1]) if f in features]
    if speed.bf16_gain() > 1:
        gflops = speed.measured()
        form = f"bfloat16 products {gflops['bf16']:.0f}, float32 {gflops['f32']:.0f} GFLOP/s"
    else:
        form = "cpu_f32 (no bfloat16 products)"
    malloc = "tuned (GLIBC_TUNABLES)" if allocator.is_tuned() else "as it is"
    if allocator.environment():
        malloc += "; aejax.tune_cpu() says what to export"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache.compilation_cache_folder()
    return {
        "cpu": cpu.name_and_cores(),
        "instructions": ", ".join(wide) or "unknown",
        "forms of ops": "plain (accelerator)" if cpu.expects_accelerator() else form,
        "allocator": malloc,
        "compiled programs": f"{folder} (may be removed)",
    }
