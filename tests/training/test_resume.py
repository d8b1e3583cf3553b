"""A run goes on from where it was, exactly; damage, signals and full disks lose nothing."""

import dataclasses
import errno
import json
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.loading import load
from aejax.training import checkpoint, run
from aejax.training.state import TrainState
from aejax.training.workdir import read_config
from tests.helpers import tiny
from tests.training.interrupted import train_until

CORRUPT = ({"name": "gaussian", "sigma": (0.0, 50.0)},)  # so that resuming must get the keys right


def config():
    c = tiny(optim__ema=0.9, optim__name="adamw", train__steps_per_dispatch=2)
    c.corrupt = CORRUPT
    return c


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = run.train(config(), folder, quiet=True)
    return folder, result


def params(folder):
    return jax.device_get(load(folder).variables["params"])


def test_resumed_equals_uninterrupted_bit_for_bit(whole, tmp_path):
    for dispatch in (3, 4):
        train_until(config(), tmp_path, dispatch)
    result = run.train(config(), tmp_path, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path), params(whole[0]))
    assert result.metrics == whole[1].metrics


def test_done_is_not_repeated(whole):
    before = (whole[0] / "log.jsonl").read_text()
    again = run.train(config(), whole[0], quiet=True)
    assert again.to_dict() == json.loads((whole[0] / "result.json").read_text())
    assert (whole[0] / "log.jsonl").read_text() == before


def test_another_config_is_refused(whole):
    other = config()
    other.optim.b1 = 0.5
    with pytest.raises(UserError, match="optim.b1 is 0.9 there and 0.5 here"):
        run.train(other, whole[0])


def test_another_model_is_refused(whole, tmp_path):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    other = config()
    other.model.latent = 7
    with pytest.raises(UserError, match="another model: .* is .* there"):
        run.train(other, tmp_path, quiet=True)


def damage(folder, how):
    files = [f for f in folder.rglob("*") if f.is_file() and f.stat().st_size > 200]
    assert files
    for file in files:
        if how == "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        else:
            file.unlink()


@pytest.mark.parametrize("how", ["cut", pytest.param("missing", marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_skipped(whole, tmp_path, how):
    for dispatch in (3, 2):
        train_until(config(), tmp_path, dispatch)
    steps = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert steps == [6, 10]
    damage(tmp_path / "checkpoints" / "10", how)
    with pytest.warns(UserWarning, match="checkpoint 10 .* damaged"):
        run.train(config(), tmp_path, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path), params(whole[0]))


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.ocp.training.Checkpointer, "save_async", full)
    with pytest.raises(UserError, match="no space left for a checkpoint"):
        run.train(config(), tmp_path, quiet=True)


def test_best_and_last_are_kept(tmp_path):
    c = tiny(eval__every="5 steps", checkpoint__keep=1, optim__lr=1e-2)
    result = run.train(c, tmp_path, quiet=True)
    steps = {int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()}
    assert 20 in steps and result.best_step in steps and len(steps) <= 2
    assert load(tmp_path, "best").step == result.best_step


def test_stops_at_a_loss_and_when_nothing_improves(tmp_path):
    result = run.train(tiny(train__stop_loss=10.0, train__length="50 steps"), tmp_path / "a")
    assert result.stopped_by.startswith("loss reached") and result.steps < 50
    c = tiny(eval__every="2 steps", train__patience=2, train__length="60 steps", optim__lr=1e-9)
    result = run.train(c, tmp_path / "b", quiet=True)
    assert "did not improve" in result.stopped_by and result.steps < 60


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    c = tiny(
        optim__lr=1e30, optim__name="gd", train__max_skipped=3, checkpoint__every="1 steps",
        train__length="100 steps", optim__schedule="constant",
    )  # fmt: skip
    with pytest.raises(UserError, match="training diverged"):
        run.train(c, tmp_path, quiet=True)


def test_a_log_that_cannot_be_written_never_kills_a_run(tmp_path):
    (tmp_path / "log.jsonl").mkdir(parents=True)
    with pytest.warns(UserWarning, match="the run goes on"):
        result = run.train(tiny(), tmp_path, quiet=True)
    assert result.steps == 20


def test_python_api(whole):
    model = load(whole[0])
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    h = model.encode(x)
    assert h.shape == (3, 4) and model.encode(x[0]).shape == (4,)
    y = model.decode(h)
    assert y.shape == (3, 8, 8, 1)
    np.testing.assert_allclose(y, model.apply(x).y, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="no run"):
        load(whole[0] / "nothing")


def test_a_run_of_an_older_version_goes_on(tmp_path):
    """A key that came since, at its default, makes no other config; at another value it does."""
    train_until(config(), tmp_path, 3)
    file = tmp_path / "config.json"
    old = json.loads(file.read_text())
    del old["data"]["folds"], old["data"]["fold"], old["train"]["patience"], old["ops"]
    file.write_text(json.dumps(old))
    assert read_config(tmp_path).data.folds == ""
    other = config()
    other.train.patience = 3
    with pytest.raises(UserError, match="train.patience is 0 there and 3 here"):
        run.train(other, tmp_path, quiet=True)
    assert run.train(config(), tmp_path, quiet=True).steps == 20
    assert "patience" in json.loads(file.read_text())["train"]


def test_saves_leave_no_threads_and_no_open_files(tmp_path):
    """Orbax ends the thread of a save only for who asks for its result: a study of 1,000 runs, or a
    run of 1,000 checkpoints, would have run out of files."""

    def held():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files in /proc")
    state = TrainState(jnp.int32(0), {"w": jnp.ones(3)}, (), None, {})
    kept = checkpoint.Checkpoints(tmp_path, keep=1)
    found = []
    for step in range(1, 6):
        kept.save(dataclasses.replace(state, step=jnp.int32(step)))
        kept.wait()
        found.append(held())
    kept.close()
    assert found[-1] == found[1]
