"""A run's folder is complete, and what `aejax.load` returns can be used as any object can."""

import copy
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

import aejax
from aejax.errors import UserError
from aejax.nets import ops
from aejax.training import run
from tests.helpers import PROGRAMS, tiny

OLD = pathlib.Path(__file__).parent / "fixtures" / "run_0_1"  # made by dc158f2, stopped at step 12


def pictures(n=6, side=8, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of a folder of pictures, which is deleted afterwards."""
    from PIL import Image

    root = tmp_path_factory.mktemp("made")
    for i, x in enumerate(pictures(40)):
        folder = root / "data" / "pictures" / ("ab"[i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[..., 0]).save(folder / f"{i}.png")
    c = tiny(
        data__source="folder:pictures", train__length="6 steps", eval__every="3 steps",
        ops={"all": "plain"}, eval__examples=0,
    )  # fmt: skip
    run.train(c, root / "run", data_dir=str(root / "data"), quiet=True)
    shutil.rmtree(root / "data")
    return root / "run"


@pytest.fixture(scope="module")
def model(made):
    return aejax.load(made)


def test_a_copied_folder_is_loaded_without_its_data_from_anywhere(made, tmp_path):
    """In a process of its own, in another working directory, with no data folder."""
    shutil.copytree(made, tmp_path / "theirs")
    env = {k: v for k, v in os.environ.items() if k not in ("AEJAX_DATA", "XLA_FLAGS")}
    process = subprocess.run(
        [sys.executable, PROGRAMS / "load_run.py", "theirs"],
        cwd=tmp_path, env=env | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.stdout.strip() == "(2, 4) 6 ('a', 'b')", process.stderr


def without_data(run, copy):
    """A copy of a run whose config names data that are nowhere."""
    copy = pathlib.Path(shutil.copytree(run, copy))
    config = json.loads((copy / "config.json").read_text())
    config["data"]["source"] = "folder:nowhere"
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("is_old", [False, True])
def test_loading_opens_no_data(made, tmp_path, is_old):
    assert aejax.load(without_data(OLD if is_old else made, tmp_path / "run")).shape == (8, 8, 1)


def test_spec_says_what_the_model_was_made_for(made):
    spec = json.loads((made / "spec.json").read_text())
    assert spec["example_shape"] == [8, 8, 1] and spec["channels"] == 1
    assert spec["dtype"] == "uint8" and spec["class_names"] == ["a", "b"]
    assert {s["images"] for s in spec["splits"].values()} == {36, 4}
    assert all(len(s["fingerprint"]) > 8 for s in spec["splits"].values())


def test_loading_and_calling_change_nothing_in_the_process(made, model):
    """The run's config asks for the plain forms: in its own programs alone."""
    jitted = jax.jit(lambda x: x + 1)
    jitted(1.0)
    before = jitted._cache_size(), ops.form("conv")
    aejax.load(made).encode(pictures())
    assert (jitted._cache_size(), ops.form("conv")) == before
    assert before[0] == 1 and before[1] != "plain"
    seen = []

    class Spy(type(model.model.f_E)):
        def __call__(self, *args):
            seen.append(ops.form("conv"))
            return super().__call__(*args)

    import dataclasses

    spied = dataclasses.replace(model, model=model.model.clone(f_E=Spy(model.model.f_E.latent)))
    with pytest.raises(Exception):  # noqa: B017  (other layers: only the form is looked at)
        spied.encode(pictures())
    assert seen == ["plain"]


def test_a_run_of_an_older_version_is_loaded():
    """Made by the code of dc158f2: no spec.json."""
    old = aejax.load(OLD)
    assert (old.step, old.shape) == (12, (8, 8, 1))
    y = old.apply(pictures()).y
    assert y.shape == (6, 8, 8, 1) and np.isfinite(y).all()
    assert aejax.load(OLD, "best").step == 10


def test_the_size_of_an_image_in_an_older_run_comes_from_whatever_tells_it(tmp_path):
    """Its config, the pictures of its last evaluation, or else its data."""
    run = pathlib.Path(shutil.copytree(OLD, tmp_path / "run"))
    shutil.rmtree(run / "pictures")
    assert aejax.load(run).shape == (8, 8, 1)  # of the bundled digits
    run = without_data(run, tmp_path / "moved")
    with pytest.raises(UserError, match="nowhere"):
        aejax.load(run)
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"size": [8, 8], "channels": 1}
    (run / "config.json").write_text(json.dumps(config))
    assert aejax.load(run).shape == (8, 8, 1)


