"""`aejax bench`: every stage and part has its time, and mistakes are one line."""

import json
import pathlib

import jax
import numpy as np
import pytest

from aejax import bench, cli
from aejax.config import load
from aejax.nets.autoencoder import build_model
from aejax.trained import Trained

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = load(f"{ROOT}/experiments/denoise/realtime.py:smoke")
    model = build_model(config.model, (32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    return str(Trained(model, variables, config, 0, (32, 32, 3)).save(path))


def test_stages_and_parts(tiny, capsys):
    assert cli.main(["bench", tiny, "--size", "40x24", "--runs", "2", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in measured["rows"]]
    assert names[:3] == ["read", "transfer", "compute"] and names[-1] == "write"
    assert {"  head", "  down0_0", "  bottom_0", "  up0_0", "  tail"} <= set(names)
    assert all(0 < row["p50"] <= row["p99"] for row in measured["rows"])
    assert measured["size"] == "40x24x3"
    assert measured["facts"]["kmac_per_pixel"] > 0 and measured["facts"]["peak_mb"] > 50
    text = bench.table(bench.Measured("x", "1x1", [bench.Row("read", 1.0, 2.0)], {"peak_mb": 3.0}))
    assert "read" in text and "peak mb" in text


@pytest.mark.parametrize("size", ["40", "4x40", "axb", "99999x8"])
def test_sizes_that_are_refused(size, capsys):
    assert cli.main(["bench", "gray", "--size", size]) == 2
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


def test_a_model_of_one_size_is_measured_at_that_size(capsys):
    assert cli.main(["bench", "digits", "--runs", "1"]) == 0
    assert "digits, 28x28x1" in capsys.readouterr().out
    assert cli.main(["bench", "digits", "--runs", "1", "--size", "64x48"]) == 2
    assert '"digits" only takes 28x28 pictures; omit --size' in capsys.readouterr().err


@pytest.mark.parametrize("name", ["codec", "lossless"])
def test_a_codec_is_measured_with_its_coder(name, monkeypatch, capsys):
    from aejax import codec

    asked = []

    def encode(picture, **options):
        asked.append(options)
        return bytes(10)

    monkeypatch.setattr(codec, "encode", encode)
    monkeypatch.setattr(codec, "decode", lambda data: None)
    assert cli.main(["bench", name, "--size", "40x24", "--runs", "2", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {"read", "encode", "decode", "write"} == set(rows)
    assert rows["encode"]["note"] == "10 bytes, 0.083 bits per pixel"
    assert asked[0] == ({"quality": 50} if name == "codec" else {"lossless": True})


def test_a_model_that_is_not_there(capsys):
    assert cli.main(["bench", "nonsense"]) == 2
    assert 'no run and no weights "nonsense"' in capsys.readouterr().err


def test_submodules_that_take_more_than_arrays(tiny):
    """A flag beside the images stays what it is."""
    import flax.linen as nn

    class Part(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            assert train is False
            return nn.Dense(3)(x)

    class Whole(nn.Module):
        @nn.compact
        def __call__(self, x, cond=None, train=False):
            from aejax.types import Output

            return Output(x, x, Part(name="part")(x, train))

    x = np.zeros((1, 8, 8, 3), np.float32)
    variables = Whole().init(jax.random.key(0), x)
    (name, run), *others = bench.parts_of(Whole(), variables, x)
    assert name == "part" and not others and run().shape == x.shape
