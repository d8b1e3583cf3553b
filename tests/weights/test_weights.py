"""Weights on disk: what goes in comes out, and a changed file is noticed."""

import json
import re

import numpy as np
import pytest

from aejax import weights
from aejax.errors import UserError


def test_round_trip(tmp_path):
    tree = {"params": {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.float32(2.0)},
            "tables": {"n": np.arange(3, dtype=np.int32)}}  # fmt: skip
    weights.save(tmp_path / "w", tree, {"steps": 3})
    back, meta = weights.load(tmp_path / "w")
    np.testing.assert_array_equal(back["params"]["a"]["kernel"], tree["params"]["a"]["kernel"])
    assert float(back["params"]["b"]) == 2.0 and back["tables"]["n"].dtype == np.int32
    assert meta["steps"] == 3 and len(meta["sha256"]) == 64


def test_half_precision_comes_back_as_float32(tmp_path):
    weights.save(tmp_path / "w", {"params": {"a": np.ones(4, np.float16)}}, {})
    assert weights.load(tmp_path / "w")[0]["params"]["a"].dtype == np.float32


def test_packed_weights_are_small_and_near(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"big": (3, 3, 192, 192), "small": (3, 3, 4, 8)}
    made = {n: {"kernel": rng.normal(size=s).astype(np.float32)} for n, s in shapes.items()}
    p = weights.packed({"params": made})["params"]
    assert p["big"]["kernel"]["q"].dtype == np.int8 and p["big"]["kernel"]["scale"].shape == (192,)
    assert p["small"]["kernel"].dtype == np.float16
    weights.save(tmp_path / "w", {"params": p}, {})
    back = weights.load(tmp_path / "w")[0]["params"]
    for name, tolerance in (("big", 0.02), ("small", 2e-3)):
        a, b = made[name]["kernel"], back[name]["kernel"]
        assert b.dtype == np.float32 and np.abs(a - b).max() < tolerance


def test_damage_and_wrong_names_are_said(tmp_path):
    weights.save(tmp_path / "w", {"params": {"a": np.ones(4, np.float32)}}, {})
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
