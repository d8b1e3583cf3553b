"""Two real processes (gloo) train as one, are stopped by SIGTERM or killed, and resume as one."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from tests.helpers import PROGRAMS, free_port, wait_for

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]


def start(count, devices, mode, workdir, *overrides, program="processes.py"):
    """`count` processes of one run, with `devices` emulated devices each."""
    env = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", f"count={devices}"),
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": os.path.join(os.environ["AEJAX_CACHE"], "xla"),
    }
    if count > 1:
        env |= {"AEJAX_COORDINATOR": f"127.0.0.1:{free_port()}", "AEJAX_NUM_PROCESSES": str(count)}
    command = [sys.executable, "-m", "aejax", "train", "--quiet", "--workdir", str(workdir)]
    command += ["--config", f"{PROGRAMS / program}:{mode}", *overrides]
    return [
        subprocess.Popen(
            command, env=env | {"AEJAX_PROCESS_ID": str(i)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for i in range(count)
    ]  # fmt: skip


def finish(processes, status=0, timeout=240):
    texts = [p.communicate(timeout=timeout)[0] for p in processes]
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == status, text
    return texts


def wait_for_checkpoint(workdir, processes):
    def is_saved():
        assert all(p.poll() is None for p in processes), processes[0].communicate()[0]
        return any(p.name.isdigit() for p in (workdir / "checkpoints").glob("*"))

    wait_for(is_saved, 240, "a checkpoint")


@pytest.mark.parametrize("mode", ["pmap", "fsdp"])
def test_sigterm_saves_the_same_step_and_another_number_goes_on(tmp_path, mode):
    workdir = tmp_path / "run"
    processes = start(2, 2, mode, workdir)
    wait_for_checkpoint(workdir, processes)
    processes[1].send_signal(signal.SIGTERM)  # one is told; both save
    texts = finish(processes, status=75)
    assert "SIGTERM: saved step" in texts[1]
    step = texts[1].split("saved step ")[1].split()[0]
    assert f"saved step {step} " in texts[0]
    # two processes of 2 devices -> one process of 8
    short = f"--config.train.length={int(step) + 20} steps"
    config = workdir / "config.json"
    config.write_text(config.read_text().replace("4000 steps", f"{int(step) + 20} steps"))
    finish(start(1, 8, mode, workdir, short))
    result = json.loads((workdir / "result.json").read_text())
    assert result["steps"] == int(step) + 20
    rows = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == sorted(r["step"] for r in rows)


def test_kill_and_resume_as_one(tmp_path):
    workdir = tmp_path / "run"
    length = "--config.train.length=300 steps"
    processes = start(2, 1, "pmap", workdir, length)
    wait_for_checkpoint(workdir, processes)
    processes[0].kill()
    processes[1].kill()
    finish(processes, status=-9)
    finish(start(2, 1, "pmap", workdir, length))
    two = json.loads((workdir / "result.json").read_text())
    finish(start(1, 2, "pmap", tmp_path / "alone", length))
    one = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert two["examples"] == one["examples"] == 179
    assert two["metrics"]["test/psnr"] == pytest.approx(one["metrics"]["test/psnr"], abs=0.05)


def test_the_host_all_wait_for_is_named(tmp_path):
    length = "--config.train.length=80 steps"
    program = "processes_late.py"
    first, second = finish(start(2, 1, "pmap", tmp_path / "run", length, program=program))
    assert re.search(r"process 1 \(.*\) needs 0\.0[1-9] s per step for its own work", first), first
    assert "process 0" not in first.partition("needs")[2] and "its own work" not in second


def test_the_others_end_with_75_and_name_the_process_that_was_killed(tmp_path):
    workdir = tmp_path / "run"
    length = "--config.train.length=100000 steps"
    processes = start(2, 1, "pmap", workdir, length, program="processes_watched.py")
    wait_for_checkpoint(workdir, processes)
    processes[1].kill()
    text = processes[0].communicate(timeout=120)[0]
    assert processes[0].returncode == 75, text
    assert re.search(r"lost: process 1 \(.*\), no heartbeat for 10 s", text), text
