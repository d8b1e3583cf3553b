"""Many processes as one program: who takes part, where they meet, and who is missing.

Every process of a run (one per host of a TPU slice, one per task of `srun`) starts the same
command. `initialise()` sees from the environment whether there are others and, before JAX connects
them, holds a roll call on the coordinator's port: `jax.distributed.initialize` alone ends a
process with a C++ stack trace when a host does not come, and does not say which. After it,
`process()`, `processes()` and `barrier()` are all that the rest of the package needs; on one
process they cost nothing.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
import socket
import statistics
import sys
import threading
import time
from collections.abc import Mapping

import jax

from aejax.errors import SavedAndStopped, UserError

TIMEOUT = 300.0  # seconds for all hosts to come; AEJAX_CLUSTER_TIMEOUT overrides
PORT = 8476  # of the coordinator, if AEJAX_COORDINATOR names none


class HostsMissing(SavedAndStopped):
    """Other processes did not come or went silent. Nothing is lost: exit status 75, try again."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What the environment says before anyone has spoken to anyone.

    Attributes:
      kind: who told us, for messages: "SLURM", "GKE TPU", ...
      coordinator: "host:port" of process 0.
      processes: how many there are.
      process: which one this is, from 0.
      hosts: the host of each process where the engine tells, else ().
      local_devices: which of the host's accelerators are this process's; None = all.
    """

    kind: str
    coordinator: str
    processes: int
    process: int
    hosts: tuple[str, ...] = ()
    local_devices: tuple[int, ...] | None = None


_hosts: tuple[str, ...] = ()  # of each process, as told in the roll call
_barriers: dict[str, int] = {}  # how often each name was used: JAX allows each id once


# --- what the environment shows -------------------------------------------------------------------


def detect(env: Mapping[str, str] = os.environ, timeout: float = TIMEOUT) -> Cluster | None:
    """The cluster this process was started in, or None for a process on its own.

    Looked at in this order: AEJAX_COORDINATOR or JAX_COORDINATOR_ADDRESS with NUM_PROCESSES and
    PROCESS_ID (plain, or with AEJAX_ or JAX_ before); SLURM, inside srun; TPU slices on GKE and on
    TPU VMs; OpenMPI. AEJAX_COORDINATOR=off looks at nothing.

    Raises:
      UserError: the variables contradict each other.
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
            f"the coordinator {address} is set but not AEJAX_{name}; set AEJAX_COORDINATOR, "
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
    # The port is a function of the job, so that two jobs on one node do not meet; JAX's own range.
    port = env.get("JAX_COORDINATOR_PORT") or int(env["SLURM_JOB_ID"]) % 4096 + 61440
    process = int(env["SLURM_PROCID"])
    here = hosts.count(hosts[process]) if len(hosts) == processes else processes
    # One process per node owns all its GPUs (JAX's detection would take the first one only); with
    # --gpus-per-task SLURM shows each task its own GPU as number 0.
    visible = [d for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    local = None if here == 1 else (0 if len(visible) == 1 else int(env.get("SLURM_LOCALID", 0)),)
    return Cluster("SLURM", f"{nodes[0]}:{port}", processes, process, hosts, local)


def expand_nodelist(text: str) -> list[str]:
    """SLURM's "gpu[01-03,7],login" -> ["gpu01", "gpu02", "gpu03", "gpu7", "login"]."""
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
    """SLURM's "2(x3),1" -> [2, 2, 2, 1]."""
    return [
        int(tasks)
        for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(times or 1))
    ]


def _detected_by_jax(timeout: float) -> Cluster | None:
    """TPU slices and OpenMPI by JAX's own rules. They are not public: without them, None."""
    try:
        from jax._src.clusters import ClusterEnv

        known = [c for c in ClusterEnv._cluster_types if c.name in ("gketpu", "gcetpu", "ompi")]
    except (ImportError, AttributeError):
        return None
    for found in known:
        if found.is_env_present():
            break
    else:
        return None
    processes = found.get_process_count()
    if processes == 1:
        return None
    hosts: tuple[str, ...] = ()
    with contextlib.suppress(Exception):  # names are for messages only
        slice_hosts = tuple(str(h).split(":")[0] for h in found._get_worker_list_in_slice())
        hosts = slice_hosts if len(slice_hosts) == processes else ()
    address = found.get_coordinator_address(
        timeout_secs=int(timeout), override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT")
    )
    kind = {"gketpu": "GKE TPU", "gcetpu": "TPU VM", "ompi": "OpenMPI"}[found.name]
    local = None if "tpu" in found.name else found.get_local_process_id()
    devices = None if local is None else (local,)
    return Cluster(kind, address, processes, found.get_process_id(), hosts, devices)


