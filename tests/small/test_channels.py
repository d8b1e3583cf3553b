"""`aejax shrink --keep`: what is removed is gone, and what mattered stays."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import aejax
from aejax.cli import main
from aejax.errors import UserError
from aejax.small import channels
from tests.helpers import tiny

CONV = {"model__f_E": {"name": "conv", "widths": (4, 8)},
        "model__f_D": {"name": "conv", "widths": (4, 8)}}  # fmt: skip
MODELS = {
    "dense": {},
    "pca": {"model__init": "pca"},
    "deep": {"model__f_E": {"name": "dense", "hidden": (16, 8)},
             "model__f_D": {"name": "dense", "hidden": (8, 12)}},
    "conv": CONV,
    "spatial": {k: v | {"spatial": True, "depth": 2} for k, v in CONV.items()},
}  # fmt: skip
ALL = ("hidden", "widths", "latent")


@pytest.fixture(scope="module", params=MODELS)
def trained(request, tmp_path_factory):
    from aejax.config import part

    changes = {k: part(**v) if isinstance(v, dict) else v
               for k, v in MODELS[request.param].items()}  # fmt: skip
    workdir = tmp_path_factory.mktemp("run") / request.param
    aejax.train(tiny(train__length="2 steps", **changes), workdir, quiet=True)
    return aejax.load(workdir)


def silenced(trained, group, units):
    """The model with all weights of some units set to zero."""
    flat = {k: np.array(v) for k, v in flatten_dict(
        dict(trained.variables["params"]), sep="/").items()}  # fmt: skip
    for path, axis in group.axes:
        w = np.moveaxis(flat[path], axis, 0)
        w.reshape(-1, group.width, *w.shape[1:])[:, units] = 0.0
    variables = {**trained.variables, "params": unflatten_dict(flat, sep="/")}
    return dataclasses.replace(trained, variables=variables)


def test_units_that_do_nothing_are_removed_and_y_stays_the_same(trained):
    """This fails if any axis of any group is forgotten or in another order."""
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(  # blocks start at zero: give every weight something to say
        lambda p: np.asarray(p) + 0.1 * rng.standard_normal(p.shape).astype(np.float32),
        dict(trained.variables["params"]),
    )
    model = dataclasses.replace(trained, variables={**trained.variables, "params": noisy})
    dropped = {}
    for group in channels.groups_of(model):
        units = np.sort(rng.permutation(group.width)[: group.width // 2])
        dropped[group.key] = units
        model = silenced(model, group, units)
    small = channels.without_channels(model, 0.5, ALL)
    x = rng.random((3, *model.shape), np.float32)
    np.testing.assert_allclose(small.apply(x).y, model.apply(x).y, atol=2e-5)
    before, after = (sum(p.size for p in jax.tree.leaves(m.variables)) for m in (model, small))
    assert after < 0.6 * before


def test_the_smaller_model_is_saved_loaded_and_trained_on(trained, tmp_path, capsys):
    out = tmp_path / "half.safetensors"
    assert main(["shrink", trained.name, "--keep", "0.5", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"--from {out}" in said
    small = aejax.load(out)
    x = np.zeros((1, *small.shape), np.float32)
    assert small.apply(x).y.shape == x.shape
    command = ["train", "--from", str(out), "--workdir", str(tmp_path / "run"), "--quiet",
               "--config.train.length=2 steps"]  # fmt: skip
    assert main(command) == 0


def test_the_largest_units_stay():
    group = channels.Group(("f_E", "hidden", 0), 4, (("a", -1), ("b", 0)))
    a, b = np.ones((3, 4)), np.ones((8, 2))  # b holds each unit twice
    a[:, 1] = 5.0
    b[[3, 7]] = 4.0
    assert channels.kept_units(group, {"a": a, "b": b}, 0.5).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--keep", "1.5"], "the fraction of channels to keep"),
        (["gray", "--keep", "0.5"], "can be removed from autoencoders with f_E and f_D"),
        (["digits"], "nothing to do: give --keep, --rank, --store or --sparse"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["shrink", *arguments, "-o", "small"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_share_outside_is_refused(trained):
    with pytest.raises(UserError, match="above 0 and below 1"):
        channels.without_channels(trained, 1.5)
