"""The CPU of this machine: its name, cores and instructions; whether an accelerator is expected.

Importing this module imports no jax.
"""

import functools
import glob
import hashlib
import importlib.util
import os
import pathlib
import platform
import sys

# Flags of CPUs that multiply bfloat16 faster than float32.
BF16_FLAGS = ("amx_bf16", "avx512_bf16")


def expects_accelerator(dev: str = "/dev") -> bool:
    """Whether jax would find a GPU or TPU here: by JAX_PLATFORMS, else by the device files."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked.split(",")[0] != "cpu"
    names = ("nvidiactl", "nvidia0", "kfd", "accel0", "accel/accel0")
    return "TPU_NAME" in os.environ or any(os.path.exists(f"{dev}/{name}") for name in names)


def without_tpu(dev: str = "/dev", pci: str = "/sys/bus/pci/devices") -> dict[str, str]:
    """{"JAX_PLATFORMS": "cpu"} where libtpu is installed to compile with (`aejax[aot]`) and no TPU
    is there: jax would start libtpu, which fails and says so in six lines. Empty elsewhere."""
    vendors = {f.read_text().strip() for f in pathlib.Path(pci).glob("*/vendor")}
    google = "0x1ae0" in vendors or glob.glob(f"{dev}/vfio/*")
    if "JAX_PLATFORMS" in os.environ or expects_accelerator(dev) or google:
        return {}
    return {"JAX_PLATFORMS": "cpu"} if importlib.util.find_spec("libtpu") else {}


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo, {} where there is no such file."""
    entries = {}
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                name, _, value = line.partition(":")
                if not name.strip():
                    break
                entries[name.strip().lower()] = value.strip()
    except OSError:
        pass
    return entries


@functools.cache
def features() -> frozenset[str]:
    """The CPU's flags as Linux spells them ("avx512f", "amx_bf16"); empty where unknown."""
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("features") or "").split())


def name() -> str:
    """Such as "AMD EPYC 9R14"."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def name_and_cores() -> str:
    """The CPU's name, and how many cores this process may use."""
    usable = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    return f"{name()}, {usable} cores"


def identifier() -> str:
    """Eight hex digits that are the same for CPUs of one kind."""
    text = " ".join([platform.machine(), _cpuinfo().get("model name", ""), *sorted(features())])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