# --- the roll call --------------------------------------------------------------------------------


def roll_call(cluster: Cluster, timeout: float) -> tuple[str, ...]:
    """Meets the other processes on the coordinator's port, before JAX uses it.

    Returns:
      The host name of each process.

    Raises:
      HostsMissing: some did not come within `timeout` seconds; they are named, to all who came.
      UserError: two processes are the same one, or they do not agree on their number or on JAX.
    """
    host, _, port = cluster.coordinator.rpartition(":")
    me = {
        "process": cluster.process,
        "processes": cluster.processes,
        "host": socket.gethostname(),
        "jax": jax.__version__,
        "aejax": _version(),
    }
    if cluster.process == 0:
        answer = _call(int(port), me, cluster, timeout)
    else:
        answer = _answer(host.strip("[]"), int(port), me, timeout)
    if "fault" in answer:
        raise UserError(answer["fault"])
    if "missing" in answer:
        raise HostsMissing(answer["missing"])
    return tuple(answer["hosts"])


def _version() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("aejax")
    return "?"


def _call(port: int, me: dict, cluster: Cluster, timeout: float) -> dict:
    """Process 0: listens until all have come, then tells all of them the same answer."""
    end = time.monotonic() + timeout
    present: dict[int, tuple[dict, socket.socket]] = {0: (me, None)}
    answer: dict = {}
    with _listen(port, end) as server:
        while not answer and len(_still_there(present)) < cluster.processes:
            server.settimeout(max(0.01, min(1.0, end - time.monotonic())))
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                hello = _read(connection, 5.0)
                if "process" not in hello:  # a port scanner, not one of us
                    connection.close()
                    continue
                fault = _disagreement(me, hello, _still_there(present))
                answer = {"fault": fault} if fault else {}
                present[hello["process"] if not fault else -1] = (hello, connection)
            if not answer and time.monotonic() > end:
                answer = {"missing": _missing(cluster, present, timeout)}
        if not answer:
            answer = {"hosts": [present[i][0]["host"] for i in range(cluster.processes)]}
        # They close first: else the port stays in TIME_WAIT on this side, and JAX needs it now.
        others = [c for _, c in present.values() if c is not None]
        for connection in others:
            connection.settimeout(5.0)  # `_open` left it without waiting
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(answer).encode() + b"\n")
        for connection in others:
            with contextlib.suppress(OSError):
                connection.recv(1)
            connection.close()
    return answer


def _listen(port: int, end: float) -> socket.socket:
    """A listening socket on `port` of all addresses; waits for an earlier run to let go of it."""
    six = socket.has_dualstack_ipv6()
    while True:
        try:
            return socket.create_server(
                ("", port),
                family=socket.AF_INET6 if six else socket.AF_INET,
                dualstack_ipv6=six,
                backlog=1024,
            )
        except OSError as e:
            if time.monotonic() > end:
                raise HostsMissing(
                    f"port {port} of {socket.gethostname()} is taken ({e.strerror}), by another "
                    "run on this host?; JAX_COORDINATOR_PORT chooses another"
                ) from e
            time.sleep(0.5)


def _answer(host: str, port: int, me: dict, timeout: float) -> dict:
    """Any other process: reports to process 0 and waits for its word."""
    end = time.monotonic() + timeout
    why = "no answer"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(5.0, left)) as connection:
                connection.sendall(json.dumps(me).encode() + b"\n")
                # Process 0 speaks when it gives up; some seconds more, for it may have come later.
                answer = _read(connection, left + 10.0)
                if answer:
                    return answer
                why = "something else answers there: an earlier run that has not ended?"
        except OSError as e:
            why = e.strerror or str(e) or "no answer"
        time.sleep(0.3)
    return {
        "missing": f"process {me['process']} on {me['host']} did not reach process 0 at "
        f"{host}:{port} within {timeout:.0f} s ({why}); is that host up and the port open?"
    }


