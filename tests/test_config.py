"""Configs: what an experiment file resolves to is committed text, and mistakes are named."""

import os
import pathlib

import pytest

from aejax import config as configs
from aejax import study as studies
from aejax import units
from aejax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(
    p
    for p in (ROOT / "experiments").rglob("*.py")
    if "def get_config" in p.read_text() and "benchmarks" not in p.parts
)
GOLDEN = ROOT / "tests" / "golden"


def name_of(file):
    return "-".join(file.relative_to(ROOT / "experiments").with_suffix("").parts)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT / "experiments")))
def test_golden(file):
    """Every config resolves to its committed text; AEJAX_UPDATE_GOLDEN=1 writes them anew."""
    text = configs.to_json(configs.load(str(file)))
    golden = GOLDEN / f"{name_of(file)}.json"
    if os.environ.get("AEJAX_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.exists(), "run with AEJAX_UPDATE_GOLDEN=1 and commit what it writes"
    assert text == golden.read_text()


def test_no_golden_is_left_over():
    assert {p.stem for p in GOLDEN.glob("*.json")} == {name_of(f) for f in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT / "experiments")))
def test_smoke_is_small(file):
    c = configs.load(f"{file}:smoke")
    assert units.Clock(c.data.batch, 1000).steps(c.train.length, "") <= 20
    assert not c.data.source.startswith("tfds"), "a smoke form needs no data folder"


WITH_ARGUMENT = sorted(
    p
    for p in (ROOT / "experiments").rglob("*.py")
    if "benchmarks" not in p.parts
    and any(f"def {name}(arg" in p.read_text() for name in ("get_config", "get_study"))
)


@pytest.mark.parametrize("file", WITH_ARGUMENT, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_mistyped_argument_is_refused(file, tmp_path, monkeypatch):
    """Ignored, it would run something else: ablations.py:siez ran all 27 runs for :size."""
    monkeypatch.chdir(tmp_path)  # crossval keeps its folds in runs/
    module = configs.load_module(str(file))
    for name in ("get_config", "get_study"):
        if hasattr(module, name):
            for arg in ("smokee", "smoke,nothing", "nothing=1"):
                with pytest.raises(UserError, match="has no argument"):
                    getattr(module, name)(arg)


def test_the_words_of_an_argument():
    assert configs.flags("a, b 7 n=x", "a", "b", "n=", "N") == ["a", "b", "7", "n=x"]
    assert configs.flags("", "a") == []
    with pytest.raises(UserError, match='"siez"; did you mean "size"'):
        configs.flags("siez", "size", "range")
    for wrong in ("n", "7", "a=1"):
        with pytest.raises(UserError):
            configs.flags(wrong, "a", "n=")


def test_text_roundtrip():
    c = configs.base()
    assert configs.to_json(configs.from_json(configs.to_json(c))) == configs.to_json(c)


@pytest.mark.parametrize(
    "override, key, value",
    [
        ("optim.lr=1e-2", "optim.lr", 1e-2),
        ("--config.optim.lr=1", "optim.lr", 1.0),
        ("data.size=(32, 32)", "data.size", (32, 32)),
        ("data.size=32", "data.size", (32,)),
        ("data.flip=true", "data.flip", True),
        ("train.length=100", "train.length", "100"),
        ("model.f_E=conv", "model.f_E.name", "conv"),
        ("model.f_E.hidden=[8, 4]", "model.f_E.hidden", (8, 4)),
        ("objective.loss.mae=0.5", "objective.loss.mae", 0.5),
    ],
)
def test_override(override, key, value):
    node = configs.apply_overrides(configs.base(), [override])
    for name in key.split("."):
        node = node[name]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    "override, words",
    [
        ("optim.lrr=1", 'did you mean "optim.lr"'),
        ("optmi.lr=1", 'did you mean "optim.lr"'),
        ("optim.lr=fast", "takes float"),
        ("data.flip=1", "takes bool"),
        ("optim=3", "is a group"),
        ("optim.lr", "key=value"),
    ],
)
def test_bad_override(override, words):
    with pytest.raises(UserError, match=words):
        configs.apply_overrides(configs.base(), [override])


@pytest.mark.parametrize(
    "text, steps",
    [("20 epochs", 200), ("600 examples", 60), ("5 steps", 5), (7, 7), ("0.5 epochs", 5)],
)
def test_duration(text, steps):
    assert units.Clock(10, 100).steps(text, "x") == steps


@pytest.mark.parametrize("text", ["soon", "3 parsecs", "", "-2 steps"])
def test_bad_duration(text):
    with pytest.raises(UserError, match="train.length"):
        units.Clock(10, 100).steps(text, "train.length")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="no experiment file"):
        configs.load(str(tmp_path / "nothing.py"))
    bad = tmp_path / "bad.py"
    bad.write_text("x = 1\ny = 1 / 0\n")
    with pytest.raises(UserError, match="line 2: ZeroDivisionError"):
        configs.load(str(bad))
    bad.write_text("x = 1\ndef f(:\n")
    with pytest.raises(UserError, match="line 2: SyntaxError"):
        configs.load(str(bad))
    bad.write_text("def get_config(arg):\n    return {}['x']\n")
    with pytest.raises(UserError, match="bad.py line 2: KeyError"):
        configs.load(str(bad))
    bad.write_text("def get_config(arg):\n    pass\n")
    with pytest.raises(UserError, match="returns NoneType, not a config"):
        configs.load(str(bad))
    bad.write_text("def get_study(arg):\n    pass\n")
    with pytest.raises(UserError, match="returns NoneType, not a Study"):
        studies.load(str(bad))
    bad.write_text("x = 1\n")
    with pytest.raises(UserError, match="no get_config"):
        configs.load(str(bad))


def test_keys_of_parts_have_no_defaults():
    """What is open (losses, arguments of parts) is meant as it was written."""
    stored = {"objective": {"loss": {"mae": 1.0}}, "model": {"f_E": {"name": "conv"}}}
    found = configs.with_defaults(stored)
    assert found["objective"]["loss"] == {"mae": 1.0} and found["model"]["f_E"]["name"] == "conv"
    assert found["objective"]["name"] == "autoencode" and found["data"]["folds"] == ""
    assert "name" not in stored["objective"]
