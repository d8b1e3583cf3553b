"""The folder of a run: when it becomes a config's, what may change in it, who may train in it."""

import json
import os
import shutil
import threading

import jax
import numpy as np
import pytest
from PIL import Image

import aejax
from aejax import lease
from aejax.cli import main
from aejax.errors import UserError
from aejax.loading import load
from aejax.training.loop import Loop
from aejax.training.prepared import PreparedRun
from aejax.training.run import measured
from tests.helpers import tiny
from tests.training.interrupted import prepared, train_until


def train(workdir, **changes):
    options = {k: changes.pop(k) for k in ("data_dir", "accept_data") if k in changes}
    return aejax.train(tiny(**changes), workdir, quiet=True, **options)


def provenance(workdir):
    return json.loads((workdir / "provenance.json").read_text())


# --- when a folder becomes a config's -------------------------------------------------------------


@pytest.mark.parametrize(
    "mistake",
    [
        {"optim__name": "adamm"},
        {"eval__metrics": ("pnsr",)},
        {"model__f_E": "dens"},
        {"data__source": "folder:nowhere"},
        {"objective__terms": {"kl": 1.0}},  # said when the step is traced
        {"train__devices": 99},
        {"optim__warmup": "50 steps"},
        {"model__start": "runs/none"},
        {"ops": {"conv": "fast"}},
    ],
    ids=lambda m: next(iter(m)),
)
def test_a_mistake_leaves_no_folder_behind(tmp_path, mistake):
    with pytest.raises(UserError):
        train(tmp_path / "run", **mistake)
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()  # one that was there stays, empty
    with pytest.raises(UserError):
        train(tmp_path / "mine", **mistake)
    assert not list((tmp_path / "mine").iterdir())
    assert train(tmp_path / "mine", train__length="2 steps").steps == 2


# --- what may change ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "run"
    train(folder, optim__schedule="constant", optim__ema=0.9)
    return folder


def test_a_finished_run_that_became_longer_goes_on_as_if_it_had_been_so(short, tmp_path):
    long = {"optim__schedule": "constant", "optim__ema": 0.9, "train__length": "30 steps"}
    shutil.copytree(short, tmp_path / "run")
    result = train(tmp_path / "run", **long)
    whole = train(tmp_path / "whole", **long)
    assert result.steps == whole.steps == 30 and result.metrics == whole.metrics
    a, b = (jax.device_get(load(tmp_path / n).variables) for n in ("run", "whole"))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    went_on = provenance(tmp_path / "run")["continued"]
    assert went_on[-1]["step"] == 20
    assert went_on[-1]["changed"] == {"train.length": ["20 steps", "30 steps"]}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 30


def test_more_epochs_is_one_command(short, tmp_path, capsys):
    shutil.copytree(short, tmp_path / "run")
    command = ["train", "--workdir", str(tmp_path / "run"), "--quiet"]
    assert main([*command, "--config.train.length=26 steps"]) == 0
    assert "step 26 (length)" in capsys.readouterr().out
    assert main([*command, "--config.train.length=10 steps"]) == 2
    assert "at step 26, beyond train.length" in capsys.readouterr().err
    assert main([*command, "--config.model.latent=5"]) == 2
    assert "another config (model.latent is 4 there and 5 here)" in capsys.readouterr().err
    assert main(["train", "--workdir", str(tmp_path / "none")]) == 2
    assert "give --config" in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "key, value",
    [
        pytest.param("optim__lr", 1e-4, marks=pytest.mark.slow),
        pytest.param("optim__schedule", "cosine", marks=pytest.mark.slow),
        pytest.param("optim__warmup", "15 steps", marks=pytest.mark.slow),
        pytest.param("optim__final_lr", 0.5, marks=pytest.mark.slow),
        pytest.param("log__every", "1 steps", marks=pytest.mark.slow),
        ("eval__every", "4 steps"),
        pytest.param("eval__best", "-mse", marks=pytest.mark.slow),
        pytest.param("checkpoint__keep", 1, marks=pytest.mark.slow),
        pytest.param("train__profile", (1, 1), marks=pytest.mark.slow),
    ],
)
def test_keys_that_may_change_on_the_way(tmp_path, key, value):
    base = {"optim__schedule": "linear", "eval__every": "5 steps"}
    train_until(tiny(**base), tmp_path, 12)
    assert train(tmp_path, **base | {key: value}).steps == 20
    changed = provenance(tmp_path)["continued"][-1]["changed"]
    assert list(changed) == [key.replace("__", ".")]
    assert (tmp_path / "config.json").read_text() == aejax.config.to_json(
        aejax.config.current(tiny(**base | {key: value}))
    )


