"""Finds the cluster of this process by its environment, before processes connect."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from aejax.errors import UserError

TIMEOUT = 300.0  # seconds for all processes to connect; AEJAX_CLUSTER_TIMEOUT overrides it
PORT = 8476  # of the coordinator, if AEJAX_COORDINATOR has none


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run as the environment describes them.

    Attributes:
      kind: of the cluster, for messages: "SLURM", "GKE TPU", ...
      coordinator: "host:port" of process 0.
      processes: how many there are.
      process: which one this is, from 0.
      hosts: the host of each process; () = not known.
      local_devices: the host's accelerators that this process uses; None = all.
    """

    kind: str
    coordinator: str
    processes: int
    process: int
    hosts: tuple[str, ...] = ()
    local_devices: tuple[int, ...] | None = None


def detect(env: Mapping[str, str] = os.environ, timeout: float = TIMEOUT) -> Cluster | None:
    """The cluster this process was started in; None for a single process.

    It is looked for in this order: AEJAX_COORDINATOR or JAX_COORDINATOR_ADDRESS with NUM_PROCESSES
    and PROCESS_ID (with the prefix AEJAX_, JAX_ or none); SLURM, inside srun; TPU slices on GKE and
    on TPU VMs; OpenMPI. AEJAX_COORDINATOR=off turns all of it off.

    Args:
      timeout: seconds to wait for the address of the coordinator, where JAX looks it up.

    Raises:
      UserError: the variables are incomplete or contradict each other.

    Example:
      >>> env = {"AEJAX_COORDINATOR": "w0", "AEJAX_NUM_PROCESSES": "4", "AEJAX_PROCESS_ID": "1"}
      >>> detect(env).coordinator
      'w0:8476'
    """
    address = env.get("AEJAX_COORDINATOR") or env.get("JAX_COORDINATOR_ADDRESS")
    if address == "off":
        return None
    if address:
        return _explicit(address, env)
    if "SLURM_STEP_NODELIST" in env and "SLURM_PROCID" in env:  # only inside srun
        return _slurm(env)
    return _detected_by_jax(timeout)


def _explicit(address: str, env: Mapping[str, str]) -> Cluster:
    def number(name: str) -> int:
        for key in (f"AEJAX_{name}", f"JAX_{name}", name):
            if key in env:
                if re.fullmatch(r"\d+", env[key]):
                    return int(env[key])
                raise UserError(f"{key}={env[key]!r} is not a number")
        raise UserError(
            f"the coordinator {address} is set but AEJAX_{name} is not; set AEJAX_COORDINATOR, "
            "AEJAX_NUM_PROCESSES and AEJAX_PROCESS_ID together"
        )

    processes, process = number("NUM_PROCESSES"), number("PROCESS_ID")
    if not process < processes:
        raise UserError(f"AEJAX_PROCESS_ID={process} is not below AEJAX_NUM_PROCESSES={processes}")
    if not re.search(r":\d+$", address):
        address = f"{address}:{PORT}"
    ids = env.get("JAX_LOCAL_DEVICE_IDS")
    devices = tuple(int(i) for i in ids.split(",")) if ids else None
    return Cluster("AEJAX_COORDINATOR", address, processes, process, (), devices)


def _slurm(env: Mapping[str, str]) -> Cluster | None:
    processes = int(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS") or 1)
    if processes == 1:
        return None
    nodes = expand_nodelist(env["SLURM_STEP_NODELIST"])
    per_node = _tasks_per_node(env.get("SLURM_STEP_TASKS_PER_NODE", ""))
    hosts: tuple[str, ...] = ()
    if env.get("SLURM_DISTRIBUTION", "block").startswith("block") and len(per_node) == len(nodes):
        hosts = tuple(n for n, k in zip(nodes, per_node, strict=True) for _ in range(k))
    # The port depends on the job, so that two jobs on one node have different ones; as in JAX.
    port = env.get("JAX_COORDINATOR_PORT") or int(env["SLURM_JOB_ID"]) % 4096 + 61440
    process = int(env["SLURM_PROCID"])
    here = hosts.count(hosts[process]) if len(hosts) == processes else processes
    # A single process on a node uses all its GPUs (JAX's own detection takes only the first). With
    # --gpus-per-task each task sees its own GPU as number 0.
    visible = [d for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    local = None if here == 1 else (0 if len(visible) == 1 else int(env.get("SLURM_LOCALID", 0)),)
    return Cluster("SLURM", f"{nodes[0]}:{port}", processes, process, hosts, local)


def expand_nodelist(text: str) -> list[str]:
    """The hosts in a node list of SLURM.

    Example:
      >>> expand_nodelist("gpu[01-03,7],login")
      ['gpu01', 'gpu02', 'gpu03', 'gpu7', 'login']
    """
    names = []
    for prefix, inside, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\]([^,\[\]]*))?", text):
        if not inside:
            names.append(prefix)
            continue
        for part in inside.split(","):
            first, _, last = part.partition("-")
            for i in range(int(first), int(last or first) + 1):
                names.append(f"{prefix}{i:0{len(first)}d}{suffix}")
    return names


def _tasks_per_node(text: str) -> list[int]:
    """SLURM's "2(x3),1" as [2, 2, 2, 1]."""
    return [
        int(tasks)
        for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(times or 1))
    ]


def _detected_by_jax(timeout: float) -> Cluster | None:
    """TPU slices and OpenMPI by JAX's own detection. It has no public API, and letting JAX
    initialise by itself would skip the roll call. With a JAX that lacks these names nothing is
    detected."""
    try:
        from jax._src.clusters import ClusterEnv

        kinds = [c for c in ClusterEnv._cluster_types if c.name in ("gketpu", "gcetpu", "ompi")]
    except (ImportError, AttributeError):
        return None
    engine: Any = next((kind for kind in kinds if kind.is_env_present()), None)
    if engine is None:
        return None
    processes = engine.get_process_count()
    if processes == 1:
        return None
    hosts: tuple[str, ...] = ()
    with contextlib.suppress(Exception):  # names are for messages only
        slice_hosts = tuple(str(h).split(":")[0] for h in engine._get_worker_list_in_slice())
        hosts = slice_hosts if len(slice_hosts) == processes else ()
    address = engine.get_coordinator_address(
        timeout_secs=int(timeout), override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT")
    )
    kind = {"gketpu": "GKE TPU", "gcetpu": "TPU VM", "ompi": "OpenMPI"}[engine.name]
    local = None if "tpu" in engine.name else engine.get_local_process_id()
    devices = None if local is None else (local,)
    return Cluster(kind, address, processes, engine.get_process_id(), hosts, devices)
