"""At every start one line says who is trained and who is tested on."""

import numpy as np
import pytest

from aejax.cli import main
from aejax.errors import UserError
from aejax.training.run import train
from tests import helpers
from tests.data.data_helpers import picture, png
from tests.helpers import PROGRAMS


def tiny():
    return helpers.tiny(train__length="2 steps", data__batch=8, eval__metrics=("psnr",))


LINE = "1,618 pictures train, 179 test: every 10th held out\n"


def test_training_says_it(tmp_path, capsys):
    train(tiny(), tmp_path / "a")
    assert LINE in capsys.readouterr().err
    train(tiny(), tmp_path / "b", quiet=True)
    assert "pictures train" not in capsys.readouterr().err


@pytest.mark.slow
def test_check_and_study_say_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AEJAX_NO_REEXEC", "1")
    file = str(PROGRAMS / "two_runs.py")
    assert main(["check", "--config", file]) == 0
    assert LINE in capsys.readouterr().out
    assert main(["study", file, "--directory", str(tmp_path / "out")]) == 0
    assert LINE in capsys.readouterr().err


@pytest.mark.slow
def test_no_training_with_test_pictures(tmp_path):
    for place, seeds in (("train", range(6)), ("test", range(4, 8))):
        (tmp_path / place).mkdir()
        for seed in seeds:
            (tmp_path / place / f"{place}{seed}.png").write_bytes(png(picture(8, 8, seed=seed)))
    c = tiny()
    c.data.source = f"folder:{tmp_path}"
    with pytest.raises(UserError, match="2 of 6 .* train4.png = test4.png, train5.png = test5.png"):
        train(c, tmp_path / "run")
    c.data.on_bad = "skip"
    assert train(c, tmp_path / "again").steps == 2


def test_arrays_are_trained_on(tmp_path, capsys):
    images, c = np.stack([picture(8, 8, 1, seed=i) for i in range(30)]), tiny()
    train(c, tmp_path / "run", data=(images, np.arange(30) % 2))
    assert "27 pictures train, 3 test: every 10th held out" in capsys.readouterr().err
    assert c.data.source == "bundled:digits", "the caller's config is not changed"
    c.train.length = "4 steps"
    with pytest.raises(UserError, match="holds a run of another config .*data.source"):
        train(c, tmp_path / "run")  # without them
    with pytest.raises(UserError, match="the train images of .* have changed"):
        train(c, tmp_path / "run", data=(255 - images, np.arange(30) % 2))
    assert train(c, tmp_path / "run", data=(images, np.arange(30) % 2)).steps == 4


def test_a_run_on_arrays_is_measured_on_no_other_set_in_silence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AEJAX_NO_REEXEC", "1")
    images = np.stack([picture(8, 8, 1, seed=i) for i in range(30)])
    train(tiny(), tmp_path / "run", data=images)
    assert main(["eval", "--workdir", str(tmp_path / "run")]) == 2
    assert "trained on arrays from Python: give them again" in capsys.readouterr().err
    assert main(["eval", "--workdir", str(tmp_path / "run"), "--source", "bundled:digits"]) == 0
