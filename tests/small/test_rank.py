"""`aejax shrink --rank`: the full rank changes nothing, a lower one is the nearest."""

import numpy as np
import pytest

import aejax
from aejax.cli import main
from aejax.errors import UserError
from aejax.small import rank
from tests.helpers import tiny


@pytest.fixture(scope="module", params=["random", "pca"])
def trained(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "dense"
    config = tiny(train__length="2 steps", model__init=request.param)
    aejax.train(config, workdir, quiet=True)
    return aejax.load(workdir)


def test_the_full_rank_is_the_same_function(trained):
    x = np.random.default_rng(0).random((2, *trained.shape), np.float32)
    whole = rank.of_rank(trained, 64)
    np.testing.assert_allclose(whole.apply(x).y, trained.apply(x).y, atol=1e-5)


def test_a_lower_rank_is_the_nearest_in_least_squares():
    kernel = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32)
    parts = rank.factors({"kernel": kernel, "bias": np.zeros(6)}, 2)
    product = parts["u"]["kernel"] @ parts["v"]["kernel"]
    s = np.linalg.svd(kernel, compute_uv=False)
    assert np.square(kernel - product).sum() == pytest.approx(np.square(s[2:]).sum(), rel=1e-4)


def test_it_is_saved_and_trained_on(trained, tmp_path):
    out = tmp_path / "low.safetensors"
    assert main(["shrink", trained.name, "--rank", "3", "-o", str(out)]) == 0
    small = aejax.load(out)
    f_E = small.variables["params"]["f_E"]
    layer = f_E.get("net", f_E)["LowRankDense_0"]
    assert layer["u"]["kernel"].shape == (64, 3)
    command = ["train", "--from", str(out), "--workdir", str(tmp_path / "run"), "--quiet",
               "--config.train.length=2 steps"]  # fmt: skip
    assert main(command) == 0


def test_others_are_refused(trained):
    with pytest.raises(UserError, match='--rank is for autoencoders with f_E and f_D "dense"'):
        rank.of_rank(aejax.load("gray"), 4)
    with pytest.raises(UserError, match="a whole number from 1"):
        rank.of_rank(trained, 0)
