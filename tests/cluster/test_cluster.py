"""Processes that find each other: what the environment says, who is missing, who is slow."""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from aejax.cluster import detect, missing, processes
from aejax.cluster.detect import Cluster
from aejax.cluster.missing import HostsMissing, Report
from aejax.cluster.slow import Heartbeat, Watch
from aejax.errors import UserError
from tests.helpers import PROGRAMS, free_port, wait_for

# --- what the environment says --------------------------------------------------------------------

SLURM = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "gpu[01-02]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_DISTRIBUTION": "block",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def test_nothing_is_detected_on_a_laptop():
    assert detect.detect({}) is None


def test_slurm_inside_srun():
    cluster = detect.detect(SLURM)
    port = 70001 % 4096 + 61440
    assert cluster == Cluster(
        "SLURM", f"gpu01:{port}", 4, 3, ("gpu01", "gpu01", "gpu02", "gpu02"), (1,)
    )


def test_slurm_batch_script_without_srun_is_one_process():
    env = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NODELIST": "a"}
    assert detect.detect(env) is None


def test_slurm_with_one_task_is_one_process():
    assert detect.detect(SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None


def test_slurm_one_process_per_node_takes_all_its_gpus():
    env = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_PROCID": "1"}
    assert detect.detect(SLURM | env).local_devices is None


def test_slurm_with_gpus_bound_to_tasks_takes_the_one_it_sees():
    assert detect.detect(SLURM | {"CUDA_VISIBLE_DEVICES": "1"}).local_devices == (0,)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login", ["login"]),
        ("a,b7", ["a", "b7"]),
        ("gpu[01-03,7],x", ["gpu01", "gpu02", "gpu03", "gpu7", "x"]),
        ("r[1-2]-ib,r9", ["r1-ib", "r2-ib", "r9"]),
    ],
)
def test_expand_nodelist(text, names):
    assert detect.expand_nodelist(text) == names


def test_explicit_variables_come_first():
    env = SLURM | {
        "AEJAX_COORDINATOR": "10.0.0.1:5000",
        "AEJAX_NUM_PROCESSES": "2",
        "AEJAX_PROCESS_ID": "1",
    }
    assert detect.detect(env) == Cluster("AEJAX_COORDINATOR", "10.0.0.1:5000", 2, 1)
    env = {"JAX_COORDINATOR_ADDRESS": "h", "NUM_PROCESSES": "2", "PROCESS_ID": "0"}
    assert detect.detect(env).coordinator == f"h:{detect.PORT}"
    assert detect.detect(SLURM | {"AEJAX_COORDINATOR": "off"}) is None


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "AEJAX_NUM_PROCESSES"),
        ({"AEJAX_NUM_PROCESSES": "2"}, "AEJAX_PROCESS_ID"),
        ({"AEJAX_NUM_PROCESSES": "two", "AEJAX_PROCESS_ID": "0"}, "not a number"),
        ({"AEJAX_NUM_PROCESSES": "2", "AEJAX_PROCESS_ID": "2"}, "not below"),
    ],
)
def test_contradictions_are_the_users_mistake(env, message):
    with pytest.raises(UserError, match=message):
        detect.detect({"AEJAX_COORDINATOR": "localhost:1"} | env)


# --- the roll call, each process a thread ---------------------------------------------------------


def roll_calls(clusters, timeout, begins=None):
    """What roll_call returned or raised for each of `clusters`; process i starts when
    `begins[i](answers so far)` has returned."""
    answers, begins = {}, begins or {}

    def one(key, cluster):
        if key in begins:
            begins[key](answers)
        try:
            answers[key] = missing.roll_call(cluster, timeout)
        except Exception as e:
            answers[key] = e

    threads = [threading.Thread(target=one, args=it) for it in enumerate(clusters)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return [answers[i] for i in range(len(clusters))]


def cluster_of(n, hosts=()):
    address = f"localhost:{free_port()}"
    return [Cluster("test", address, n, i, hosts) for i in range(n)]


def test_all_come_even_if_the_first_is_late():
    here = (socket.gethostname(),) * 3
    clusters = cluster_of(3)
    port = int(clusters[0].coordinator.split(":")[1])

    def after_others_have_tried(_):
        with socket.create_server(("", port)) as server:
            for _ in range(2):
                server.accept()[0].close()

    assert roll_calls(clusters, 20, {0: after_others_have_tried}) == [here] * 3
    # The port is free again at once: JAX's service takes it next.
    socket.create_server(("", port)).close()


def test_who_did_not_come_is_named_to_all_who_did():
    clusters = cluster_of(4, hosts=("w0", "w1", "w2", "w3"))
    for message in roll_calls(clusters[:2], 1.5):
        assert isinstance(message, HostsMissing)
        assert "2 of 4" in str(message) and "2 (w2), 3 (w3)" in str(message)


def test_a_missing_coordinator_is_named():
    (message,) = roll_calls(cluster_of(2)[1:], 1.0)
    assert isinstance(message, HostsMissing) and "did not reach process 0 at localhost:" in str(
        message
    )


def test_two_processes_with_one_number():
    a, b, _ = cluster_of(3)
    for message in roll_calls([a, b, b], 10):
        assert isinstance(message, UserError) and "AEJAX_PROCESS_ID" in str(message)


def test_different_numbers_of_processes():
    a, b = cluster_of(2)
    c = Cluster("test", a.coordinator, 3, 1)
    for message in roll_calls([a, c], 10):
        assert isinstance(message, UserError) and "expects 3 processes" in str(message)


def test_different_versions_are_refused():
    first, present = Report(0, 2, "a", "0.12.0", "1"), {}
    assert missing.disagreement(first, Report(1, 2, "b", "0.12.0", "1"), present) == ""
    message = missing.disagreement(first, Report(1, 2, "b", "0.10.2", "1"), present)
    assert "process 1 on b has jax 0.10.2" in message


def test_a_process_restarted_during_the_roll_call_counts_once():
    a, b = cluster_of(2)
    a = Cluster("test", a.coordinator, 3, 0)
    b, c = (Cluster("test", a.coordinator, 3, i) for i in (1, 2))
    port = int(a.coordinator.split(":")[1])

    report = dataclasses.asdict(Report.of_this_process(b)) | {"host": "x"}
    dead = threading.Event()

    def is_reported():
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port)) as s:
            s.sendall(json.dumps(report).encode() + b"\n")
            return True

    def after_its_predecessor(answers):  # who reports as process 1 and dies
        wait_for(is_reported, 15)
        dead.set()
        for _ in range(50):  # process 2 does not complete a list on which a dead process stands
            assert not answers
            time.sleep(0.02)

    begins = {1: after_its_predecessor, 2: lambda _: dead.wait()}
    assert roll_calls([a, b, c], 20, begins) == [(socket.gethostname(),) * 3] * 3


