"""What a run says while it trains: true times, only what was measured, one line for each fault."""

import itertools
import json
import struct
import sys

import numpy as np
import pytest

from aejax import cli
from aejax.config import load
from aejax.training import run
from aejax.training.evaluate import RANKS
from aejax.training.log import Progress
from aejax.training.loop import Loop
from aejax.training.prepared import PreparedRun
from tests.helpers import PROGRAMS, tiny
from tests.test_config import ROOT
from tests.training.interrupted import prepared


class SlowRun(PreparedRun):
    """On a machine where compiling takes 1000 s, a step 0.1 s and an evaluation 3 s."""

    seconds = 0.0  # of the machine's clock
    seen = frozenset()  # sizes of the programs that are compiled

    def program(self, count):
        self.seconds += 0 if count in self.seen else 1000
        self.seen |= {count}

        def step(*arguments):
            self.seconds += 0.1
            return super(SlowRun, self).program(count)(*arguments)

        return step

    def evaluate(self):
        self.seconds += 3
        return super().evaluate()


class Shown(Progress):
    """Keeps the seconds left at each step, and draws nothing."""

    def __init__(self):
        super().__init__(40, quiet=True)
        self.left = {}

    def show(self, step, values, examples_per_sec, seconds):
        self.left[step] = seconds


def test_the_time_left_leaves_compilation_out(tmp_path):
    config = tiny(train__length="40 steps", log__every="1 steps", eval__every="10 steps")
    with prepared(config, tmp_path, SlowRun) as run:
        loop = Loop(run, now=lambda: run.seconds)
        loop.progress = Shown()
        loop.run()
    assert run.seconds > 1000
    left = loop.progress.left
    assert left[5] == pytest.approx(35 * 0.1, rel=0.05)
    assert left[15] == pytest.approx(25 * 0.1 + 3 * 3, rel=0.05)
    assert left[40] == 0
    later = [seconds for step, seconds in left.items() if step > 10]
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
    command = ["train", "--config", str(PROGRAMS / "two_runs.py"), "--config.log.wandb=mine"]
    assert cli.main([*command, "--quiet", "--workdir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == (
        "aejax: log.wandb: wandb is not installed (pip install wandb); the run goes on without it\n"
    )


def scalars(folder):
    """{step: {name: value}} of TensorBoard's files."""
    from tensorboardX.proto.event_pb2 import Event

    steps = {}
    for file in folder.glob("events.out.tfevents.*"):
        data = file.read_bytes()
        while data:  # length (8 bytes), its checksum (4), an event, its checksum (4)
            (n,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + n]), data[16 + n :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    steps.setdefault(event.step, {})[value.tag] = value.simple_value
    return steps


def test_every_log_ends_in_the_final_evaluation(tmp_path):
    result = run.train(tiny(log__tensorboard=True), tmp_path, quiet=True)
    expected = {k.replace("test/", "eval/"): v for k, v in result.metrics.items()}
    last = {k: v for k, v in scalars(tmp_path)[20].items() if k.startswith("eval/")}
    assert last == pytest.approx(expected, rel=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["eval/psnr"] == pytest.approx(expected["eval/psnr"], rel=1e-5)
    assert np.isfinite(rows[-1]["eval/psnr"])
