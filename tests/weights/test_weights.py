"""Weights on disk: what goes in comes out, and a changed file is noticed."""

import dataclasses
import json
import re

import numpy as np
import pytest

from aejax import weights
from aejax.errors import UserError
from aejax.weights import Metadata


def test_round_trip(tmp_path):
    tree = {"params": {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.float32(2.0)},
            "tables": {"n": np.arange(3, dtype=np.int32)}}  # fmt: skip
    weights.save(tmp_path / "w", tree, Metadata(step=3))
    back, meta = weights.load(tmp_path / "w")
    np.testing.assert_array_equal(back["params"]["a"]["kernel"], tree["params"]["a"]["kernel"])
    assert float(back["params"]["b"]) == 2.0 and back["tables"]["n"].dtype == np.int32
    assert meta.step == meta.steps == 3 and len(meta.sha256) == 64


@pytest.mark.parametrize("name", weights.names())
def test_metadata_is_what_the_json_says_and_writes_it_again(name):
    stored = json.loads((weights.FOLDER / f"{name}.json").read_text())
    meta = weights.metadata(name)
    assert meta.to_dict() == stored and meta.sha256 and meta.config["model"]["name"]
    assert meta.steps == stored.get("steps", stored.get("step")) > 0
    assert not set(meta.extra) & {field.name for field in dataclasses.fields(meta)}


def test_metadata_that_nobody_knew():
    """Of another version, with null and with names of its own: nothing is lost."""
    values = {"shape": None, "class_names": [], "score": {"fd": 1.5}, "mood": "good", "steps": 7}
    meta = Metadata.from_dict(values)
    assert (meta.shape, meta.class_names, meta.score, meta.steps) == (None, (), {"fd": 1.5}, 7)
    assert json.loads(json.dumps(meta.to_dict())) == values
    assert Metadata().to_dict() == {} and Metadata().steps == 0


def test_half_precision_comes_back_as_float32(tmp_path):
    weights.save(tmp_path / "w", {"params": {"a": np.ones(4, np.float16)}}, Metadata())
    assert weights.load(tmp_path / "w")[0]["params"]["a"].dtype == np.float32


def test_packed_weights_are_small_and_near(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"big": (3, 3, 192, 192), "small": (3, 3, 4, 8)}
    made = {n: {"kernel": rng.normal(size=s).astype(np.float32)} for n, s in shapes.items()}
    p = weights.packed({"params": made})["params"]
    assert p["big"]["kernel"]["q"].dtype == np.int8 and p["big"]["kernel"]["scale"].shape == (192,)
    assert p["small"]["kernel"].dtype == np.float16
    weights.save(tmp_path / "w", {"params": p}, Metadata())
    back = weights.load(tmp_path / "w")[0]["params"]
    for name, tolerance in (("big", 0.02), ("small", 2e-3)):
        a, b = made[name]["kernel"], back[name]["kernel"]
        assert b.dtype == np.float32 and np.abs(a - b).max() < tolerance


def test_damage_and_wrong_names_are_said(tmp_path):
    weights.save(tmp_path / "w", {"params": {"a": np.ones(4, np.float32)}}, Metadata())
    file = tmp_path / "w.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match="damaged"):
        weights.load(tmp_path / "w")
    with pytest.raises(UserError, match="no weights"):
        weights.load("nothing-like-this")


def test_every_shipped_file_is_the_one_its_json_tells_of():
    for name in weights.names():
        weights.load(name)


SOURCES = {"photo": "photographs", "tfds:mnist": "MNIST", "tfds:fashion_mnist": "Fashion-MNIST"}


def test_there_is_a_card_of_all_shipped_weights():
    text = (weights.FOLDER / "MODEL_CARDS.md").read_text()
    assert sorted(re.findall(r"(?m)^## (.*)$", text)) == weights.names()


@pytest.mark.parametrize("name", weights.names())
def test_a_card_says_use_origin_result_and_licences(name):
    text = (weights.FOLDER / "MODEL_CARDS.md").read_text()
    card = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    facts = dict(re.findall(r"- \*\*(.*?):\*\* ((?:.|\n  )*)", card))
    assert {"Use", "Made by", "Data", "Result", "Licence"} <= set(facts)
    assert all(len(fact.strip()) > 3 for fact in facts.values())
    kept = json.loads((weights.FOLDER / f"{name}.json").read_text())
    command = kept.get("command") or kept["training"]["command"]
    (spec,) = re.findall(r"experiments/(\S+)", command)
    assert spec.partition(":")[0] in facts["Made by"], command
    data = kept["data"] if isinstance(kept["data"], str) else kept["data"]["train"]
    (source,) = [known for part, known in SOURCES.items() if part in data]
    assert facts["Data"].startswith(source)
    assert re.search(rf"(?m)^\| {source} \| .+ \| \S.* \|$", text), (
        "its licence is not in the table"
    )
