"""The arithmetic that must give the same bits everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.codec import exact
from aejax.nets import ops

FORMS = ("plain", "cpu_f32", "cpu_bf16")


def activations(rng, shape):
    return (rng.integers(-127, 128, shape) * exact.UNIT).astype(np.float32)


def test_rounded_is_floor_of_half_more_and_passes_the_gradient():
    v = jnp.array([-0.5, 0.5, 1.49, -1.51, 2.5])
    np.testing.assert_array_equal(exact.rounded(v), [0, 1, 1, -2, 3])
    g = jax.grad(lambda v: (exact.rounded(v, 0.25) * jnp.arange(5.0)).sum())(v)
    np.testing.assert_array_equal(g, np.arange(5.0))


def test_bounded_keeps_the_gradient_that_leads_back():
    x = jnp.array([-3.0, -3.0, 0.0, 3.0, 3.0])
    pull = jnp.array([1.0, -1.0, 1.0, 1.0, -1.0])  # the gradient; descent goes the other way
    g = jax.grad(lambda x: (exact.bounded(x, -1.0, 1.0) * pull).sum())(x)
    # Below the bound a positive gradient would push further down: it is lost; above, a negative.
    np.testing.assert_array_equal(g, [0.0, -1.0, 1.0, 1.0, 0.0])


def test_a_rectifier_that_is_off_has_no_gradient_whatever_would_help():
    x = jnp.array([-1.0, -0.2, 0.5, 3.0, 9.0])
    for sign in (1.0, -1.0):
        slope = jax.grad(lambda x, s=sign: s * exact.activation(x, 0.0).sum())(x)
        np.testing.assert_array_equal(slope, sign * np.array([0.0, 0.0, 1.0, 1.0, 0.0]))


def test_companded_is_odd_monotone_and_an_activation():
    v = np.arange(-60 * 16, 60 * 16 + 1) * exact.UNIT
    c = np.asarray(exact.companded(jnp.asarray(v, jnp.float32)))
    assert (np.diff(c) >= 0).all() and (c == -c[::-1]).all()
    assert np.abs(c).max() == exact.TOP and (c * 16 == np.round(c * 16)).all()
    np.testing.assert_array_equal(c[np.abs(v) <= 4], v[np.abs(v) <= 4])


def test_quantised_weights_are_127_units_at_most_and_stay_what_they_are():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(50, 300)) * np.exp(3 * rng.normal(size=300))
    w[:, 0], w[0, 1:129] = 0, np.ldexp(127.0, np.arange(128) % 11 - 12)
    once = exact.quantised(jnp.asarray(w, jnp.float32))
    unit = np.asarray(exact.weight_unit(once))
    n = np.asarray(once) / unit
    assert (n == np.round(n)).all() and np.abs(n).max() <= 127
    assert np.log2(unit).max() <= -1 and (np.log2(unit) == np.round(np.log2(unit))).all()
    np.testing.assert_array_equal(exact.quantised(once), once)
    fine = (np.abs(w).max(0) < 60) & (np.abs(w).max(0) > 0.05)
    error = np.abs(np.asarray(once) - w)[:, fine].max(0)
    assert (error <= 0.51 * unit[fine]).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("jit", (True, False))
def test_dense_is_integer_arithmetic_in_every_form(form, jit):
    rng = np.random.default_rng(1)
    x = np.full((64, exact.MAX_TERMS), exact.TOP, np.float32)
    x[1:] = activations(rng, x[1:].shape)
    w = np.ldexp(rng.integers(-127, 128, (exact.MAX_TERMS, 64)), rng.integers(-12, 0, 64))
    w[:, 0] = np.ldexp(127.0, -12)  # the largest sum there can be
    with ops.forms(all=form):
        run = jax.jit(ops.dense) if jit else ops.dense
        y = np.asarray(run(jnp.asarray(x), jnp.asarray(w, jnp.float32)))
    np.testing.assert_array_equal(y, x.astype(np.float64) @ w)


@pytest.mark.parametrize("form", FORMS)
def test_depthwise_is_integer_arithmetic_in_every_form(form):
    rng = np.random.default_rng(2)
    x = activations(rng, (2, 9, 7, 16))
    w = np.ldexp(rng.integers(-127, 128, (3, 3, 16)), -9)
    with ops.forms(all=form):
        y = np.asarray(jax.jit(ops.depthwise)(jnp.asarray(x), jnp.asarray(w, jnp.float32)))
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    want = sum(padded[:, i : i + 9, j : j + 7] * w[i, j] for i in range(3) for j in range(3))
    np.testing.assert_array_equal(y, want)


def test_too_many_terms_are_refused():
    layer = exact.ExactDense(features=3)
    with pytest.raises(ValueError, match="1040"):
        layer.init(jax.random.key(0), jnp.zeros((1, exact.MAX_TERMS + 1)))
