"""What a run says while it trains: true times, only what was measured, one line for each fault."""

import itertools
import json
import sys

import numpy as np
import pytest

from aejax import cli
from aejax.config import load
from aejax.training import log as logs
from aejax.training import loop, run
from aejax.training.evaluate import RANKS
from aejax.training.prepared import PreparedRun
from tests.helpers import tiny
from tests.test_config import ROOT

QUICK = str(ROOT / "experiments" / "quickstart.py")


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def shown(monkeypatch):
    """Every (step, seconds left) that a run would draw."""
    rows = []
    monkeypatch.setattr(
        logs.Progress,
        "show",
        lambda self, step, values, rate, seconds: rows.append((step, seconds)),
    )
    return rows


def test_the_time_left_leaves_compilation_out(tmp_path, monkeypatch, shown):
    """A step of 0.1 s, a compilation of 1000 s, an evaluation of 3 s every 10 steps."""
    clock = Clock()
    monkeypatch.setattr(loop.time, "perf_counter", clock)
    program, evaluate, compiled = PreparedRun.program, PreparedRun.evaluate, set()

    def slow_to_compile(self, count):
        clock.now += 0 if count in compiled else 1000
        compiled.add(count)

        def step(*arguments):
            clock.now += 0.1
            return program(self, count)(*arguments)

        return step

    def slow_to_evaluate(self):
        clock.now += 3
        return evaluate(self)

    monkeypatch.setattr(PreparedRun, "program", slow_to_compile)
    monkeypatch.setattr(PreparedRun, "evaluate", slow_to_evaluate)
    config = tiny(train__length="40 steps", log__every="1 steps", eval__every="10 steps")
    run.train(config, tmp_path, quiet=True)
    left = dict(shown)
    assert left[5] == pytest.approx(35 * 0.1, rel=0.05)
    assert left[15] == pytest.approx(25 * 0.1 + 3 * 3, rel=0.05)
    assert left[40] == 0
    later = [seconds for step, seconds in shown if step > 10]
    assert all(a > b for a, b in itertools.pairwise(later))


def test_a_compilation_is_said(tmp_path, capsys):
    run.train(tiny(), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert "compiling the step (1 in one program)" in lines[:2]
    assert lines[-1].startswith("step 20/20  loss ") and lines[-1].endswith("ETA 0:00")


def test_a_classifier_shows_no_psnr(tmp_path, capsys):
    config = load(str(ROOT / "experiments" / "generate" / "classifier.py") + ":digits,smoke")
    config.train.devices = 1
    result = run.train(config, tmp_path)
    assert "PSNR" not in capsys.readouterr().err
    assert set(result.metrics) == {"test/loss", "test/accuracy"}
    assert (tmp_path / "pictures" / "worst.png").exists()  # chosen by the loss


def test_pictures_are_ranked_by_what_is_measured():
    assert [m.name for m in RANKS] == ["psnr", "mse", "loss"]
    assert [m.larger_is_better for m in RANKS] == [True, False, False]


@pytest.mark.filterwarnings("default:log.wandb")
def test_wandb_that_is_not_installed_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    command = ["train", "--config", f"{QUICK}:smoke", "--config.log.wandb=mine", "--quiet"]
    assert cli.main([*command, "--workdir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == (
        "aejax: log.wandb: wandb is not installed (pip install wandb); the run goes on without it\n"
    )


def test_every_log_ends_in_the_final_evaluation(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, workdir):
            pass

        def scalars(self, step, values):
            written.append((step, values))

        def images(self, step, pictures):
            pass

        def close(self):
            pass

    monkeypatch.setattr(logs, "_TensorBoard", Writer)
    result = run.train(tiny(log__tensorboard=True), tmp_path, quiet=True)
    step, values = written[-1]
    assert step == 20
    assert values == {k.replace("test/", "eval/"): v for k, v in result.metrics.items()}
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["eval/psnr"] == pytest.approx(values["eval/psnr"], rel=1e-5)
    assert np.isfinite(rows[-1]["eval/psnr"])