def test_a_run_of_an_older_version_is_resumed(tmp_path):
    shutil.copytree(OLD, tmp_path / "run")
    config = aejax.training.workdir.read_config(OLD)
    result = aejax.train(config, tmp_path / "run", quiet=True)
    assert result.steps == 20 and (tmp_path / "run" / "spec.json").is_file()
    steps = [json.loads(x)["step"] for x in (tmp_path / "run" / "log.jsonl").open()]
    assert min(s for s in steps if s > 12) > 12 and 20 in steps
    went_on = json.loads((tmp_path / "run" / "provenance.json").read_text())["continued"]
    assert went_on[0]["step"] == 12


# --- checkpoints and doors ------------------------------------------------------------------------


@pytest.mark.parametrize("which", [99, "99", "foo", "-3"])
def test_a_wrong_checkpoint_is_named_with_those_there_are(made, which):
    with pytest.raises(UserError, match=f'no checkpoint "{which}" .*"last", "best".* steps 3, 6'):
        aejax.load(made, which)
    assert aejax.load(made, 3).step == aejax.load(made, "3").step == 3


def test_a_training_that_goes_on_is_not_disturbed(made, tmp_path):
    """A checkpoint under way has a temporary folder; a reader leaves it alone."""
    shutil.copytree(made, tmp_path / "run")
    under_way = tmp_path / "run" / "checkpoints" / "9.orbax-checkpoint-tmp"
    under_way.mkdir()
    aejax.load(tmp_path / "run")
    assert under_way.is_dir()


@pytest.mark.parametrize(
    "name, channels",
    [("gray", 1), ("colour", 3), ("fashion-mnist", 1), ("mnist", 1), ("digits-classifier", 1)],
)
def test_shipped_names_come_through_the_same_door(name, channels):
    trained = aejax.load(name)
    assert trained.step > 0 and trained.shape[-1] == channels
    x = pictures(2, 28, channels)
    y = trained.apply(x).y
    assert y.shape == x.shape and np.isfinite(y).all()


def test_the_codec_comes_through_the_same_door():
    from aejax.codec import freeze

    trained, frozen = aejax.load("codec"), freeze.load("codec")
    assert trained.model == frozen.model
    jax.tree.map(np.testing.assert_array_equal, trained.variables["params"], frozen.params)


def test_what_is_not_there_is_said_in_a_line(made, tmp_path, monkeypatch):
    with pytest.raises(UserError, match='no weights "grey".*did you mean "gray"'):
        aejax.load("grey")
    with pytest.raises(UserError, match="holds no run"):
        aejax.load(tmp_path)
    with pytest.raises(UserError, match="no run"):
        aejax.load(tmp_path / "nothing.safetensors")
    with pytest.raises(UserError, match="no checkpoints"):
        aejax.load("gray", "best")
    (tmp_path / "config.json").write_text((made / "config.json").read_text()[:100])
    with pytest.raises(UserError, match="damaged"):
        aejax.load(tmp_path)
    monkeypatch.chdir(tmp_path)  # a folder of that name hides no shipped model
    (tmp_path / "gray").mkdir()
    assert aejax.load("gray").name == "gray"


def test_own_parts_are_refused_where_they_are_not_wanted(made, tmp_path):
    file = shutil.copytree(made, tmp_path / "run") / "config.json"
    (tmp_path / "run" / "evil_parts.py").write_text("raise SystemExit('ran')")
    config = json.loads(file.read_text())

    def with_part(group, key, value):
        file.write_text(json.dumps(config | {group: config[group] | {key: value}}))

    for group, key, value in (
        ("model", "f_E", {"name": "evil_parts:Encoder"}),
        ("model", "kwargs", {"deep": [{"name": "evil_parts:Encoder"}]}),
        ("objective", "loss", {"evil.parts:loss": 1.0}),
        ("data", "source", "evil.parts:Faces:large"),
        ("eval", "metrics", ["psnr", "evil_parts:metric"]),
    ):
        with_part(group, key, value)
        with pytest.raises(UserError, match=f'{group}.{key}.* names "evil.parts:.*own_parts'):
            aejax.load(tmp_path / "run", own_parts=False)
    with_part("model", "f_E", {"name": "evil_parts:Encoder"})
    with pytest.raises(UserError, match="evil_parts"):  # a run's folder is on nobody's path
        aejax.load(tmp_path / "run")
    with_part("objective", "loss", {"aejax.losses:mae": 1.0})
    assert aejax.load(tmp_path / "run", own_parts=False).step == 6
    assert aejax.load(made, own_parts=False).step == 6
    assert aejax.load("gray", own_parts=False).step > 0


# --- as an object ---------------------------------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_it_is_pickled_and_copied_before_and_after_its_first_call(made, called, copied):
    trained, x = aejax.load(made), pictures()
    if called:
        trained.encode(x), trained.apply(x), trained.decode(trained.encode(x))
    other = copied(trained)
    np.testing.assert_array_equal(other.encode(x), trained.encode(x))
    assert (other.shape, other.step, other.config) == (trained.shape, 6, trained.config)