@pytest.mark.parametrize("key, value", [("seed", 1), ("data__batch", 8), ("optim__clip", 1.0)])
def test_all_other_keys_are_refused(short, key, value):
    before = {f.name: f.stat().st_mtime_ns for f in short.iterdir()}
    with pytest.raises(UserError, match=f"another config \\({key.replace('__', '.')} is"):
        train(short, **{"optim__schedule": "constant", "optim__ema": 0.9, key: value})
    assert {f.name: f.stat().st_mtime_ns for f in short.iterdir()} == before


def test_a_finished_run_says_what_would_change_nothing(short):
    same = {"optim__schedule": "constant", "optim__ema": 0.9}
    with pytest.raises(UserError, match="is finished, so that optim.lr changes nothing"):
        train(short, **same, optim__lr=0.5)
    assert train(short, **same, log__every="7 steps").steps == 20
    assert "continued" not in provenance(short)


def test_a_finished_run_is_measured_again_if_the_evaluation_changed(short, tmp_path):
    shutil.copytree(short, tmp_path / "run")
    same = {"optim__schedule": "constant", "optim__ema": 0.9}
    result = train(tmp_path / "run", **same, eval__metrics=("psnr", "aejax.losses:mae"))
    assert result.steps == 20 and "test/aejax.losses:mae" in result.metrics


# --- changed data ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for i in range(30):
        x = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
        (tmp_path / "data" / "p").mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(tmp_path / "data" / "p" / f"{i:02}.png")
    return tmp_path / "data"


def test_changed_data_are_refused_and_can_be_accepted(folder, tmp_path):
    config = {"data__source": "folder:p", "eval__examples": 0}
    train_until(tiny(**config), tmp_path / "run", 5, data_dir=str(folder))
    config["data_dir"] = str(folder)
    for file in sorted(folder.rglob("*.png"))[:3]:
        file.unlink()
    with pytest.raises(UserError, match="train images of .*27 images then, 25 now.*accept-data"):
        train(tmp_path / "run", **config)
    assert train(tmp_path / "run", **config, accept_data=True).steps == 20
    then, now = provenance(tmp_path / "run")["continued"][-1]["changed"]["data"]
    assert (then["splits"]["train"]["images"], now["splits"]["train"]["images"]) == (27, 25)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "p" / "29.png")
    with pytest.raises(UserError, match="as before, of other names or content"):
        train(tmp_path / "run", **config, train__length="30 steps")
    assert train(tmp_path / "run", **config).steps == 20  # a finished run opens no data


# --- one process at a time ------------------------------------------------------------------------


