"""Distillation: a pupil follows its teacher; an evaluation knows of no teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax
from aejax.config import part
from aejax.errors import UserError
from aejax.objective import build_objective
from aejax.small.distil import code_distance
from tests.helpers import tiny

NAME = "aejax.small.distil:Distil"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    aejax.train(tiny(train__length="30 steps"), workdir, quiet=True)
    return str(workdir)


def pupil(teacher, **kwargs):
    c = tiny(objective__name=NAME, model__latent=2, train__length="30 steps", optim__lr=3e-3)
    for name, value in ({"teacher": teacher} | kwargs).items():
        c.objective.kwargs[name] = value
    return c


def test_the_loss_is_a_mixture_in_training_and_the_plain_one_in_an_evaluation(teacher):
    model = aejax.load(teacher)
    c = pupil(teacher, outputs=0.25)
    objective, plain = build_objective(c), build_objective(tiny())
    rng = np.random.default_rng(0)
    batch = {"image": jnp.asarray(rng.random((4, *model.shape)), jnp.float32)}
    other = jax.tree.map(lambda p: p * 0.9, model.variables)
    key = jax.random.key(0)
    loss, aux = objective(model.model, other, batch, key, True)
    own, _ = plain(model.model, other, batch, key, True)
    np.testing.assert_allclose(loss, 0.75 * own + 0.25 * aux.metrics["to_teacher"], rtol=1e-5)
    y, target = (model.model.apply(v, batch["image"]).y for v in (other, model.variables))
    np.testing.assert_allclose(
        aux.metrics["to_teacher"], jnp.mean((y - target) ** 2, (1, 2, 3)), rtol=1e-5
    )
    tested, _ = objective(model.model, other, batch, key, False)
    np.testing.assert_allclose(tested, plain(model.model, other, batch, key, False)[0], rtol=1e-6)


def test_a_pupil_comes_nearer_to_its_teacher(teacher, tmp_path):
    model = aejax.load(teacher)
    x = np.random.default_rng(0).random((16, *model.shape), np.float32)
    apart = []
    for n, length in enumerate(("1 steps", "60 steps")):
        c = pupil(teacher, outputs=1.0, features=0.1)
        c.train.length = length
        aejax.train(c, tmp_path / str(n), quiet=True)
        y = aejax.load(tmp_path / str(n)).apply(x).y
        apart.append(float(jnp.mean((y - model.apply(x).y) ** 2)))
    assert apart[1] < 0.7 * apart[0]


def test_codes_of_two_sizes_are_compared_by_distances():
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((6, 5)), jnp.float32)
    turned = 3.0 * jnp.concatenate([a[:, ::-1], jnp.zeros((6, 2))], 1)  # the same distances
    np.testing.assert_allclose(code_distance(a, turned), 0.0, atol=1e-8)
    assert (code_distance(a, jnp.asarray(rng.standard_normal((6, 2)), jnp.float32)) > 1e-3).all()
    np.testing.assert_allclose(code_distance(a, a + 2.0), 4.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"teacher": ""}, "teacher is missing"),
        ({"outputs": 1.5}, "a weight from 0 to 1"),
        ({"teacher": "gray", "features": 1.0}, '"gray" has no code'),
        ({"teacher": "grey"}, 'no run and no weights "grey"'),
    ],
)
def test_mistakes(teacher, kwargs, message):
    c = pupil(teacher)
    for name, value in kwargs.items():
        c.objective.kwargs[name] = value
    if kwargs == {"teacher": "grey"}:
        c.objective.kwargs.features = 1.0
    with pytest.raises(UserError, match=message):
        build_objective(c)


@pytest.mark.slow
def test_a_convolutional_pupil_of_a_dense_teacher(teacher, tmp_path):
    c = pupil(teacher)
    c.model.f_E, c.model.f_D = part("conv", widths=(4, 8)), part("conv", widths=(4, 8))
    c.train.length = "2 steps"
    assert np.isfinite(aejax.train(c, tmp_path / "run", quiet=True).metrics["test/mse"])
