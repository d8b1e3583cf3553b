"""Latent maps: PCA against scikit-learn, a file, and the words when UMAP is missing."""

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.generation import maps


def test_pca_against_scikit_learn_up_to_sign():
    from sklearn.decomposition import PCA

    z = np.random.default_rng(0).normal(size=(50, 2, 3)) * np.arange(1, 7).reshape(2, 3)
    ours, theirs = maps.project(z), PCA(2).fit_transform(z.reshape(50, -1))
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-8)
    np.testing.assert_array_equal(ours, maps.project(z))


def test_draw_writes_a_picture(tmp_path):
    z = np.random.default_rng(0).normal(size=(20, 3))
    maps.draw(tmp_path / "map.png", z, np.arange(20) % 3)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_method():
    with pytest.raises(UserError, match="pca or umap"):
        maps.project(np.zeros((3, 3)), "tsne")
