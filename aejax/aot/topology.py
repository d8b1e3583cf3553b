"""TPU slices and GPU hosts by name, the published figures of their chips, and devices to compile
for."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aejax.errors import UserError
from aejax.registry import did_you_mean

if TYPE_CHECKING:
    import jax

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip.

    Attributes:
      hbm: bytes of memory.
      peak: dense bfloat16 FLOP/s.
      memory: memory bandwidth in bytes/s.
      links: bytes/s that a chip sends to its neighbours over all its links, in one direction.
      axes: of the torus; 1 = all chips of a host are connected by a switch.
      wrap: a side of the torus that is a multiple of it is a ring; any other is a line, on which
        collectives have half the rate.
      network: bytes/s of a host's network card, which joins slices.
      host: chips per host.
      devices: JAX devices per chip.
      source: address of the page that the figures are from.
    """

    hbm: int
    peak: float
    memory: float
    links: float
    axes: int
    wrap: int
    network: float
    host: int
    devices: int
    source: str


# Cloud TPU's pages give the bandwidth of links in both directions together; `links` is half of it.
# For v4 they give the all-reduce bandwidth of a pod: 1.1 PB/s, 270 GB/s per chip of 4,096.
_CLOUD = "https://cloud.google.com/tpu/docs/"
CHIPS = {
    "v4": Chip(32 * GIB, 275e12, 1200e9, 270e9, 3, 4, 12.5e9, 4, 2, _CLOUD + "v4"),
    "v5e": Chip(16 * GIB, 197e12, 819e9, 200e9, 2, 16, 12.5e9, 4, 1, _CLOUD + "v5e"),
    "v5p": Chip(95 * GIB, 459e12, 2765e9, 600e9, 3, 4, 25e9, 4, 1, _CLOUD + "v5p"),
    "v6e": Chip(32 * GIB, 918e12, 1638e9, 400e9, 2, 16, 50e9, 4, 1, _CLOUD + "v6e"),
    "tpu7x": Chip(192 * GIB, 2307e12, 7380e9, 600e9, 3, 4, 50e9, 4, 2, _CLOUD + "tpu7x"),
    "a100": Chip(80 * 10**9, 312e12, 2039e9, 300e9, 1, 1, 25e9, 8, 1,
                 "https://www.nvidia.com/en-us/data-center/a100/"),
    "h100": Chip(80 * 10**9, 989e12, 3350e9, 450e9, 1, 1, 50e9, 8, 1,
                 "https://www.nvidia.com/en-us/data-center/h100/"),
}  # fmt: skip

