"""The processes of a run: which one this is, how many there are, and where they wait."""

import os
import sys
from typing import Any

import jax

from aejax.cluster.detect import TIMEOUT, Cluster, detect
from aejax.cluster.missing import HostsMissing, roll_call

_hosts: tuple[str, ...] = ()  # of each process, from the roll call
_barriers: dict[str, int] = {}  # how often each name was used: JAX allows each id once


def initialise(timeout: float | None = None) -> Cluster | None:
    """Joins the cluster that the environment shows, if any; before any other call into JAX.

    Args:
      timeout: seconds for all processes to come; default AEJAX_CLUSTER_TIMEOUT or 300.

    Returns:
      The cluster, or None for a process on its own. A second call changes nothing.

    Raises:
      HostsMissing: some did not come; they are named.
      UserError: the environment is contradictory.
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
    """JAX's own record of the processes. It has no public name; jax.process_index() would start a
    backend, and nothing public gives the key-value store. This is the only place that knows it."""
    from jax._src import distributed

    return distributed.global_state


def client() -> Any:
    """The coordinator's key-value store, which all processes share; None for a process alone."""
    return _state().client


def coordinator() -> str:
    """ "host:port" of process 0."""
    return _state().coordinator_address


def index() -> int:
    """Which process this is, from 0. Unlike jax.process_index() it does not start a backend."""
    return _state().process_id or 0


def count() -> int:
    """How many there are."""
    return _state().num_processes or 1


def is_first() -> bool:
    """Whether this is the process that writes the files of a run."""
    return index() == 0


def named(i: int) -> str:
    """ "process 3 (tpu-w-3)", for messages."""
    return f"process {i} ({_hosts[i]})" if i < len(_hosts) else f"process {i}"


def any_process(flag: bool) -> bool:
    """Whether it is True in any process; each waits for all."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    barrier("any_process")  # Gloo alone would give up on the others after 30 seconds
    return bool(multihost_utils.process_allgather(flag).any())


def barrier(name: str, timeout: float = 600.0) -> None:
    """Waits until every process has come here.

    Args:
      name: of the place in the program; a name can be used again and again.
      timeout: seconds.

    Raises:
      HostsMissing: some did not come in time; they are named, to all who wait.
    """
    store = client()
    if store is None or count() == 1:
        return
    turn = _barriers[name] = _barriers.get(name, -1) + 1
    place = f"aejax/barrier/{name}/{turn}"
    store.key_value_set(f"{place}/{index()}", "")
    try:
        store.wait_at_barrier(place, int(timeout * 1000))
    except jax.errors.JaxRuntimeError as e:
        came = {int(k.rsplit("/", 1)[1]) for k, _ in store.key_value_dir_get(f"{place}/")}
        missing = ", ".join(named(i) for i in range(count()) if i not in came)
        if not missing:
            raise HostsMissing(
                f'{named(index())} came to "{name}" after the others had given up waiting'
            ) from e
        raise HostsMissing(
            f'{missing} did not come to "{name}" within {timeout:.0f} s while {named(index())} '
            "waited; slow, hung or dead: look at its log"
        ) from e
