"""The CPU of this machine: name, cores and instruction sets; whether there is an accelerator.

Importing this module does not import jax.
"""

import functools
import glob
import hashlib
import importlib.util
import os
import pathlib
import platform
import sys

# Instruction sets for bfloat16 products.
BF16_FLAGS = ("amx_bf16", "avx512_bf16")


def expects_accelerator(dev: str = "/dev") -> bool:
    """Whether jax would find a GPU or TPU: according to JAX_PLATFORMS, else to device files in
    `dev`."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] != "cpu"
    names = ("nvidiactl", "nvidia0", "kfd", "accel0", "accel/accel0")
    return "TPU_NAME" in os.environ or any(os.path.exists(f"{dev}/{name}") for name in names)


def without_tpu(dev: str = "/dev", pci: str = "/sys/bus/pci/devices") -> dict[str, str]:
    """{"JAX_PLATFORMS": "cpu"} if libtpu is installed as a compiler (`aejax[aot]`) on a machine
    without TPU, where jax would print errors of libtpu; otherwise {}."""
    vendors = {f.read_text().strip() for f in pathlib.Path(pci).glob("*/vendor")}
    google = "0x1ae0" in vendors or glob.glob(f"{dev}/vfio/*")
    if "JAX_PLATFORMS" in os.environ or expects_accelerator(dev) or google:
        return {}
    return {"JAX_PLATFORMS": "cpu"} if importlib.util.find_spec("libtpu") else {}


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The entries of the first processor in /proc/cpuinfo; {} if there is no such file."""
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
    """The CPU flags as Linux spells them ("avx512f", "amx_bf16"); empty if unknown."""
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("features") or "").split())


def name() -> str:
    """The model name of the CPU, such as "AMD EPYC 9R14"."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def name_and_cores() -> str:
    """The model name of the CPU, and the number of cores that this process may use."""
    usable = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    return f"{name()}, {usable} cores"


def identifier() -> str:
    """Eight hex digits that identify the CPU model and its flags."""
    text = " ".join([platform.machine(), _cpuinfo().get("model name", ""), *sorted(features())])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