def test_garbage_on_the_port_is_ignored():
    a, b = cluster_of(2)
    port = int(a.coordinator.split(":")[1])

    def is_scanned():
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port)) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return True

    answers = roll_calls([a, b], 20, {1: lambda _: wait_for(is_scanned, 15)})
    assert answers == [(socket.gethostname(),) * 2] * 2


# --- with JAX: real processes ---------------------------------------------------------------------


def test_two_processes_meet_and_a_barrier_names_the_late_one(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
        "JAX_PLATFORMS": "cpu",
        "AEJAX_COORDINATOR": f"localhost:{free_port()}",
        "AEJAX_NUM_PROCESSES": "2",
    }
    started = [
        subprocess.Popen(
            [sys.executable, PROGRAMS / "meeting.py", tmp_path],
            env=env | {"AEJAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    texts = [p.communicate(timeout=120) for p in started]
    here = socket.gethostname()
    assert started[0].returncode == 75, texts
    assert f"together process 1 ({here})" in texts[0][0]
    assert f'named: process 1 ({here}) did not arrive at "late" within 2 s' in texts[0][0]
    assert "2 processes on 1 hosts" in texts[0][1]
    assert f"watch: process 1 ({here}) needs 0.50 s per step" in texts[0][0]
    assert "watch:" not in texts[1][0]


def test_one_process_needs_no_cluster(monkeypatch):
    for name in [n for n in os.environ if n.startswith(("SLURM_", "AEJAX_"))]:
        monkeypatch.delenv(name)
    assert processes.initialise() is None
    processes.barrier("alone", 0.1)
    assert (processes.index(), processes.count()) == (0, 1) and processes.is_first()


# --- the watch ------------------------------------------------------------------------------------


def beat(step, seconds=0.1, number=0):
    return Heartbeat(step, seconds, number)


def test_watch_names_the_host_all_wait_for():
    watch = Watch(silent=60)
    assert watch.compare({0: beat(5), 1: beat(5), 2: beat(5)}, now=0) == []
    assert watch.compare({0: beat(9), 1: beat(8), 2: beat(9)}, now=10) == []
    beats = {0: beat(9, number=2), 1: beat(8, number=2), 2: beat(9, number=2)}
    (message,) = watch.compare(beats, now=80)
    assert "all wait for process 1 at step 8, the others are at 9" in message
    assert (
        watch.compare({i: dataclasses.replace(s, number=3) for i, s in beats.items()}, now=90) == []
    )  # once


def test_a_process_that_is_lost_and_one_that_has_ended():
    """As process 0, which a process alone is too."""
    watch = Watch(lost=70)
    watch.compare({i: beat(1, number=1) for i in range(4)}, now=0)
    ended = dataclasses.replace(beat(1, number=1), ended=True)
    beats = {0: beat(1, number=1), 1: beat(1, number=2), 2: beat(1, number=1), 3: ended}
    watch.compare(beats, now=60)
    assert watch.lost(now=65) == []
    assert watch.lost(now=71) == [2]
    assert watch.lost(now=131) == [1, 2]


def test_watch_names_the_silent_and_the_slow_host():
    watch = Watch(silent=60)
    watch.compare({0: beat(1), 1: beat(1), 2: beat(1)}, now=0)
    message = watch.compare({0: beat(99), 1: beat(99), 2: beat(1)}, now=70)
    assert len(message) == 1 and "no heartbeat of process 2 for 70 s" in message[0]
    watch = Watch(slow=2)
    (message,) = watch.compare({0: beat(1, 0.1), 1: beat(1, 0.5), 2: beat(1, 0.1)}, now=0)
    assert "process 1 needs 0.50 s" in message and "the others 0.10 s" in message
    # A steady pace warns nobody.
    watch = Watch(slow=2)
    for i in range(100):
        assert watch.compare({0: beat(i, 0.1, i), 1: beat(i, 0.12, i)}, now=i * 10) == []
