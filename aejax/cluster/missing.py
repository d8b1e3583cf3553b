"""The roll call: before JAX connects the processes, those that do not come are named.

`jax.distributed.initialize` alone ends a process with a C++ stack trace when a host is missing, and
does not say which. Here process 0 listens on the coordinator's port, the others report to it, and
all receive the same answer: the host of each process, or which ones are missing.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import socket
import time

import jax

from aejax.cluster.detect import Cluster
from aejax.errors import SavedAndStopped, UserError
from aejax.files import JsonObject


class HostsMissing(SavedAndStopped):
    """Other processes did not come or went silent. Nothing is lost: exit status 75, try again."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a process says of itself when it arrives, one line of JSON on the wire.

    Attributes:
      process: its number, from 0; processes: how many it expects.
      host: where it runs.
      jax, aejax: versions, which must be the same everywhere.
    """

    process: int
    processes: int
    host: str
    jax: str
    aejax: str

    @classmethod
    def of_this_process(cls, cluster: Cluster) -> "Report":
        version = "?"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version("aejax")
        host = socket.gethostname()
        return cls(cluster.process, cluster.processes, host, jax.__version__, version)

    @classmethod
    def from_json(cls, values: JsonObject) -> "Report | None":
        """None for anything that no process of aejax sends, such as a port scanner's line."""
        try:
            return cls(**values)
        except TypeError:
            return None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What process 0 tells everyone: the hosts, or one line that says why it failed."""

    hosts: tuple[str, ...] = ()
    fault: str = ""  # the user's error: versions or numbers contradict each other
    missing: str = ""  # who did not come


# Of a process that has arrived: its report and, but for process 0, the connection that it waits on.
Arrival = tuple[Report, socket.socket | None]


def roll_call(cluster: Cluster, timeout: float) -> tuple[str, ...]:
    """Meets the other processes on the coordinator's port, before JAX uses it.

    Args:
      timeout: seconds.

    Returns:
      The host name of each process.

    Raises:
      HostsMissing: some did not come within `timeout` seconds; they are named, to all who came.
      UserError: two processes have one number, or they differ in how many they expect or in JAX.
    """
    host, _, port = cluster.coordinator.rpartition(":")
    mine = Report.of_this_process(cluster)
    if cluster.process == 0:
        answer = _collect_reports(int(port), mine, cluster, timeout)
    else:
        answer = _report_to_coordinator(host.strip("[]"), int(port), mine, timeout)
    if answer.fault:
        raise UserError(answer.fault)
    if answer.missing:
        raise HostsMissing(answer.missing)
    return answer.hosts


def _collect_reports(port: int, mine: Report, cluster: Cluster, timeout: float) -> Answer:
    """Process 0: listens until all have come, then tells all of them the same answer."""
    end = time.monotonic() + timeout
    present: dict[int, Arrival] = {0: (mine, None)}
    refused: list[socket.socket] = []
    answer = None
    with _listen(port, end) as server:
        while answer is None and len(_still_waiting(present)) < cluster.processes:
            server.settimeout(max(0.01, min(1.0, end - time.monotonic())))
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                report = Report.from_json(_read_json(connection, 5.0))
                if report is None:
                    connection.close()
                    continue
                fault = disagreement(mine, report, _still_waiting(present))
                if fault:
                    answer = Answer(fault=fault)
                    refused.append(connection)
                else:
                    present[report.process] = (report, connection)
            if answer is None and time.monotonic() > end:
                answer = Answer(missing=_missing(cluster, present, timeout))
        if answer is None:
            answer = Answer(tuple(present[i][0].host for i in range(cluster.processes)))
        connections = [c for _, c in present.values() if c is not None]
        _send_to_all(answer, connections + refused)
    return answer


def _send_to_all(answer: Answer, connections: list[socket.socket]) -> None:
    """Sends the answer and lets the others close first: else the port would stay in TIME_WAIT on
    this side, and JAX needs it at once."""
    text = json.dumps(dataclasses.asdict(answer)).encode() + b"\n"
    for connection in connections:
        connection.settimeout(5.0)  # `_is_open` made it non-blocking
        with contextlib.suppress(OSError):
            connection.sendall(text)
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.recv(1)
        connection.close()


def _listen(port: int, end: float) -> socket.socket:
    """A listening socket on `port` of all addresses; waits until an earlier run has left it."""
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


def _report_to_coordinator(host: str, port: int, mine: Report, timeout: float) -> Answer:
    """Any other process: reports to process 0 and waits for its answer."""
    end = time.monotonic() + timeout
    why = "no answer"
    while (seconds := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(5.0, seconds)) as connection:
                connection.sendall(json.dumps(dataclasses.asdict(mine)).encode() + b"\n")
                # Process 0 answers when it gives up, which is later if it started later.
                values = _read_json(connection, seconds + 10.0)
                if values:
                    return Answer(**values | {"hosts": tuple(values["hosts"])})
                why = "something else answers there: an earlier run that has not ended?"
        except OSError as e:
            why = e.strerror or str(e) or "no answer"
        time.sleep(0.3)
    return Answer(
        missing=f"process {mine.process} on {mine.host} did not reach process 0 at "
        f"{host}:{port} within {timeout:.0f} s ({why}); is that host up and the port open?"
    )


def _read_json(connection: socket.socket, timeout: float) -> JsonObject:
    """One line of JSON; {} for anything else."""
    connection.settimeout(timeout)
    data = b""
    while not data.endswith(b"\n") and len(data) < 1 << 20:
        try:
            received = connection.recv(65536)
        except TimeoutError:
            return {}
        if not received:
            break
        data += received
    with contextlib.suppress(ValueError):
        values = json.loads(data)
        return values if isinstance(values, dict) else {}
    return {}


def disagreement(mine: Report, report: Report, present: dict[int, Arrival]) -> str:
    """One line that says why `report` cannot be of this run; "" if it can.

    Args:
      mine: that of process 0.
      present: the processes that have arrived, by number.
    """
    who = f"process {report.process} on {report.host}"
    if report.processes != mine.processes:
        return (
            f"{who} expects {report.processes} processes, process 0 on {mine.host} expects "
            f"{mine.processes}; start all with the same AEJAX_NUM_PROCESSES"
        )
    for package in ("jax", "aejax"):
        theirs, ours = getattr(report, package), getattr(mine, package)
        if theirs != ours:
            return (
                f"{who} has {package} {theirs}, process 0 on {mine.host} has "
                f"{ours}; install the same version on every host"
            )
    if report.process in present:
        other = present[report.process][0].host
        return f"{who} and one on {other} have the same number; give each its own AEJAX_PROCESS_ID"
    return ""


def _still_waiting(present: dict[int, Arrival]) -> dict[int, Arrival]:
    """`present` without those that have ended: a process that is started again comes twice."""
    for process, (_, connection) in list(present.items()):
        if connection is not None and not _is_open(connection):
            connection.close()
            del present[process]
    return present


def _is_open(connection: socket.socket) -> bool:
    """Whether the other end still waits for an answer (it sends nothing after its report)."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _missing(cluster: Cluster, present: dict[int, Arrival], timeout: float) -> str:
    """The sentence that names up to 32 of the processes that did not come."""
    missing = [i for i in range(cluster.processes) if i not in present]
    names = [f"{i} ({cluster.hosts[i]})" if cluster.hosts else str(i) for i in missing[:32]]
    others = f" and {len(missing) - 32} more" if len(missing) > 32 else ""
    return (
        f"{len(missing)} of {cluster.processes} processes did not come within {timeout:.0f} s: "
        f"{', '.join(names)}{others}; look at their logs, then start again"
    )
