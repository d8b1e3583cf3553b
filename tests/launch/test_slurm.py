"""A study on a real SLURM: Debian's daemons, started by the test (slurm_daemons.py). Takes one to
three minutes, so it runs only with AEJAX_TEST_SLURM=1, as .ci/run does."""

import json
import os
import pathlib
import sys
import warnings

import pytest

import aejax
from aejax.engines import cli
from tests.helpers import wait_for
from tests.launch.launch_helpers import HERE, arguments, jobs
from tests.launch.slurm_daemons import Slurm, Unavailable

pytestmark = pytest.mark.slow
STEPS = 3000  # of tiny_study.py


def unavailable(reason):
    warnings.warn(f"NOT TESTED: launching on SLURM: {reason}", stacklevel=2)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if os.environ.get("AEJAX_TEST_SLURM") != "1":
        unavailable("set AEJAX_TEST_SLURM=1 (one to three minutes, fetches Debian's slurmd)")
    engine = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        engine.__enter__()
    except Unavailable as e:
        unavailable(str(e))
    yield engine
    engine.__exit__()


@pytest.fixture
def environment(slurm, tmp_path, monkeypatch):
    """What a login shell has: aejax importable, one emulated device per process."""
    root = str(pathlib.Path(aejax.__file__).parents[1])
    changes = {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu", "AEJAX_NO_REEXEC": "1"}
    changes |= {"AEJAX_CLUSTER_TIMEOUT": "240", "AEJAX_CACHE": os.environ["AEJAX_CACHE"]}
    changes["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("count=8", "count=1")
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
        slurm.env[name] = value
    monkeypatch.chdir(HERE)


def rows(directory):
    """What a study's table is made of: overrides -> metrics, in full precision."""
    rows = {}
    for file in directory.glob("*/result.json"):
        result = json.loads(file.read_text())
        rows[json.dumps(result["overrides"], sort_keys=True)] = (
            result["metrics"], result["steps"], result["parameters"]
        )  # fmt: skip
    return rows


def waited(what, timeout, slurm):
    try:
        return wait_for(what, timeout, what.__name__)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{slurm.logs()}") from None


def test_an_array_study_is_requeued_saves_and_resumes_and_equals_the_local_one(
    slurm, environment, tmp_path
):
    directory = tmp_path / "runs"
    settings = [f"program={sys.executable} -m aejax", "parallel=1", "tasks_per_node=2"]
    args = arguments(
        "slurm", "--directory", str(directory), "--out", str(tmp_path / "out"),
        study="tiny_study.py", settings=settings,
    )  # fmt: skip
    planned = jobs(args)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.sbatch").write_text(planned.files["study.sbatch"])
    directory.mkdir()
    assert planned.commands == [["sbatch", "study.sbatch"]]
    job = slurm.run("sbatch", "--parsable", tmp_path / "out" / "study.sbatch").strip()

    def log_of(task):
        file = directory / f"slurm-{job}_{task}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def training(task):
        """The run of a task, once it is some steps into its training."""

        def look():
            manifest = directory / "manifest.json"
            if not manifest.exists():
                return None
            run = json.loads(manifest.read_text())["runs"][task]["id"]
            log = directory / run / "log.jsonl"
            lines = log.read_text().splitlines() if log.exists() else []
            return run if len(lines) >= 2 else None

        return waited(look, 240, slurm)

    # One task is requeued by an administrator (or a preemption), one is told to save as before its
    # time limit: SIGTERM to the step, exit status 75, and the script queues itself again.
    def saved(run):
        """The step of its one checkpoint."""
        steps = [
            int(d.name) for d in (directory / run / "checkpoints").iterdir() if d.name.isdigit()
        ]
        assert len(steps) < 2
        return steps and steps[0]

    requeued = training(0)
    slurm.run("scontrol", "requeue", f"{job}_0")
    step_0 = waited(lambda: saved(requeued), 120, slurm)
    told = training(1)
    slurm.send_signal(f"{job}_1", "TERM")
    step_1 = waited(lambda: saved(told), 120, slurm)

    ended = slurm.wait(job, timeout=1500)
    said = {task: log_of(task) for task in range(4)}
    assert set(ended.values()) == {"COMPLETED"} and len(ended) == 4, (ended, said, slurm.logs())

    for task, run, step in ((0, requeued, step_0), (1, told, step_1)):
        assert 0 < step < STEPS
        assert said[task].count("aejax: stopped") == 2, said[task]  # both processes
        assert said[task].count("SLURM: 2 processes on 1 hosts") == 2
        # It went on at that step: begun anew, it would log the first steps again.
        log = (directory / run / "log.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in log]
        steps = [s for i, s in enumerate(steps) if i == 0 or s != steps[i - 1]]
        assert steps == sorted(set(steps)) and steps[-1] == STEPS, steps
        assert any(s <= step for s in steps), (step, steps)
    assert "status 75 after 0 restarts; queued again" in said[1]
    for task in (2, 3):
        assert "aejax: stopped" not in said[task]

    # The same study without SLURM, as two processes on loopback, never stopped.
    local = tmp_path / "local"
    args = arguments(
        "local", "--directory", str(local), "--out", str(tmp_path / "out-local"),
        study="tiny_study.py",
        settings=[f"program={sys.executable} -m aejax", "processes=2"],
    )  # fmt: skip
    assert cli.run(args) == 0
    assert len(rows(local)) == 4
    assert rows(directory) == rows(local)
    # What stands below the table (commands, dates) and its last column (speed) are their own.
    texts = [(d / "table.md").read_text().splitlines() for d in (directory, local)]
    tables = [[line.rsplit("|", 2)[0] for line in lines if "|" in line] for lines in texts]
    assert len(tables[0]) == 4 and tables[0] == tables[1]


def test_missing_tasks_are_named_and_the_job_is_queued_again(slurm, environment, tmp_path):
    """One of two tasks never starts aejax: the other says which, and ends with status 75."""
    script = tmp_path / "job.sbatch"
    log = tmp_path / "log"
    script.write_text(
        f"""#!/bin/bash
#SBATCH --ntasks=2
#SBATCH --output={log}
export AEJAX_CLUSTER_TIMEOUT=8
srun --wait=60 bash -c 'if [ "$SLURM_PROCID" = 0 ]; then exec {sys.executable} -m aejax \\
  study tiny_study.py:smoke --directory {tmp_path}/runs; else sleep 40; fi'
echo "status $?"
"""
    )
    job = slurm.run("sbatch", "--parsable", script).strip()
    slurm.wait(job, timeout=300)
    said = log.read_text()
    assert "1 of 2 processes did not connect within 8 s: 1 (localhost)" in said, said
    assert "status 75" in said
