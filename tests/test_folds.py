"""Folds are disjoint, whole, balanced, and keep groups together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax.data import folds
from aejax.errors import UserError


@settings(deadline=None, max_examples=50)
@given(n=st.integers(2, 80), k=st.integers(2, 9), seed=st.integers(0, 5))
def test_by_example(n, k, seed):
    if k > n:
        with pytest.raises(UserError):
            folds.make(n, k)
        return
    found = folds.make(n, k, seed=seed).folds
    assert sorted(i for fold in found for i in fold) == list(range(n))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@settings(deadline=None, max_examples=50)
@given(groups=st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=80), k=st.integers(2, 3))
def test_by_group(groups, k):
    if len(set(groups)) < k:
        with pytest.raises(UserError, match="groups"):
            folds.make(len(groups), k, groups)
        return
    found = folds.make(len(groups), k, groups).folds
    assert sorted(i for fold in found for i in fold) == list(range(len(groups)))
    seen = [{groups[i] for i in fold} for fold in found]
    assert sum(map(len, seen)) == len(set(groups)) and all(seen)


def test_seeds_shuffle_and_are_kept():
    assert folds.make(50, 5) == folds.make(50, 5) != folds.make(50, 5, seed=1)


def test_stored_and_used(tmp_path):
    path = tmp_path / "folds.json"
    made = folds.make(23, 4, seed=2)
    folds.write(path, made)
    assert folds.read(path) == made
    assert folds.overrides(path)[3] == {"data.folds": str(path), "data.fold": 3}
    for j in range(4):
        train, test = (folds.indices(path, j, 23, training) for training in (True, False))
        assert not set(train) & set(test) and len(train) + len(test) == 23
        np.testing.assert_array_equal(test, made.folds[j])


def test_mistakes(tmp_path):
    path = tmp_path / "folds.json"
    with pytest.raises(UserError, match="no file"):
        folds.read(path)
    folds.write(path, folds.make(10, 2))
    with pytest.raises(UserError, match="the set has 11"):
        folds.indices(path, 0, 11, True)
    with pytest.raises(UserError, match="folds 0 to 1"):
        folds.indices(path, 2, 10, True)
    path.write_text('{"examples": 3, "seed": 0, "folds": [[0, 1], [1, 2]]}')
    with pytest.raises(UserError, match="overlap"):
        folds.read(path)
    path.write_text("{")
    with pytest.raises(UserError, match="holds no folds"):
        folds.read(path)
    with pytest.raises(UserError, match="one for each"):
        folds.make(3, 2, ["a"])