def test_it_is_called_from_threads(made):
    trained, x, codes = aejax.load(made), pictures(), []
    threads = [
        threading.Thread(target=lambda: codes.append(np.asarray(trained.encode(x))))
        for _ in range(8)
    ]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(codes) == 8 and all((h == codes[0]).all() for h in codes)


def test_save_is_loaded_again(model, tmp_path, monkeypatch):
    file = model.save(tmp_path / "mine")
    again = aejax.load(file)
    assert file.name == "mine.safetensors" and again.class_names == ("a", "b")
    np.testing.assert_array_equal(again.encode(pictures()), model.encode(pictures()))
    monkeypatch.chdir(tmp_path)
    model.save("here.v2")
    assert aejax.load("here.v2.safetensors").step == 6


# --- arrays ---------------------------------------------------------------------------------------


def test_one_picture_in_every_type_is_the_same_picture(model):
    x = pictures()
    h = model.encode(x)
    for other in (
        x / 255.0,
        (x / 255.0).astype(np.float32),
        (x / 255.0).astype(">f4"),
        x.astype(np.uint16) * 257,
        (x.astype(np.uint16) * 257).astype(">u2"),
        np.asfortranarray(x),
        jax.numpy.asarray(x),
    ):
        np.testing.assert_allclose(model.encode(other), h, rtol=1e-5, atol=1e-6)
    assert model.encode(x[0]).shape == (4,) and model.apply(x[0]).y.shape == (8, 8, 1)
    np.testing.assert_allclose(model.decode(h[0]), model.decode(h)[0], atol=1e-6)
    np.testing.assert_allclose(model.decode(np.asarray(h).astype(">f4")), model.decode(h))


@pytest.mark.parametrize(
    "x, message",
    [
        (pictures().astype(np.int64), "not int64"),
        (pictures().astype(np.int32), "not int32"),
        (pictures() > 3, "not bool"),
        (np.zeros((2, 1, 8, 8), np.uint8), r"np.moveaxis\(x, -3, -1\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"\[b, h, w, 1\].* got shape \(2, 8, 8, 3\)"),
        (np.zeros((2, 8, 8), np.uint8), r"add the axis"),
        (np.zeros((8, 8), np.uint8), r"got shape \(8, 8\)"),
        (np.zeros((2, 9, 8, 1), np.uint8), "trained on 8x8x1 images, cannot take 9x8x1"),
        (pictures() * 1.0, "divide by the value of white"),
        (np.full((2, 8, 8, 1), np.nan), "NaN"),
    ],
)
def test_what_is_no_picture_is_said_in_a_line(model, x, message):
    for call in (model.encode, model.apply, model.latents):
        with pytest.raises(UserError, match=message):
            call(x)


# --- other data -----------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path):
    """Colour pictures of the right size, in two classes."""
    from PIL import Image

    for i, x in enumerate(pictures(10, 8, 3, seed=3)):
        (tmp_path / "other" / "xy"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(tmp_path / "other" / "xy"[i % 2] / f"{i}.png")
    return f"folder:{tmp_path / 'other'}"


def test_latents_of_a_source_and_of_arrays(model, other):
    h, labels = model.latents(other, batch=3)
    assert h.shape == (10, 4) and sorted(labels) == [0] * 5 + [1] * 5
    x = pictures()
    again, none = model.latents(x, batch=4)
    np.testing.assert_allclose(again, model.encode(x), atol=1e-6)
    assert none is None


def test_evaluation_on_another_set_with_another_metric(model, other):
    evaluation = model.evaluate(other, split="all", metrics=("aejax.losses:mae", "psnr"))
    assert evaluation.count == 10 and {"aejax.losses:mae", "psnr"} <= set(evaluation.metrics)
    with pytest.raises(UserError, match="metric"):
        model.evaluate(other, metrics=("pnsr",))


def test_eval_verb_takes_source_split_metrics_and_checkpoint(made, other, tmp_path, capsys):
    from aejax.cli import main

    shutil.copytree(made, tmp_path / "run")
    before = (tmp_path / "run" / "pictures" / "first.png").read_bytes()
    arguments = ["eval", "--workdir", str(tmp_path / "run"), "--source", other, "--split", "all"]
    assert main([*arguments, "--metrics", "aejax.losses:mae", "--checkpoint", "3"]) == 0
    files = list((tmp_path / "run").glob("eval-*.json"))
    report = json.loads(files[0].read_text())
    assert len(files) == 1 and report["step"] == 3 and report["examples"] == 10
    assert "test/aejax.losses:mae" in report["metrics"] and "test/ssim" not in report["metrics"]
    assert (tmp_path / "run" / "pictures" / "first.png").read_bytes() == before
    assert main([*arguments, "--checkpoint", "foo"]) == 2
    assert "steps 3, 6" in capsys.readouterr().err
