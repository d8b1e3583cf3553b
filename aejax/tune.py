"""The process environment that decides the speed of JAX on a CPU, and what the CPU can do.

XLA:CPU takes every temporary array from malloc, and glibc gives large ones back to the kernel at
once: without the settings here page faults eat up to half the time of a convolutional net. They
are read before main() runs, so a process that is to have them must be started with them. The
command line starts itself again; a library cannot, so `tune_cpu()` says what to export.

Importing this module imports no jax and changes nothing.
"""

import functools
import glob
import hashlib
import importlib.util
import json
import os
import pathlib
import platform
import sys
import time
from typing import Any

from aejax import files

# Huge pages; no separate mapping per large array (below 8 GiB); give nothing back (below 16 GiB);
# grow by 256 MiB at a time.
ALLOCATOR = {
    "glibc.malloc.hugetlb": 1,
    "glibc.malloc.mmap_threshold": 8 << 30,
    "glibc.malloc.trim_threshold": 16 << 30,
    "glibc.malloc.top_pad": 256 << 20,
}
PCI = "/sys/bus/pci/devices"
# Flags of CPUs that multiply bfloat16 faster than float32.
BF16_FLAGS = ("amx_bf16", "avx512_bf16")


# ---- allocator ----------------------------------------------------------------------------------


def _glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def expects_accelerator() -> bool:
    """Whether jax would find a GPU or TPU here: by JAX_PLATFORMS, else by the device files."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked.split(",")[0] != "cpu"
    files = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/accel/accel0")
    return any(map(os.path.exists, files)) or "TPU_NAME" in os.environ


def without_tpu() -> dict[str, str]:
    """{"JAX_PLATFORMS": "cpu"} where libtpu is installed to compile with (`aejax[aot]`) and no TPU
    is there: jax would start libtpu, which fails and says so in six lines. Empty elsewhere."""
    vendors = {f.read_text().strip() for f in pathlib.Path(PCI).glob("*/vendor")}
    google = "0x1ae0" in vendors or glob.glob("/dev/vfio/*")
    if "JAX_PLATFORMS" in os.environ or expects_accelerator() or google:
        return {}
    return {"JAX_PLATFORMS": "cpu"} if importlib.util.find_spec("libtpu") else {}


def allocator_tuned() -> bool:
    """Whether this process was started with settings of glibc's malloc (ours or the user's)."""
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")


def environment() -> dict[str, str]:
    """What to export before the process starts, so that jax is fast on this machine's CPU.

    Empty where nothing helps: an accelerator, no glibc, or settings that are there already.
    """
    if not _glibc() or expects_accelerator() or allocator_tuned():
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
        why = "set already" if allocator_tuned() else "not needed or not possible on this machine"
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
    """Starts the command line again, once, with `environment()`; returns where that is no use.

    Call it before jax is imported. AEJAX_NO_REEXEC=1 forbids it; AEJAX_REEXEC marks that it was
    done, so that a system which drops GLIBC_TUNABLES (set-uid programs) does not loop.
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


def give_back() -> None:
    """Hands memory that is free to the system, between the tiles of a large image or the runs of a
    study: glibc's malloc, set for speed, never does by itself."""
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        pass  # another libc


# ---- caches -------------------------------------------------------------------------------------


def cache_folder() -> pathlib.Path:
    """Where aejax keeps what can be made again: AEJAX_CACHE, else XDG's folder for caches."""
    asked = os.environ.get("AEJAX_CACHE")
    if asked:
        return pathlib.Path(asked).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base).expanduser() / "aejax"


def compilation_cache_folder() -> pathlib.Path:
    """Of compiled programs; one per kind of CPU, for a program holds that CPU's instructions."""
    return cache_folder() / f"xla-{_cpu_id()}"


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
    settings: dict[str, Any] = {
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


# ---- the CPU ------------------------------------------------------------------------------------


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo, {} where there is no such file."""
    found = {}
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                name, _, value = line.partition(":")
                if not name.strip():
                    break
                found[name.strip().lower()] = value.strip()
    except OSError:
        pass
    return found


@functools.cache
def cpu_features() -> frozenset[str]:
    """The CPU's flags as Linux spells them ("avx512f", "amx_bf16"); empty where unknown."""
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("features") or "").split())


def cpu_model() -> str:
    """The CPU's name, and how many cores this process may use."""
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    usable = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    return f"{name}, {usable} cores"


def _cpu_id() -> str:
    text = " ".join([platform.machine(), _cpuinfo().get("model name", ""), *sorted(cpu_features())])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def bf16_gain() -> float:
    """How many times faster than in float32 products in bfloat16 are here: flags first (1 without),
    then one timing.

    The timing takes a quarter of a second, once per kind of CPU and version of jax: it is kept in
    `cache_folder()`.
    """
    if not cpu_features() & set(BF16_FLAGS) or sys.platform != "linux":
        return 1.0
    speed = _measured()
    return speed["bf16"] / speed["f32"]


@functools.cache
def _measured() -> dict[str, float]:
    """GFLOP/s of a matrix product in float32 and bfloat16, from the disk if it is there."""
    import jax

    path = cache_folder() / f"speed-{_cpu_id()}-jax{jax.__version__}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        pass
    found = measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, json.dumps(found))
    except OSError:
        pass
    return found


def measure(n: int = 1024, repeats: int = 7) -> dict[str, float]:
    """{"f32": GFLOP/s, "bf16": GFLOP/s} of an n x n product on the CPU, the best of `repeats`.

    Safe to call while jax traces: a trace belongs to its thread, so this works in one of its own.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_measure, n, repeats).result()


def _measure(n: int, repeats: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    found = {}
    with jax.default_device(jax.devices("cpu")[0]):
        for name, dtype in (("f32", jnp.float32), ("bf16", jnp.bfloat16)):
            x = jnp.ones((n, n), dtype)
            f = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32))
            f(x, x).block_until_ready()
            best = float("inf")
            for _ in range(repeats):
                start = time.perf_counter()
                f(x, x).block_until_ready()
                best = min(best, time.perf_counter() - start)
            found[name] = round(2 * n**3 / best / 1e9, 1)
    return found


def describe() -> dict[str, str]:
    """What `aejax info` says of this: CPU, matrix units, forms, allocator, compilation cache."""
    wide = [f for f in ("avx2", "avx512f", *BF16_FLAGS[::-1]) if f in cpu_features()]
    if bf16_gain() > 1:
        speed = _measured()
        form = f"bfloat16 products {speed['bf16']:.0f}, float32 {speed['f32']:.0f} GFLOP/s"
    else:
        form = "cpu_f32 (no bfloat16 products)"
    if allocator_tuned():
        malloc = "tuned (GLIBC_TUNABLES)"
    else:
        malloc = "as it is" + ("; aejax.tune_cpu() says what to export" if environment() else "")
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or compilation_cache_folder()
    return {
        "cpu": cpu_model(),
        "instructions": ", ".join(wide) or "unknown",
        "forms of ops": "plain (accelerator)" if expects_accelerator() else form,
        "allocator": malloc,
        "compiled programs": f"{folder} (may be removed)",
    }
