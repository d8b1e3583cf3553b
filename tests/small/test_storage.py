"""Weights stored small: what comes back is as near as the type allows, and the file is smaller."""

import numpy as np
import pytest

import aejax
from aejax import weights
from aejax.errors import UserError
from aejax.weights import Metadata
from tests.helpers import tiny

NEAR = {"float32": 0.0, "float16": 6e-4, "bfloat16": 5e-3, "int8": 5e-3, "int4": 8e-2}


def tree(rng):
    return {"params": {"kernel": rng.uniform(-1, 1, (7, 5)).astype(np.float32),
                       "bias": rng.uniform(-1, 1, 5).astype(np.float32)},
            "book": {"count": np.arange(3)}}  # fmt: skip


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", NEAR)
def test_what_comes_back(kind, sparse, tmp_path):
    variables = tree(np.random.default_rng(0))
    if sparse:
        variables["params"]["kernel"][::2] = 0.0
    weights.save(tmp_path / "w.safetensors", weights.stored_as(variables, kind, sparse), Metadata())
    loaded, _ = weights.load(tmp_path / "w.safetensors")
    for name, w in variables["params"].items():
        got = loaded["params"][name]
        assert got.dtype == np.float32 and got.shape == w.shape
        assert np.abs(got - w).max() <= NEAR[kind]
        assert (got[w == 0] == 0).all()
    np.testing.assert_array_equal(loaded["book"]["count"], np.arange(3))


def test_files_are_as_small_as_the_type_says(tmp_path):
    w = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    dense = {"params": {"kernel": w}}
    few = {"params": {"kernel": np.where(np.random.default_rng(1).random(w.shape) < 0.8, 0, w)}}
    sizes = {}
    for kind in NEAR:
        for name, variables in (("dense", dense), ("sparse", few)):
            path = tmp_path / f"{kind}-{name}.safetensors"
            weights.save(path, weights.stored_as(variables, kind, name == "sparse"), Metadata())
            sizes[kind, name] = path.stat().st_size / w.size
    want = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int4": 0.5}
    for kind, per_weight in want.items():
        assert sizes[kind, "dense"] == pytest.approx(per_weight, abs=0.02)
    assert sizes["float32", "sparse"] == pytest.approx(0.2 * 4 + 1 / 8, abs=0.02)
    assert sizes["int8", "sparse"] == pytest.approx(0.2 + 1 / 8, abs=0.02)


def test_a_run_is_saved_in_half_the_bytes(tmp_path):
    aejax.train(tiny(train__length="2 steps"), tmp_path / "run", quiet=True)
    model = aejax.load(tmp_path / "run")
    whole, half = model.save(tmp_path / "whole"), model.save(tmp_path / "half", "float16")
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    x = np.random.default_rng(0).random((2, *model.shape), np.float32)
    np.testing.assert_allclose(aejax.load(half).apply(x).y, model.apply(x).y, atol=5e-3)
    with pytest.raises(UserError, match='not "float64"'):
        model.save(tmp_path / "double", "float64")
