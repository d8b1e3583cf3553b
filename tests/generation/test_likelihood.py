"""Likelihoods against SciPy, against sums to one, and in their tails."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from aejax.errors import UserError
from aejax.generation import likelihood as L
from aejax.types import Output

KEY = jax.random.key(0)
SHAPE = (3, 4, 4, 2)


def pair():
    return jax.random.uniform(KEY, SHAPE), jax.random.uniform(jax.random.key(1), SHAPE)


def test_normal_against_scipy():
    x, y = pair()
    reference = scipy.stats.norm.logpdf(x, y, 0.3).sum((1, 2, 3))
    np.testing.assert_allclose(L.normal(x, y, 0.3), reference, rtol=1e-5)
    np.testing.assert_allclose(L.gaussian(x, y, jnp.full((3, 1, 1, 1), 2 * math.log(0.3))),
                               reference, rtol=1e-5)  # fmt: skip


def test_sigma_zero_is_the_best_sigma():
    x, y = pair()
    best = float(L.normal(x, y).sum())
    others = [float(L.normal(x, y, s).sum()) for s in np.linspace(0.2, 0.8, 61)]
    assert best >= max(others) - 1e-3 and best == pytest.approx(max(others), rel=1e-3)


def test_bernoulli_against_scipy_and_in_the_tails():
    x = (pair()[0] > 0.5).astype(jnp.float32)
    logits = 6.0 * pair()[1] - 3.0
    reference = scipy.stats.bernoulli.logpmf(np.asarray(x), jax.nn.sigmoid(logits)).sum((1, 2, 3))
    np.testing.assert_allclose(L.bernoulli(x, logits), reference, rtol=1e-4)
    far = L.bernoulli(jnp.ones((1, 1, 1, 1)), jnp.full((1, 1, 1, 1), -500.0))
    assert float(far[0]) == pytest.approx(-500.0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("spread", [0.3, 3.0, 30.0])
def test_mixture_sums_to_one(channels, spread):
    """Over all values of all channels, also far out in the tails."""
    levels, m = 5, 3
    width = L.mixture_parameters(channels, m)
    params = spread * jax.random.normal(KEY, (1, 1, 1, width))
    grid = np.array(list(itertools.product(range(levels), repeat=channels))) / (levels - 1)
    x = jnp.asarray(grid, jnp.float32)[:, None, None, :]
    params = jnp.broadcast_to(params, (len(grid), 1, 1, width))
    total = jnp.exp(jax.jit(lambda p: L.logistic_mixture(x, p, m, levels))(params)).sum()
    assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_mixture_against_differences_of_cdfs():
    mean, scale = 0.1, 0.4
    params = jnp.array([0.0, mean, math.log(scale)]).reshape(1, 1, 1, 3)
    log_p = jax.jit(lambda x: L.logistic_mixture(x, params, 1))
    for value in (0, 100, 255):
        v = value / 255 * 2 - 1
        low = 0.0 if value == 0 else scipy.stats.logistic.cdf(v - 1 / 255, mean, scale)
        high = 1.0 if value == 255 else scipy.stats.logistic.cdf(v + 1 / 255, mean, scale)
        ours = log_p(jnp.full((1, 1, 1, 1), value / 255))
        assert float(ours[0]) == pytest.approx(math.log(high - low), abs=1e-3)


def test_mixture_has_a_gradient_in_the_far_tail():
    params = jnp.array([0.0, -1.0, -6.0]).reshape(1, 1, 1, 3)  # sharp, at the other end
    x = jnp.full((1, 1, 1, 1), 0.9)
    value, grad = jax.jit(jax.value_and_grad(lambda p: L.logistic_mixture(x, p, 1)[0]))(params)
    assert np.isfinite(value) and value < -100
    assert np.all(np.isfinite(grad)) and abs(float(grad[0, 0, 0, 1])) > 1


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "gaussian_shared", "mixture"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoder_gives_what_the_likelihood_needs(name, channels):
    net = L.LikelihoodDecoder(
        latent=5, shape=(4, 4, channels), decoder="dense", likelihood=name, mixtures=2,
        arguments={"hidden": (8,)},
    )  # fmt: skip
    h = jax.random.normal(KEY, (2, 5))
    out, _ = jax.jit(net.init_with_output)(KEY, h)
    y = out.pop("y")
    assert y.shape == (2, 4, 4, channels)
    x = jnp.round(jax.random.uniform(KEY, y.shape))
    output = Output(h, h, y, {}, out)
    kwargs = {"mixtures": 2} if name == "mixture" else {}
    value = jax.jit(lambda o: L.log_likelihood(name.removesuffix("_shared"), x, o, **kwargs))(
        output
    )
    assert value.shape == (2,) and bool(jnp.all(jnp.isfinite(value)))


def test_wrong_decoder_is_the_users_error():
    x = jnp.zeros((1, 2, 2, 1))
    with pytest.raises(UserError, match="LikelihoodDecoder"):
        L.log_likelihood("bernoulli", x, Output(x, x, x))
    with pytest.raises(UserError, match="did you mean"):
        L.log_likelihood("bernouli", x, Output(x, x, x))
