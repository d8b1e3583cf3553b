"""The processes of a run: joining them, their number and index, barriers."""

import os
import sys
from typing import Any

import jax

from aejax.cluster.detect import TIMEOUT, Cluster, detect
from aejax.cluster.missing import HostsMissing, roll_call

_hosts: tuple[str, ...] = ()  # the host of each process, from the roll call
_barriers: dict[str, int] = {}  # name -> number of its last use: JAX allows a barrier id only once


def initialise(timeout: float | None = None) -> Cluster | None:
    """Joins the cluster that `detect` finds, if any; to be called before any other function of JAX.

    Args:
      timeout: seconds for all processes to connect; default AEJAX_CLUSTER_TIMEOUT or 300.

    Returns:
      The cluster; None for a single process, or if it was joined before.

    Raises:
      HostsMissing: some processes did not connect; the message names them.
      UserError: the environment variables contradict each other.
    """
    global _hosts
    if client() is not None:
        return None
    if timeout is None:
        timeout = float(os.environ.get("AEJAX_CLUSTER_TIMEOUT", TIMEOUT))
    cluster = detect(timeout=timeout)
    if cluster is None or cluster.processes == 1:
        return None
    _hosts = roll_call(cluster, timeout)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.processes,
        cluster.process,
        local_device_ids=cluster.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=max(60, int(timeout)),
    )
    if cluster.process == 0:
        places = ", ".join(f"{i} {h}" for i, h in list(enumerate(_hosts))[:16])
        print(
            f"{cluster.kind}: {cluster.processes} processes on {len(set(_hosts))} hosts: {places}"
            + (", ..." if len(_hosts) > 16 else ""),
            file=sys.stderr,
        )
    return cluster


def _state() -> Any:
    """JAX's state of the distributed processes. It is not public, but jax.process_index() would
    start a backend, and the key-value store has no public API. Only this function uses it."""
    from jax._src import distributed

    return distributed.global_state


def client() -> Any:
    """The coordinator's key-value store, which all processes share; None for a single process."""
    return _state().client


def coordinator() -> str:
    """The address of process 0, "host:port"."""
    return _state().coordinator_address


def index() -> int:
    """Which process this is, from 0. Unlike jax.process_index() it does not start a backend."""
    return _state().process_id or 0


def count() -> int:
    """How many processes there are."""
    return _state().num_processes or 1


def is_first() -> bool:
    """Whether this is the process that writes the files of a run."""
    return index() == 0


def named(i: int) -> str:
    """Process i for messages: "process 3 (tpu-w-3)"."""
    return f"process {i} ({_hosts[i]})" if i < len(_hosts) else f"process {i}"


def any_process(flag: bool) -> bool:
    """Whether `flag` is True in any process. All processes must call it; each waits for all."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    barrier("any_process")  # gloo alone waits for only 30 seconds
    return bool(multihost_utils.process_allgather(flag).any())


def barrier(name: str, timeout: float = 600.0) -> None:
    """Waits until all processes have called it with this name.

    Args:
      name: of the place in the program; it may be used many times.
      timeout: seconds.

    Raises:
      HostsMissing: some processes did not arrive in time; the message names them.
    """
    store = client()
    if store is None or count() == 1:
        return
    turn = _barriers[name] = _barriers.get(name, -1) + 1
    barrier_id = f"aejax/barrier/{name}/{turn}"
    store.key_value_set(f"{barrier_id}/{index()}", "")
    try:
        store.wait_at_barrier(barrier_id, int(timeout * 1000))
    except jax.errors.JaxRuntimeError as e:
        rows = store.key_value_dir_get(f"{barrier_id}/")
        arrived = {int(key.rsplit("/", 1)[1]) for key, _ in rows}
        missing = ", ".join(named(i) for i in range(count()) if i not in arrived)
        if not missing:
            raise HostsMissing(
                f'{named(index())} arrived at "{name}" after the others had stopped waiting'
            ) from e
        raise HostsMissing(
            f'{missing} did not arrive at "{name}" within {timeout:.0f} s while {named(index())} '
            "waited: it is slow, hangs or has died; look at its log"
        ) from e
