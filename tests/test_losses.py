"""Each loss against its formula, and mixtures of them."""

import jax
import numpy as np
import pytest

from aejax import losses
from aejax.errors import UserError

RNG = np.random.default_rng(0)
X, Y = RNG.random((2, 3, 16, 12, 2), np.float32)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_one_finite_value_and_gradient_per_image(name):
    loss = losses.LOSSES[name]
    value = loss(X, Y)
    assert value.shape == (3,) and (value > 0).all()
    assert np.isfinite(jax.grad(lambda y: loss(X, y).sum())(Y)).all()
    swapped = loss(X[::-1], Y[::-1])
    np.testing.assert_allclose(swapped[::-1], value, rtol=1e-5)  # no image sees another


@pytest.mark.parametrize(
    "name, formula",
    [
        ("mse", lambda x, y: (x - y) ** 2),
        ("mae", lambda x, y: abs(x - y)),
        ("bce", lambda x, y: -x * np.log(y) - (1 - x) * np.log(1 - y)),
        ("charbonnier", lambda x, y: np.sqrt((x - y) ** 2 + 1e-6)),
    ],
)
def test_formulas(name, formula):
    expected = formula(X.astype(np.float64), Y.astype(np.float64)).mean((1, 2, 3))
    np.testing.assert_allclose(losses.LOSSES[name](X, Y), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["mse", "mae", "charbonnier", "ssim", "ms_ssim"])
def test_equal_images_cost_nothing(name):
    np.testing.assert_allclose(losses.LOSSES[name](X, X), 0, atol=1.1e-3)


def test_bce_outside_the_interval_pulls_back():
    x, y = np.full((1, 2, 1, 1), 0.5, np.float32), np.array([1.5, -0.5], np.float32)
    g = jax.grad(lambda y: losses.bce(x, y).sum())(y.reshape(1, 2, 1, 1)).ravel()
    assert np.isfinite(g).all() and g[0] > 0 > g[1]


def test_mixture_adds():
    loss = losses.mixture({"mse": 2.0, "ssim": 0.5})
    expected = 2 * losses.mse(X, Y) + 0.5 * losses.ssim(X, Y)
    np.testing.assert_allclose(loss(X, Y), expected, rtol=1e-6)
    imported = losses.mixture({"aejax.losses:mae": 1})
    np.testing.assert_allclose(imported(X, Y), losses.mae(X, Y))


@pytest.mark.parametrize(
    "weights, words",
    [
        ({"mes": 1.0}, 'did you mean "mse"'),
        ({}, "empty"),
        ({"mse": "1"}, "must be a number"),
        ({"mse": True}, "must be a number"),
    ],
)
def test_mistakes_are_named(weights, words):
    with pytest.raises(UserError, match=words):
        losses.mixture(weights)
