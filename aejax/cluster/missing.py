"""The roll call: before JAX connects the processes, it finds which of them are missing.

If a host is missing, `jax.distributed.initialize` ends every process with a C++ stack trace and
does not say which host. Here process 0 listens on the coordinator's port, the others report to it,
and all receive the same answer: the host of each process, or which ones are missing.
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
    """Other processes did not connect, or do not answer. Exit status 75: the same command resumes
    the run."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a process sends to process 0, as one line of JSON.

    Attributes:
      process: its number, from 0.
      processes: how many processes it expects.
      host: its host name.
      jax, aejax: their versions, which must be the same in all processes.
    """

    process: int
    processes: int
    host: str
    jax: str
    aejax: str

    @classmethod
    def of_this_process(cls, cluster: Cluster) -> "Report":
        """The report of this process."""
        version = "?"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version("aejax")
        host = socket.gethostname()
        return cls(cluster.process, cluster.processes, host, jax.__version__, version)

    @classmethod
    def from_json(cls, values: JsonObject) -> "Report | None":
        """The report in `values`; None for anything else, such as what a port scanner sends."""
        try:
            return cls(**values)
        except TypeError:
            return None


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer of process 0 to all others: the hosts, or why the roll call failed.

    Attributes:
      hosts: the host of each process.
      fault: a user error, in one line: versions or numbers of processes contradict each other.
      missing: one line that names the processes that did not connect.
    """

    hosts: tuple[str, ...] = ()
    fault: str = ""
    missing: str = ""


# The report of a process and the connection on which it waits for the answer; None for process 0.
Arrival = tuple[Report, socket.socket | None]


def roll_call(cluster: Cluster, timeout: float) -> tuple[str, ...]:
    """Waits for all processes on the coordinator's port, before JAX uses it.

    Args:
      timeout: seconds.

    Returns:
      The host name of each process.

    Raises:
      HostsMissing: some did not connect within `timeout` seconds; raised, with their names, in all
        processes that did.
      UserError: two processes have the same number, or processes differ in the number that they
        expect or in the version of jax or aejax.
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
    """Process 0: listens until all have connected, then sends all of them the same answer."""
    deadline = time.monotonic() + timeout
    present: dict[int, Arrival] = {0: (mine, None)}
    refused: list[socket.socket] = []
    answer = None
    with _listen(port, deadline) as server:
        while answer is None and len(_still_connected(present)) < cluster.processes:
            server.settimeout(max(0.01, min(1.0, deadline - time.monotonic())))
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                report = Report.from_json(_read_json(connection, 5.0))
                if report is None:
                    connection.close()
                    continue
                fault = disagreement(mine, report, _still_connected(present))
                if fault:
                    answer = Answer(fault=fault)
                    refused.append(connection)
                else:
                    present[report.process] = (report, connection)
            if answer is None and time.monotonic() > deadline:
                answer = Answer(missing=_missing(cluster, present, timeout))
        if answer is None:
            answer = Answer(tuple(present[i][0].host for i in range(cluster.processes)))
        connections = [c for _, c in present.values() if c is not None]
        _send_to_all(answer, connections + refused)
    return answer


def _send_to_all(answer: Answer, connections: list[socket.socket]) -> None:
    """Sends the answer and lets the others close first: otherwise the port would stay in TIME_WAIT
    on this side, and JAX needs it at once."""
    text = json.dumps(dataclasses.asdict(answer)).encode() + b"\n"
    for connection in connections:
        connection.settimeout(5.0)  # `_is_open` made it non-blocking
        with contextlib.suppress(OSError):
            connection.sendall(text)
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.recv(1)
        connection.close()


def _listen(port: int, deadline: float) -> socket.socket:
    """A listening socket on `port` of all addresses; waits until an earlier run has freed the port.

    Raises:
      HostsMissing: the port is still in use at `deadline`, a time of time.monotonic().
    """
    has_ipv6 = socket.has_dualstack_ipv6()
    while True:
        try:
            return socket.create_server(
                ("", port),
                family=socket.AF_INET6 if has_ipv6 else socket.AF_INET,
                dualstack_ipv6=has_ipv6,
                backlog=1024,
            )
        except OSError as e:
            if time.monotonic() > deadline:
                raise HostsMissing(
                    f"port {port} of {socket.gethostname()} is in use ({e.strerror}), perhaps by "
                    "another run; JAX_COORDINATOR_PORT chooses another port"
                ) from e
            time.sleep(0.5)


def _report_to_coordinator(host: str, port: int, mine: Report, timeout: float) -> Answer:
    """Any other process: reports to process 0 and waits for its answer."""
    deadline = time.monotonic() + timeout
    reason = "no answer"
    while (seconds := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(5.0, seconds)) as connection:
                connection.sendall(json.dumps(dataclasses.asdict(mine)).encode() + b"\n")
                # Process 0 also answers when it gives up, which may be later than this deadline.
                values = _read_json(connection, seconds + 10.0)
                if values:
                    return Answer(**values | {"hosts": tuple(values["hosts"])})
                reason = "another program answers there, perhaps an earlier run"
        except OSError as e:
            reason = e.strerror or str(e) or "no answer"
        time.sleep(0.3)
    return Answer(
        missing=f"process {mine.process} on {mine.host} did not reach process 0 at "
        f"{host}:{port} within {timeout:.0f} s ({reason}); is that host up and the port open?"
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
    """One line that says why `report` cannot be from a process of this run; "" if it can.

    Args:
      mine: the report of process 0.
      present: the processes that have connected, by number.
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


def _still_connected(present: dict[int, Arrival]) -> dict[int, Arrival]:
    """Removes processes that have closed their connection from `present` and returns it: a process
    that was restarted connects again."""
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
    """A sentence that names the processes that did not connect, at most 32 of them."""
    missing = [i for i in range(cluster.processes) if i not in present]
    names = [f"{i} ({cluster.hosts[i]})" if cluster.hosts else str(i) for i in missing[:32]]
    others = f" and {len(missing) - 32} more" if len(missing) > 32 else ""
    return (
        f"{len(missing)} of {cluster.processes} processes did not connect within {timeout:.0f} s: "
        f"{', '.join(names)}{others}; look at their logs, then start again"
    )