# Cloud TPU's accelerator types, such as v4-32: name -> (kind, what its number counts per chip).
_TYPES = {"v5litepod": ("v5e", 1), "v5e": ("v5e", 1), "v6e": ("v6e", 1), "v4": ("v4", 2),
          "v5p": ("v5p", 2), "v5": ("v5p", 2), "tpu7x": ("tpu7x", 2)}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Topology:
    """The chips that a program is compiled for.

    Attributes:
      kind: a key of CHIPS.
      shape: chips along each axis of a slice; of GPUs (hosts, cards per host).
      slices: how many slices, joined by the hosts' network.
    """

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The figures of its chips."""
        return CHIPS[self.kind]

    @property
    def is_gpu(self) -> bool:
        """Whether its chips are GPUs."""
        return self.chip.axes == 1

    @property
    def chips(self) -> int:
        """How many chips it has, in all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def hosts(self) -> int:
        """How many hosts it has, in all slices."""
        return max(1, self.chips // self.chip.host)

    @property
    def name(self) -> str:
        """The name that `parse` takes, without the number of slices."""
        sides = "x".join(map(str, self.shape))
        return f"gpu:{self.kind}:1x{sides}" if self.is_gpu else f"{self.kind}:{sides}"

    @property
    def links(self) -> float:
        """Bytes/s that a chip sends within a slice; sides that are no ring count half."""
        if self.is_gpu:
            return self.chip.links
        share = [1.0 if side % self.chip.wrap == 0 else 0.5 for side in self.shape if side > 1]
        return self.chip.links * sum(share) / self.chip.axes


def parse(name: str, slices: int = 1) -> Topology:
    """A topology by its name.

    Args:
      name: "v5e:4x4", "v5p:2x2x4" (chips); an accelerator type of Cloud TPU such as
        "v5litepod-16", "v4-32" (TensorCores: 16 chips), "v6e-16"; or "gpu:h100:1x2x8" (1 x hosts x
        cards).
      slices: how many such slices.

    Raises:
      UserError: there is no such kind or shape.

    Example:
      >>> parse("v5litepod-16")
      Topology(kind='v5e', shape=(4, 4), slices=1)
    """
    text = name.strip().lower()
    if match := re.fullmatch(r"gpu:(\w+):1x(\d+)x(\d+)", text):
        if match[1] not in CHIPS or CHIPS[match[1]].axes > 1:
            raise UserError(f'--topology {name}: no card "{match[1]}"; known: a100, h100')
        return Topology(match[1], (int(match[2]), int(match[3])), slices)
    if match := re.fullmatch(r"(\w+)-(\d+)", text):
        if match[1] not in _TYPES:
            raise UserError(f'--topology {name}: no accelerator type "{match[1]}"'
                            + did_you_mean(match[1], _TYPES))  # fmt: skip
        kind, each = _TYPES[match[1]]
        return Topology(kind, _sides(int(match[2]) // each, CHIPS[kind].axes), slices)
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    tpus = [kind for kind, chip in CHIPS.items() if chip.axes > 1]
    if not match or match[1] not in tpus:
        what = f'"{match[1]}"{did_you_mean(match[1], tpus)}' if match else "not KIND:AxB"
        raise UserError(f"--topology {name}: {what}; examples: v5e:4x4, v5litepod-16, v5p:2x2x4, "
                        "gpu:h100:1x2x8")  # fmt: skip
    shape = tuple(int(n) for n in match[2].split("x"))
    if len(shape) != CHIPS[match[1]].axes or 0 in shape:
        example = "4x4" if CHIPS[match[1]].axes == 2 else "2x2x4"
        raise UserError(f"--topology {name}: {match[1]} has {CHIPS[match[1]].axes} axes, such as "
                        f"{match[1]}:{example}")  # fmt: skip
    return Topology(match[1], shape, slices)


def _sides(chips: int, axes: int) -> tuple[int, ...]:
    """The shape of Cloud TPU's slice with `chips` chips: 16 is (4, 4), or (2, 2, 4) with 3 axes."""
    sides = [1] * axes
    while math.prod(sides) * 2 <= chips:
        sides[sides.index(min(sides))] *= 2
    return tuple(sorted(sides))


# What libtpu reads from the environment if there is no TPU. ALLOW_MULTIPLE_LIBTPU_LOAD lets two
# processes compile at the same time; they would wait for one lock file.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
}


def compiler(topology: Topology) -> tuple[str, str]:
    """(the module that compiles for it without a device, the extra of aejax that installs it)."""
    return ("jax_cuda13_plugin", "cuda") if topology.is_gpu else ("libtpu", "aot")


def require(module: str, extra: str, topology: Topology) -> None:
    """Says what to install where `module` is not.

    Raises:
      UserError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"--topology {topology.name} needs {module}, which compiles without a device: "
            f'pip install "aejax[{extra}]"'
        )


def devices(topology: Topology) -> Sequence["jax.Device"]:
    """JAX devices of the topology, for which programs can be compiled but not run.

    From then on this process itself uses its CPU only.

    Raises:
      UserError: the compiler for that platform is not installed, or does not know the slice.
    """
    module, extra = compiler(topology)
    require(module, extra, topology)
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")
    slice_options: dict[str, int] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        if topology.is_gpu:
            hosts, cards = topology.shape
            description = topologies.get_topology_desc(
                platform="cuda", topology_name="", topology=f"{topology.slices}x{hosts}x{cards}",
                target_config=gpu_description(topology.kind),
            )  # fmt: skip
        else:
            description = topologies.get_topology_desc(
                platform="tpu", topology_name=topology.name, **slice_options
            )
    except Exception as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"--topology {topology.name}: the compiler does not accept it: {reason}"
        ) from e
    return description.devices


def gpu_description(kind: str) -> str:
    """A description of the card for XLA's compiler (GpuTargetConfigProto as text), from NVIDIA's
    data sheets and the tables of compute capabilities in the CUDA programming guide."""
    chip, cores, clock, l2, shared = CHIPS[kind], *_GPU[kind][:4]
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared} threads_per_core_limit: 2048 core_count: {cores}
  fpus_per_core: {_GPU[kind][5]} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: {int(chip.memory)} l2_cache_size: {l2}
  clock_rate_ghz: {clock} device_memory_size: {chip.hbm}
  shared_memory_per_block_optin: {shared - 1024}
  cuda_compute_capability {{ major: {_GPU[kind][4]} }} registers_per_core_limit: 65536
  registers_per_block_limit: 65536 thread_dim_limit_x: 1024 thread_dim_limit_y: 1024
  thread_dim_limit_z: 64 runtime_version: "13.0.0" driver_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.12.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "NVIDIA {kind.upper()} 80GB"
"""


# Streaming multiprocessors, clock in GHz, bytes of L2 cache, bytes of shared memory per
# multiprocessor, compute capability, float32 units per multiprocessor.
_GPU = {"a100": (108, 1.41, 41943040, 167936, 8, 64), "h100": (132, 1.98, 52428800, 233472, 9, 128)}
