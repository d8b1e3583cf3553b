"""Studies: every run once, whoever does it, whatever dies; nothing repeated, nothing lost."""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from aejax import lease
from aejax.config import base
from aejax.errors import SavedAndStopped, UserError
from aejax.study import (
    Study,
    grid,
    list_runs,
    load,
    load_results,
    named,
    product,
    resolve,
    run_id,
    run_study,
    seeds,
)
from aejax.study.cli import print_runs
from aejax.study.definition import describe, distinguishing_keys
from aejax.study.state import StudyState
from aejax.study.store import read_json
from tests.helpers import PROGRAMS, wait_for

CLI = [sys.executable, "-m", "aejax"]


def fake_train(calls):
    """A trainer that notes what it was called with and measures the config's seed."""

    def train(config, workdir):
        calls.append((config.seed, config.model.latent, workdir))
        return {"metrics": {"test/psnr": 20.0 + config.seed}, "latent_size": config.model.latent}

    return train


def study(runs, **kwargs):
    return Study("demo", base, runs, baselines=(), **kwargs)


def run(s, directory, calls=None, **kwargs):
    train = fake_train(calls if calls is not None else [])
    kwargs = {"quiet": True, "train": train, "write_report": False} | kwargs
    return run_study(s, directory, **kwargs)


# --- what the runs are ----------------------------------------------------------------------------


