"""Fine-tuning: which variables are taken from where, and what does not fit is named."""

import json

import jax
import numpy as np
import pytest

import aejax
from aejax.cli import main
from aejax.config import part
from aejax.errors import UserError
from tests.helpers import tiny


def train(workdir, **changes):
    return aejax.train(tiny(**changes), workdir, quiet=True)


def params(where):
    return jax.device_get(aejax.load(where).variables["params"])


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "run"
    train(folder, seed=7)
    return folder


def test_freeze_f_E_and_train_a_new_f_D(base, tmp_path):
    new = {"model__f_D": part("dense", hidden=(24, 24)), "model__start": str(base)}
    train(tmp_path / "run", model__start_only="^f_E/", optim__only="^f_D/", **new)
    before, after = params(base), params(tmp_path / "run")
    assert equal(before["f_E"], after["f_E"])
    untrained = train(tmp_path / "zero", **new, model__start_only="^f_E/", optim__lr=1e-20)
    assert untrained.steps == 20 and not equal(after["f_D"], params(tmp_path / "zero")["f_D"])


@pytest.mark.parametrize("form", ["folder", "file", "relative"])
def test_everything_is_taken_from_a_run_or_a_file(base, tmp_path, monkeypatch, form):
    start = str(base)
    if form == "file":
        start = str(aejax.load(base).save(tmp_path / "w"))
    if form == "relative":
        monkeypatch.chdir(base.parent)
        start = "run"
    train(tmp_path / "run", model__start=start, optim__lr=1e-20, optim__ema=0.9)
    close(params(tmp_path / "run"), params(base))


def test_a_resume_does_not_start_again(base, tmp_path):
    """What it started from may be gone by then."""
    start = str(aejax.load(base).save(tmp_path / "w"))
    train(tmp_path / "run", model__start=start)
    (tmp_path / "w.safetensors").unlink()
    assert train(tmp_path / "run", model__start=start, train__length="24 steps").steps == 24


def test_what_does_not_fit_is_named(base, tmp_path):
    with pytest.raises(UserError, match=r"f_E/Dense_1/bias is \(4,\), not \(5,\).*start_only"):
        train(tmp_path / "a", model__start=str(base), model__latent=5)
    with pytest.raises(UserError, match=r"f_E/Dense_1/bias is \(4,\), not \(5,\)"):
        train(tmp_path / "b", model__start=str(base), model__latent=5, model__start_only="f_E")
    with pytest.raises(UserError, match="in no parameter's path, such as"):
        train(tmp_path / "c", model__start=str(base), model__start_only="encoder")
    with pytest.raises(UserError, match="not a regular expression"):
        train(tmp_path / "d", model__start=str(base), model__start_only="f_E(")
    with pytest.raises(UserError, match="no run and no weights"):
        train(tmp_path / "e", model__start="runs/none")


def test_from_is_one_command(base, tmp_path, capsys):
    """Without --config it is the model's own, here on another length."""
    run = tmp_path / "run"
    command = ["train", "--from", str(base), "--workdir", str(run), "--quiet"]
    assert main([*command, "--config.train.length=3 steps", "--config.optim.lr=1e-20"]) == 0
    close(params(run), params(base))
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["start"] == str(base) and config["seed"] == 7
    assert main([*command, "--config.train.length=3 steps", "--config.optim.lr=1e-20"]) == 0


def test_the_key_of_older_configs_means_the_same(tmp_path):
    """objective.kwargs.start, in an experiment file and in a workdir of aejax 0.1."""
    from aejax.config import current

    c = tiny()
    c.objective.name = "aejax.denoise.objective:Supervised"
    c.objective.kwargs = {"start": "gray", "balance": 0.5}
    now = current(c)
    assert (now.model.start, "start" in now.objective.kwargs) == ("gray", False)
    assert now.objective.kwargs.balance == 0.5
    assert current(now) == now
    c.objective.name = "my_parts:Objective"  # its own `start` is its own
    assert current(c).objective.kwargs.start == "gray" and current(c).model.start == ""
    c.objective.name, c.model.start = "aejax.denoising.objective:Supervised", "colour"
    with pytest.raises(UserError, match="differ; set model.start only"):
        current(c)