def _read(connection: socket.socket, timeout: float) -> dict:
    """One line of JSON; {} for anything else."""
    connection.settimeout(timeout)
    data = b""
    while not data.endswith(b"\n") and len(data) < 1 << 20:
        try:
            more = connection.recv(65536)
        except TimeoutError:
            return {}
        if not more:
            break
        data += more
    with contextlib.suppress(ValueError):
        said = json.loads(data)
        return said if isinstance(said, dict) else {}
    return {}


def _disagreement(me: dict, hello: dict, present: dict) -> str:
    """Why `hello` cannot be one of us: one line; "" if it can."""
    who = f"process {hello['process']} on {hello.get('host')}"
    if hello.get("processes") != me["processes"]:
        return (
            f"{who} expects {hello.get('processes')} processes, process 0 on {me['host']} expects "
            f"{me['processes']}; start all with the same AEJAX_NUM_PROCESSES"
        )
    for package in ("jax", "aejax"):
        if hello.get(package) != me[package]:
            return (
                f"{who} has {package} {hello.get(package)}, process 0 on {me['host']} has "
                f"{me[package]}; install the same version on every host"
            )
    same = present.get(hello["process"])
    if same is not None:
        return f"{who}: so says one on {same[0]['host']} too; give each its own AEJAX_PROCESS_ID"
    return ""


def _still_there(present: dict) -> dict:
    """`present` without those that ended meanwhile: one that was started again comes twice."""
    for process, (_, connection) in list(present.items()):
        if connection is not None and not _open(connection):
            connection.close()
            del present[process]
    return present


