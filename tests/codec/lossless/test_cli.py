"""`aejax compress --lossless` and `aejax eval-codec --lossless`."""

import json

import numpy as np
import pytest
from PIL import Image

from aejax.codec import cli
from aejax.codec.lossless import freeze
from aejax.errors import UserError
from tests.codec.lossless import tiny
from tests.codec.test_files import call
from tests.codec.tiny import photo


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    freeze.save(tiny.weights(), path)
    return path


def test_files_come_back_as_they_were(tmp_path, weights, capsys):
    x = photo(20, 30, 4)
    Image.fromarray(x).save(tmp_path / "x.png")
    aej, back = tmp_path / "x.aej", tmp_path / "back.png"
    assert call(cli.compress, tmp_path / "x.png", "--lossless", "--weights", weights) == 0
    assert call(cli.codec, "info", aej) == 0
    assert "lossless" in capsys.readouterr().out
    assert call(cli.decompress, aej, "-o", back, "--weights", weights) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(back)), x)


def test_lossless_and_effort_exclude_each_other(tmp_path):
    Image.fromarray(photo(8, 8)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="takes no --effort"):
        call(cli.compress, tmp_path / "x.png", "--lossless", "--effort", 3)
    with pytest.raises(SystemExit):
        call(cli.compress, tmp_path / "x.png", "--lossless", "--quality", 3)


def test_lossless_files_of_every_codec(tmp_path, weights, capsys):
    for name, x in {"a": photo(20, 30), "b": photo(20, 30, 1), "c": np.zeros((9, 9), "u1")}.items():
        Image.fromarray(x).save(tmp_path / f"{name}.png")
    out = tmp_path / "results.json"
    asked = ("--lossless", "--weights", weights, "--out", out)
    assert call(cli.eval_codec, tmp_path, *asked) == 0
    found = json.loads(out.read_text())["results"]
    assert {"aejax", "png", "webp"} <= set(found)
    assert found["png"]["worst_of_png"] == 1 and found["aejax"]["of_png"] > 0
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 1 + 3 * len(found)
    assert "worst" in capsys.readouterr().out
