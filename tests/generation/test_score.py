"""Who judges, that nobody is trained against the judge, and what is printed beside a figure."""

import argparse
import json
import shutil
import types

import numpy as np
import pytest

from aejax import weights
from aejax.errors import UserError
from aejax.generation import cli, features
from aejax.generation.features import classifier
from aejax.generation.features.classifier import perceptual
from aejax.generation.score import Reference, open_reference, score


def test_perceptual_loss_refuses_the_judge_under_any_name(tmp_path):
    x = np.zeros((1, 28, 28, 1), np.float32)
    for name in classifier.SCORING_CLASSIFIERS.values():
        with pytest.raises(UserError, match="scores the samples; use another"):
            perceptual(name, x, x)
    for suffix in (".safetensors", ".json"):
        shutil.copy(weights.FOLDER / f"fashion-classifier{suffix}", tmp_path / f"mine{suffix}")
    with pytest.raises(UserError, match="scores the samples"):
        perceptual(str(tmp_path / "mine"), x, x)
    classifier.check_perceptual_model("fashion-perceptual")  # that one is for it
    with pytest.raises(UserError, match="no weights"):
        perceptual("fashion-perceptul", x, x)


def test_judges_are_named_with_their_hash(tmp_path):
    name = features.extractor("fashion-classifier")[1]
    meta = json.loads((weights.FOLDER / "fashion-classifier.json").read_text())
    assert name == f"fashion-classifier {meta['sha256'][:8]}"
    with pytest.raises(UserError, match="cannot read the Inception weights"):
        features.extractor(str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match="--fid-weights"):
        open_reference("bundled:digits")


def pixels(images):
    f = images.reshape(len(images), -1)[:, ::5] / 255.0
    return f, (f.mean(1) * 10).astype(int)


def test_floor_is_computed_once_for_each_n():
    calls, images = [], np.random.default_rng(0).integers(0, 256, (80, 4, 4, 1), dtype=np.uint8)

    def extract(x):
        calls.append(len(x))
        return pixels(x)

    real = Reference("noise", "pixels", extract, *pixels(images[:40]), images[40:], images[:40])
    assert real.floor(30) == real.floor(30) > 0 and calls == [30]
    assert real.floor(30, seed=1) != real.floor(30) and real.floor(99) > 0 and calls[-1] == 40
    with pytest.raises(UserError, match="whose images are"):
        score(real, images[:, :3])


def test_sample_prints_what_its_figures_rest_on(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        parser = argparse.ArgumentParser()
        cli.sample.add_arguments(parser)
        return cli.sample.run(parser.parse_args([*arguments, "-o", str(tmp_path / "x.npy")]))

    with pytest.raises(UserError, match="needs --score"):
        run("--fid-weights", "a.pth")
    noise = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    asked = []
    generator = types.SimpleNamespace(sample=lambda n, *_, **__: noise[:n])
    monkeypatch.setattr(cli, "_generator", lambda args: generator)
    monkeypatch.setattr(
        features, "extractor", lambda *a: asked.append(a) or (pixels, "pixels 1234abcd")
    )
    assert run("--n", "30", "--score", "bundled:digits", "--fid-weights", "a.pth") == 0
    assert asked == [("a.pth", False)]
    out = capsys.readouterr().out
    for words in ("n = 30 against", "of digits test", "extractor pixels 1234abcd", "real data",
                  "KID", "coverage"):  # fmt: skip
        assert words in out, words