def _open(connection: socket.socket) -> bool:
    """Whether the other end still waits for our answer (it sends nothing after its hello)."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _missing(cluster: Cluster, present: dict, timeout: float) -> str:
    missing = [i for i in range(cluster.processes) if i not in present]
    named = [f"{i} ({cluster.hosts[i]})" if cluster.hosts else str(i) for i in missing[:32]]
    more = f" and {len(missing) - 32} more" if len(missing) > 32 else ""
    return (
        f"{len(missing)} of {cluster.processes} processes did not come within {timeout:.0f} s: "
        f"{', '.join(named)}{more}; look at their logs, then start again"
    )


# --- what the package calls -----------------------------------------------------------------------


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
    if _client() is not None:
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


def _client():
    from jax._src import distributed  # the key-value store has no public name

    return distributed.global_state.client


def process() -> int:
    """Which process this is. Unlike jax.process_index() it does not start a backend."""
    from jax._src import distributed

    return distributed.global_state.process_id or 0


def processes() -> int:
    """How many there are."""
    from jax._src import distributed

    return distributed.global_state.num_processes or 1


def is_first() -> bool:
    """Whether this is the process that writes what all share."""
    return process() == 0


def named(i: int) -> str:
    """'process 3 (tpu-w-3)', for messages."""
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
    client = _client()
    if client is None or processes() == 1:
        return
    turn = _barriers[name] = _barriers.get(name, -1) + 1
    place = f"aejax/barrier/{name}/{turn}"
    client.key_value_set(f"{place}/{process()}", "")
    try:
        client.wait_at_barrier(place, int(timeout * 1000))
    except jax.errors.JaxRuntimeError as e:
        came = {int(k.rsplit("/", 1)[1]) for k, _ in client.key_value_dir_get(f"{place}/")}
        missing = ", ".join(named(i) for i in range(processes()) if i not in came)
        if not missing:
            raise HostsMissing(
                f'{named(process())} came to "{name}" after the others had given up waiting'
            ) from e
        raise HostsMissing(
            f'{missing} did not come to "{name}" within {timeout:.0f} s while {named(process())} '
            "waited; slow, hung or dead: look at its log"
        ) from e


class Watch:
    """Names the host that is slow or gives no sign, while the others wait for it in a collective.

    Each process calls `note` once per dispatch; a thread passes it on through the coordinator
    every `every` seconds, and looks at the others' signs: process 0 says what is new, and where one
    is lost all the others end with status 75, before JAX's own heartbeat (100 s) aborts them with a
    stack trace. On one process it does nothing.
    """

    def __init__(
        self,
        every: float = 10.0,
        silent: float = 60.0,
        slow: float = 2.0,
        say=None,
        lost: float = 70.0,
    ):
        """Args:
        every: seconds between two reports.
        silent: seconds without a new step after which the ones behind are named.
        slow: named when its own work on a step takes so many times the median host's.
        say: takes the warning, one line; default stderr.
        lost: seconds without a sign of life after which a process counts as lost.
        """
        self.every, self.silent, self.slow, self.lost = every, silent, slow, lost
        self.say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._now = {"step": -1, "seconds": 0.0, "sign": 0}
        self._noted: list[float] = []  # since the last report
        self._seen: dict[int, tuple[dict, float]] = {}
        self._said: set[str] = set()
        self._end = threading.Event()
        self._thread = None
        if _client() is not None and processes() > 1:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def note(self, step: int, seconds: float) -> None:
        """This process is at `step`; its own work (reading data, no waiting) took `seconds`."""
        if self._thread is not None:
            self._step = int(step)
            self._noted.append(float(seconds))

    def close(self) -> None:
        """Ends the thread, and tells the others that this process's silence is no loss."""
        self._end.set()
        if self._thread is None:
            return
        self._thread.join()
        with contextlib.suppress(jax.errors.JaxRuntimeError, RuntimeError):
            _client().key_value_set(
                f"aejax/watch/{process()}",
                json.dumps(self._now | {"ended": True}),
                allow_overwrite=True,
            )

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _run(self) -> None:
        client = _client()
        while not self._end.wait(self.every):
            noted, self._noted = self._noted, []
            if noted:  # the mean: one late batch is nobody's fault
                self._now |= {"step": self._step, "seconds": statistics.fmean(noted)}
            self._now["sign"] += 1
            try:
                client.key_value_set(
                    f"aejax/watch/{process()}", json.dumps(self._now), allow_overwrite=True
                )
                said = client.key_value_dir_get("aejax/watch/")
            except (jax.errors.JaxRuntimeError, RuntimeError):
                return  # the coordinator is gone: the program is ending, and JAX says why
            reports = {int(k.rsplit("/", 1)[1]): json.loads(v) for k, v in said}
            now = time.monotonic()
            lines = self.compare(reports, now)
            for line in lines if process() == 0 else ():
                self.say(line)
            if gone := self.gone(now):
                self.say(
                    f"lost: {', '.join(map(named, gone))}, no sign for {self.lost:.0f} s; this "
                    "process ends too, with status 75: the same command goes on from the last "
                    "checkpoint"
                )
                os._exit(75)  # the main thread waits in a collective that never ends

    def gone(self, now: float) -> list[int]:
        """The other processes that are lost: silent for too long, and not at their end."""
        return [
            i
            for i, (report, signed, _) in self._seen.items()
            if i != process() and now - signed > self.lost and not report.get("ended")
        ]

    def compare(self, reports: dict[int, dict], now: float) -> list[str]:
        """New warnings.

        Args:
          reports: of each process its latest step, seconds per step and count of signs of life.
          now: seconds, of any clock.
        """
        for i, report in reports.items():
            before = self._seen.get(i)
            if before is None or before[0] != report:
                moved = now if before is None or before[0]["step"] != report["step"] else before[2]
                self._seen[i] = (report, now, moved)
        lines = {}
        for i, (_, signed, _) in self._seen.items():
            if now - signed > self.silent:
                lines[f"silent {i}"] = (
                    f"{named(i)} has given no sign for {now - signed:.0f} s: dead or cut off"
                )
        steps = {i: r["step"] for i, (r, _, _) in self._seen.items()}
        still = min((now - moved for _, _, moved in self._seen.values()), default=0.0)
        behind = [i for i, s in steps.items() if s < max(steps.values())]
        if still > self.silent and behind:
            lines[f"behind {behind}"] = (
                f"no step for {still:.0f} s: all wait for "
                f"{', '.join(f'{named(i)} at step {steps[i]}' for i in behind)}, "
                f"the others are at {max(steps.values())}"
            )
        seconds = {i: r["seconds"] for i, (r, _, _) in self._seen.items() if r["step"] >= 0}
        if len(seconds) > 1:
            usual = statistics.median_low(seconds.values())  # of two, the quick one
            for i, s in seconds.items():
                # 10 ms: below it, a ratio is noise and nobody waits for it.
                if s > self.slow * usual and s > 0.01:
                    lines[f"slow {i}"] = (
                        f"{named(i)} needs {s:.2f} s of its own per step where the others need "
                        f"{usual:.2f} s: everyone waits for it"
                    )
        new = [line for what, line in lines.items() if what not in self._said]
        self._said = set(lines)
        return new