def test_a_second_training_in_a_folder_ends_with_one_line(tmp_path, capsys):
    """Held by another thread, as by another process of this machine."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    held = []
    thread = threading.Thread(target=lambda: held.append(lease.take(workdir)))
    thread.start(), thread.join()
    with pytest.raises(UserError, match=f"is being trained by .*process {os.getpid()}; wait"):
        train(workdir, train__length="2 steps")
    assert not (workdir / "config.json").exists()
    held[0].release()
    assert train(workdir, train__length="2 steps").steps == 2
    assert not list(workdir.glob("lease.*"))


def test_a_study_that_holds_the_folder_may_train_in_it(tmp_path):
    held = lease.take(tmp_path)
    assert train(tmp_path, train__length="2 steps").steps == 2
    assert lease.holder(tmp_path)  # still the study's
    held.release()


def test_a_silent_holder_on_another_machine_is_waited_for(tmp_path, capsys):
    """A preempted job may start elsewhere before its old lease has expired."""
    other = tmp_path / "lease.0"
    other.write_text(json.dumps({"host": "far", "pid": 1, "born": "", "machine": "far"}))
    mine = lease.take_or_explain(tmp_path, timeout=2.0)
    assert mine is not None
    assert "waiting up to 2 s to see whether it is still alive" in capsys.readouterr().err
    mine.release()
    other.write_text(json.dumps({"host": "far", "pid": 1, "born": "", "machine": "far"}))
    ended = threading.Event()

    def beat():  # as its holder does, wherever it is
        while not ended.wait(0.1):
            os.utime(other)

    holder = threading.Thread(target=beat)
    holder.start()
    with pytest.raises(UserError, match="is being trained by far, process 1"):
        lease.take_or_explain(tmp_path, timeout=60.0)
    ended.set(), holder.join()


# --- nothing is lost ------------------------------------------------------------------------------


def test_patience_survives_a_resume(tmp_path):
    c = {"eval__every": "2 steps", "train__patience": 4, "train__length": "60 steps"}
    c |= {"optim__lr": 1e-12, "checkpoint__keep": 1}
    whole = train(tmp_path / "whole", **c)
    assert "did not improve in 4" in whole.stopped_by
    train_until(tiny(**c), tmp_path / "cut", whole.steps - 3)
    cut = train(tmp_path / "cut", **c)
    assert (cut.steps, cut.stopped_by) == (whole.steps, whole.stopped_by)


class BrokenMetric(PreparedRun):
    """Its evaluation fails."""

    def evaluate(self):
        raise ZeroDivisionError


def train_and_fail(config, workdir):
    with prepared(config, workdir, BrokenMetric) as run, pytest.raises(ZeroDivisionError):
        Loop(run, quiet=True).run()
        measured(run)


def test_the_final_state_is_saved_before_the_final_evaluation(tmp_path):
    train_and_fail(tiny(), tmp_path)
    assert load(tmp_path).step == 20 and not (tmp_path / "result.json").exists()
    log = (tmp_path / "log.jsonl").read_text()
    assert train(tmp_path).steps == 20
    trained = [x for x in (tmp_path / "log.jsonl").read_text().splitlines() if "grad_norm" in x]
    assert trained == [x for x in log.splitlines() if "grad_norm" in x]  # nothing trained again


def test_a_run_that_stopped_early_does_not_go_on_after_a_broken_evaluation(tmp_path):
    c = {"train__stop_loss": 10.0, "train__length": "50 steps"}
    train_and_fail(tiny(**c), tmp_path)
    step = load(tmp_path).step
    result = train(tmp_path, **c)
    assert result.steps == step < 50 and result.stopped_by.startswith("loss reached")


# --- from Python ----------------------------------------------------------------------------------


def test_train_is_called_twice_in_one_program_and_returns_a_result(tmp_path):
    first = aejax.train(tiny(ops={"all": "plain"}), tmp_path / "a", quiet=True)
    second = aejax.train(tiny(), tmp_path / "b", quiet=True)
    assert isinstance(first, aejax.Result)
    assert first.metrics["test/psnr"] == pytest.approx(second.metrics["test/psnr"], abs=0.01)
    assert first.to_json() == (tmp_path / "a" / "result.json").read_text()
    assert aejax.Result.from_dict(json.loads(first.to_json())) == first
    again = aejax.train(tiny(), tmp_path / "b", quiet=True)
    assert again == second