def test_sets_of_runs_keep_their_order():
    assert grid({"a": (1, 2), "b": "xy"}) == [
        *({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"})
    ]
    assert named("model", {"conv": {"f": 1}}) == [{"@model": "conv", "f": 1}]
    assert product(grid({"a": (1, 2)}), seeds(2)) == [
        *({"a": 1, "seed": 0}, {"a": 1, "seed": 1}, {"a": 2, "seed": 0}, {"a": 2, "seed": 1})
    ]


def test_sets_that_cannot_be_joined_are_refused():
    with pytest.raises(UserError, match='both set "a"'):
        product(grid({"a": (1,)}), grid({"a": (2,)}))


def test_an_id_is_what_the_overrides_say_and_nothing_else():
    one = {"model.latent": 16, "seed": 0, "model.f_E": {"name": "conv", "widths": (8, 16)}}
    assert run_id(one) == "e769bfabf1"  # committed: a changed hash would orphan every finished run
    other = {"@model": "x", "model.f_E": {"widths": [8.0, 16], "name": "conv"}, "seed": 0.0}
    assert run_id(other | {"model.latent": 16}) == run_id(one)
    assert len({run_id(r) for r in grid({"seed": range(50), "optim.lr": (0.1, 0.2)})}) == 100


def test_a_run_that_comes_twice_is_one_run():
    runs = list_runs([*seeds(3), {"@model": "again", "seed": 1}])
    assert [r.index for r in runs] == [0, 1, 2]


def test_parts_are_set_before_what_is_in_them():
    runs = list_runs([{"model.f_E.widths": (8,), "model.f_E": {"name": "conv"}}])
    config = resolve(base(), runs[0])
    assert config.model.f_E.name == "conv" and tuple(config.model.f_E.widths) == (8,)


# --- doing them -----------------------------------------------------------------------------------


def test_each_is_done_once_in_order_and_a_later_call_does_what_is_new(tmp_path):
    calls = []
    results = run(study(seeds(3)), tmp_path, calls)
    assert [c[0] for c in calls] == [0, 1, 2]
    assert [r["metrics"]["test/psnr"] for r in results] == [20, 21, 22]
    assert [r["overrides"] for r in results] == seeds(3)
    run(study(seeds(3)), tmp_path, calls)
    assert len(calls) == 3
    results = run(study(seeds(5)), tmp_path, calls)
    assert [c[0] for c in calls] == [0, 1, 2, 3, 4] and len(results) == 5
    assert not list(tmp_path.glob("*/lease*"))


def test_a_damaged_result_is_no_result(tmp_path):
    calls = []
    run(study(seeds(2)), tmp_path, calls)
    (pathlib.Path(calls[1][2]) / "result.json").write_text('{"metrics": {"te')
    run(study(seeds(2)), tmp_path, calls)
    assert [c[0] for c in calls] == [0, 1, 1]


def test_what_was_begun_goes_on_in_its_directory(tmp_path):
    stops = [True]

    def train(config, workdir):
        steps = pathlib.Path(workdir) / "steps"
        before = steps.read_text() if steps.exists() else ""
        steps.write_text(before + "x")
        if config.seed == 1 and stops:
            stops.pop()
            raise SavedAndStopped("SIGTERM")
        return {"metrics": {"test/psnr": float(len(before))}}

    with pytest.raises(SavedAndStopped, match="1 of 3 runs done. The same call"):
        run(study(seeds(3)), tmp_path, train=train)
    assert not list(tmp_path.glob("*/lease*"))
    results = run(study(seeds(3)), tmp_path, train=train)
    assert [r["metrics"]["test/psnr"] for r in results] == [0, 1, 0]


def test_ctrl_c_says_how_to_go_on(tmp_path):
    def train(config, workdir):
        raise KeyboardInterrupt

    s = study(seeds(1), file="experiments/a.py", arg="smoke", overrides=["--config.optim.lr=0.1"])
    with pytest.raises(SavedAndStopped, match="aejax study experiments/a.py:smoke --directory"):
        run(s, tmp_path, train=train)


def test_the_parts_of_n_are_the_whole(tmp_path):
    calls = []
    for i in (2, 0, 1):
        run(study(seeds(8)), tmp_path, calls, part=(i, 3))
    assert [c[0] for c in calls] == [2, 5, 0, 3, 6, 1, 4, 7]
    with pytest.raises(UserError, match="counts from 0"):
        run(study(seeds(8)), tmp_path, part=(3, 3))


def test_one_failure_is_noted_told_and_tried_again(tmp_path, capsys):
    broken = [True]

    def train(config, workdir):
        if config.seed == 1 and broken:
            raise ValueError("no such thing")
        return {"metrics": {"test/psnr": 1.0}}

    results = run(study(seeds(3)), tmp_path, train=train, quiet=False, write_report=True)
    assert len(results) == 2
    assert "1 failed" in capsys.readouterr().err
    note = read_json(next(tmp_path.glob("*/failed.json")))
    assert note["error"] == "ValueError: no such thing" and "traceback" in note
    broken.clear()
    assert len(run(study(seeds(3)), tmp_path, train=train)) == 3
    assert not list(tmp_path.glob("*/failed.json"))


def test_a_study_that_cannot_work_ends_early(tmp_path):
    calls = []

    def train(config, workdir):
        calls.append(0)
        raise UserError("no data")

    with pytest.raises(UserError, match="no data"):
        run(study(seeds(50)), tmp_path, train=train)
    assert len(calls) == 3
    with pytest.raises(UserError, match="all runs failed: no data"):
        run(study(seeds(1)), tmp_path / "one", train=train)


def test_a_bad_key_is_found_before_anything_is_trained(tmp_path):
    calls = []
    with pytest.raises(UserError, match="optim.rate"):
        run(study([{"seed": 0}, {"optim.rate": 1}]), tmp_path, calls)
    assert not calls
    with pytest.raises(UserError, match="has no runs"):
        run(study([]), tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        run(study(seeds(1)), "/proc/nowhere")


def test_results_of_another_base_config_are_refused(tmp_path):
    def train(config, workdir):
        (pathlib.Path(workdir) / "config.json").write_text(config.to_json())
        return {"metrics": {"test/psnr": 1.0}}

    run(study(seeds(1)), tmp_path, train=train)

    def changed():
        c = base()
        c.optim.lr = 0.5
        return c

    with pytest.raises(UserError, match="optim.lr was 0.001, is 0.5"):
        run(Study("demo", changed, seeds(2)), tmp_path, train=train)


def test_a_budget_ends_it_and_nothing_is_lost(tmp_path):
    def train(config, workdir):
        time.sleep(0.05)
        return {"metrics": {"test/psnr": 1.0}}

    results = run(study(seeds(50)), tmp_path, train=train, budget=0.2)
    assert 1 <= len(results) < 10
    assert len(run(study(seeds(12)), tmp_path)) == 12


def test_a_budget_of_steps_counts_all_runs(tmp_path):
    def train(config, workdir):
        return {"metrics": {"test/psnr": 1.0}, "steps": 100}

    assert len(run(study(seeds(9)), tmp_path, train=train, step_budget=250)) == 3
    assert len(run(study(seeds(9)), tmp_path, train=train, step_budget=250)) == 3
    assert len(run(study(seeds(9)), tmp_path, train=train, step_budget=401)) == 5


def test_what_comes_next_may_follow_from_results(tmp_path):
    """The protocol of searches: each call sees all that is finished."""

    def search(results, directory):
        best = max((r["metrics"]["test/psnr"] for r in results), default=0)
        return [{"seed": s} for s in range(2, 6) if s <= best - 18]

    calls = []
    results = run(study(seeds(2), search=search), tmp_path, calls)
    assert [c[0] for c in calls] == [0, 1, 2, 3, 4, 5] and len(results) == 6
    run(study(seeds(2), search=search), tmp_path, calls)
    assert len(calls) == 6


def test_a_dry_run_prints_and_does_nothing(tmp_path, capsys):
    run(study(seeds(1)), tmp_path / "a")
    before = sorted(tmp_path.rglob("*"))
    print_runs(StudyState(study(seeds(2)), tmp_path / "a"))
    out = capsys.readouterr().out
    assert "done" in out and "to do" in out and run_id({"seed": 1}) in out
    assert sorted(tmp_path.rglob("*")) == before


def test_many_tiny_runs_cost_little_each_and_memory_stays(tmp_path):
    """Of a thousand: experiments/benchmarks/study.py."""
    run(study(seeds(100)), tmp_path)
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert len(run(study(seeds(400)), tmp_path)) == 400
    assert (time.process_time() - began) / 300 < 0.05
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 11_000  # kB


def test_a_study_measures_once_after_the_training_also_after_a_kill(tmp_path):
    trained, attempts = [], []

    def train(config, workdir):
        """Ends as the real one does: by a result in its folder, which is returned again."""
        file = pathlib.Path(workdir) / "result.json"
        if not file.exists():
            trained.append(config.seed)
            file.write_text(json.dumps({"metrics": {"test/psnr": 20.0 + config.seed}}))
        return json.loads(file.read_text())

    def measure(done):
        attempts.append(done.config.seed)
        if len(attempts) == 1:
            raise SavedAndStopped("SIGTERM")
        return {"test/twice": 2 * done.result["metrics"]["test/psnr"], "own": "a field"}

    s = study(seeds(2), measure=measure)
    with pytest.raises(SavedAndStopped):
        run(s, tmp_path, train=train)
    for _ in range(2):
        results = run(s, tmp_path, train=train)
    assert trained == [0, 1] and attempts == [0, 0, 1]
    assert [r["metrics"]["test/twice"] for r in results] == [40, 42]
    assert results[0]["metrics"]["test/psnr"] == 20 and results[0]["own"] == "a field"


# --- leases ---------------------------------------------------------------------------------------


def foreign(directory, age):
    """A lease of another machine that was last heard of `age` seconds ago."""
    directory.mkdir(exist_ok=True)
    path = directory / "lease.0"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1", "machine": "other"}))
    os.utime(path, (time.time() - age,) * 2)


def test_a_lease_is_held_by_one_and_given_back(tmp_path):
    held = lease.take(tmp_path)
    assert held is not None and lease.take(tmp_path) is None
    assert f"process {os.getpid()}" in lease.holder(tmp_path)
    held.release()
    assert lease.holder(tmp_path) == ""
    again = lease.take(tmp_path)
    assert again is not None
    again.release()
    assert not list(tmp_path.iterdir())


def test_a_silent_machine_is_succeeded_a_slow_one_is_not(tmp_path):
    foreign(tmp_path, age=5)
    assert lease.take(tmp_path, timeout=60) is None
    held = lease.take(tmp_path, timeout=1)
    assert held is not None and held.path.name == "lease.1"
    held.release()
    assert not list(tmp_path.iterdir())


def test_a_dead_process_of_this_machine_is_succeeded_at_once(tmp_path):
    subprocess.run([sys.executable, PROGRAMS / "lease_killed.py", tmp_path], check=False)
    assert (tmp_path / "lease.0").exists()
    held = lease.take(tmp_path, timeout=1e6)
    assert held is not None
    held.release()


def test_of_many_that_see_a_dead_lease_one_gets_it(tmp_path):
    for turn in range(20):
        where = tmp_path / str(turn)
        foreign(where, age=100)
        got, start = [], threading.Barrier(8)

        def compete(where=where, got=got, start=start):
            start.wait()
            held = lease.take(where, timeout=10)
            if held:
                got.append(held)

        threads = [threading.Thread(target=compete) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(got) == 1
        got[0].release()


def test_the_heart_beats_and_a_lost_lease_ends_the_process(tmp_path):
    process = subprocess.Popen(
        [sys.executable, PROGRAMS / "lease_lost.py", tmp_path], stderr=subprocess.PIPE, text=True
    )
    path = tmp_path / "lease.0"
    wait_for(path.exists)
    first = path.stat().st_mtime
    wait_for(lambda: path.stat().st_mtime > first)
    (tmp_path / "lease.1").write_text("{}")  # as another machine does after a long silence
    assert process.wait(240) == 75
    assert "taken over" in process.stderr.read()


def test_one_that_steps_back_at_once_ends_nobody(tmp_path):
    program = PROGRAMS / "lease_steps_back.py"
    process = subprocess.run([sys.executable, program, tmp_path], timeout=240)
    assert process.returncode == 0


def test_a_lease_given_back_during_the_look_is_not_succeeded(tmp_path):
    """A name that the folder still lists and that leads nowhere, as between the two."""
    (tmp_path / "lease.0").symlink_to("given back")
    assert lease.take(tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["lease.0"]


def test_two_machines_never_share_a_run(tmp_path):
    """Engines in threads, as many as eight, on one directory: each run is trained once."""
    calls, errors = [], []

    def work():
        try:
            run(study(seeds(40)), tmp_path, calls)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors and sorted(c[0] for c in calls) == list(range(40))
    assert len(load_results(tmp_path)) == 40


# --- processes ------------------------------------------------------------------------------------


@pytest.fixture
def study_file(tmp_path):
    return shutil.copy(PROGRAMS / "slow_study.py", tmp_path / "a_study.py")


def command(study_file, n, directory, *more):
    spec = f"{study_file}:{n}"
    return [*CLI, "study", spec, "--directory", str(directory), *more]


def journal(directory):
    path = directory / "journal"
    return path.read_text() if path.exists() else ""


def test_a_study_from_its_file_with_overrides_for_all(study_file, tmp_path):
    s = load(f"{study_file}:2", ["--config.optim.lr=0.25"])
    assert s.text.startswith("A study for tests")
    assert [r["optim.lr"] for r in s.runs] == [0.25, 0.25]
    results = run_study(s, tmp_path / "out", quiet=True, write_report=False)
    assert results[0]["metrics"]["test/psnr"] == 0.25
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="no get_study"):
        load(str(tmp_path / "empty.py"))
    with pytest.raises(UserError, match="key=value"):
        load(str(study_file), ["--config.optim.lr"])


def test_workers_share_a_study_and_the_command_ends_with_the_report(study_file, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        command(study_file, 9, out, "--workers", "3"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [r["overrides"]["seed"] for r in load_results(out)] == list(range(9))
    assert journal(out) == "" and (out / "report.html").exists()
    assert "[9/9]" in done.stderr and "psnr" in done.stdout.lower()


@pytest.mark.slow
def test_sigterm_stops_workers_and_says_75(study_file, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(study_file, 200, out, "--workers", "2"), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(list(out.glob("*/result.json"))) > 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 75
    assert "Resume with: aejax study" in process.stderr.read()
    wait_for(lambda: not list(out.glob("*/lease.*")))  # the workers have ended, too


def test_a_part_is_queued_again_while_another_process_has_its_run(study_file, tmp_path):
    from aejax.cli import main

    out = tmp_path / "out"
    words = command(study_file, 3, out, "--run", "1/3", "--quiet")[len(CLI) :]
    assert main(command(study_file, 3, out, "--run", "0/3", "--quiet")[len(CLI) :]) == 0
    unit = read_json(out / "manifest.json")["runs"][1]["id"]
    (out / unit).mkdir()
    held = lease.take(out / unit)
    try:
        assert main(words) == 75
        assert main([*words, "--workers", "2"]) == 75  # nor do its workers try for ever
        # the others' status is their own
        assert main(command(study_file, 3, out, "--run", "2/3", "--quiet")[len(CLI) :]) == 0
    finally:
        held.release()
    assert main(words) == 0
    assert [r["overrides"]["seed"] for r in load_results(out)] == [0, 1, 2]
    assert (out / "report.html").exists()  # by whoever ends last


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_the_status_of_a_part_is_its_own(tmp_path, order):
    """A crash 1, a mistake 2, a success 0, whatever came of the other parts before."""
    from aejax.cli import main

    program, out = PROGRAMS / "failing_study.py", tmp_path / "out"
    words = ["study", str(program), "--directory", str(out), "--quiet"]
    assert {i: main([*words, "--run", f"{i}/3"]) for i in order} == {0: 1, 1: 2, 2: 0}
    assert main(words) == 1  # the whole has failed runs


@pytest.mark.parametrize("arguments, words", [
    (["--run", "4/4"], "counts from 0"),
    (["--run", "x"], "not i/N"),
    (["--budget", "3 epochs"], "minutes, hours or steps"),
    (["--workers", "0"], "at least one"),
    (["--config.optim.lrr=1"], "optim.lr"),
])  # fmt: skip
def test_mistakes_end_with_2_and_one_line(study_file, tmp_path, arguments, words):
    process = subprocess.run(
        command(study_file, 2, tmp_path / "out", *arguments), capture_output=True, text=True
    )
    assert process.returncode == 2
    assert words in process.stderr and "Traceback" not in process.stderr


def test_a_study_waits_for_what_others_have_and_takes_over_what_they_leave(tmp_path):
    s = study(seeds(3))
    (tmp_path / list_runs(s.runs)[1].id).mkdir()
    held = lease.take(tmp_path / list_runs(s.runs)[1].id)
    calls = []

    def stop():  # its holder, without a result
        wait_for(lambda: len(calls) == 2)
        held.release()

    threading.Thread(target=stop).start()
    assert len(run(s, tmp_path, calls)) == 3
    assert [seed for seed, _, _ in calls] == [0, 2, 1]


def kill_at_random(study_file, directory, runs, kills, rng):
    """Starts the study with 3 workers and kills (-9) one of its processes, again and again."""
    process = None
    env = os.environ | {"STEP": "0.05"}
    for _ in range(kills):
        if process is None or process.poll() is not None:
            process = subprocess.Popen(
                command(study_file, runs, directory, "--workers", "3"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=env,
            )
        before = len(list(directory.glob("*/result.json")))
        wait_for(lambda n=before: len(list(directory.glob("*/result.json"))) > n)
        time.sleep(rng.random() * 0.3)
        family = [process.pid, *_children(process.pid)]
        victim = rng.choice(family)
        os.kill(victim, signal.SIGKILL)
        if victim == process.pid:
            process.wait()
    if process is not None and process.poll() is None:
        assert process.wait(120) == 0
    final = subprocess.run(
        command(study_file, runs, directory), capture_output=True, text=True, env=env
    )
    assert final.returncode == 0, final.stderr


def _children(pid):
    pids = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(p) for p in pids]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.nightly)])
def test_kill_9_loses_nothing_and_repeats_nothing(study_file, tmp_path, kills):
    out = tmp_path / "out"
    kill_at_random(study_file, out, runs=12 * kills, kills=kills, rng=random.Random(kills))
    results = load_results(out)
    assert [r["overrides"]["seed"] for r in results] == list(range(12 * kills))
    assert [r["metrics"]["test/psnr"] for r in results] == [
        s / 7 + 0.001 for s in range(12 * kills)
    ]
    assert journal(out) == ""


def test_lines_name_what_tells_runs_apart():
    source = [
        {"data.source": "bundled:digits", "data.crop": 0},
        {"data.source": "b", "data.crop": 8},
    ]
    models = named(
        "model", {"a": {"model.f_E": {"name": "conv"}}, "b": {"model.f_E": {"name": "x"}}}
    )
    runs = list_runs(product(source, models, grid({"model.latent": (2, 4), "optim.lr": (0.1,)})))
    assert distinguishing_keys(runs) == ["data.source", "model.latent"]
    assert describe(runs[0], distinguishing_keys(runs)) == "a, bundled:digits, latent 2"
    assert describe(list_runs([{}])[0], []) == "base config"


def test_on_a_terminal_a_bar_shows_how_much_is_done(study_file, tmp_path):
    import pty

    ours, theirs = pty.openpty()
    words = command(study_file, 3, tmp_path / "out", "--workers", "2")
    process = subprocess.Popen(
        words, stderr=theirs, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    said = b""
    try:
        while block := os.read(ours, 4096):
            said += block
    except OSError:  # how Linux says that the other side has closed
        pass
    assert process.wait(240) == 0
    lines = [line for line in said.decode().splitlines() if "/3]" in line]
    assert len(lines) == 3 and all("\u2501" in line for line in lines), said.decode()
    grown = [line.rpartition("\x1b[90m")[0].count("\u2501") for line in lines]  # before the gray
    assert grown[0] == 0 < grown[1] < grown[2]
