"""Non-local averages against their definition, written pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.denoising.similar import SimilarDenoiser, box_mean, nonlocal_means

RNG = np.random.default_rng(0)
CLEAN = np.tile(RNG.random((1, 4, 4, 2)), (1, 3, 3, 1))[:, :, :11].astype(np.float32)  # 12 x 11
NOISY = CLEAN + 0.1 * RNG.standard_normal(CLEAN.shape).astype(np.float32)
PILOT = CLEAN + 0.02 * RNG.standard_normal(CLEAN.shape).astype(np.float32)
KEY = jax.random.key(0)


def around(x, i, j, radius):
    """The square of 2 radius + 1 pixels around a pixel of x [h, w, c], mirrored at borders: the
    pixel at the border stands on both sides of it."""

    def inside(n, size):
        n %= 2 * size
        return min(n, 2 * size - 1 - n)

    near = range(-radius, radius + 1)
    h, w = x.shape[:2]
    return np.array([[x[inside(i + a, h), inside(j + b, w)] for b in near] for a in near])


def by_definition(x_tilde, pilot, radius, patch, widths):
    """(averages [h, w, k, c], weights [h, w, k]) of x_tilde, pilot [h, w, c]."""
    h, w, c = x_tilde.shape
    taken = np.mean((x_tilde - pilot) ** 2, -1, keepdims=True)
    averages, weights = np.zeros((h, w, len(widths), c)), np.zeros((h, w, len(widths)))
    for i in range(h):
        for j in range(w):
            power = around(taken, i, j, 8).mean()
            p = patch // 2
            own = around(pilot, i, j, p)
            wide, noisy = around(pilot, i, j, radius + p), around(x_tilde, i, j, radius)
            for k, limit in enumerate(widths):
                total, weight = np.zeros(c), 0.0
                for a in range(2 * radius + 1):
                    for b in range(2 * radius + 1):
                        if (a, b) == (radius, radius):
                            continue
                        d2 = np.mean((wide[a : a + patch, b : b + patch] - own) ** 2)
                        v = max(0.0, 1 - d2 / (limit**2 * power + 1e-7)) ** 2
                        total, weight = total + v * noisy[a, b], weight + v
                share = weight / (weight + 0.1)
                averages[i, j, k] = share * total / (weight + 1e-9) + (1 - share) * pilot[i, j]
                weights[i, j, k] = weight
    return averages, weights


def test_box_mean_at_the_borders_too():
    got = box_mean(jnp.asarray(NOISY), 5)
    want = [[around(NOISY[0], i, j, 2).mean((0, 1)) for j in range(11)] for i in range(12)]
    np.testing.assert_allclose(got[0], want, atol=1e-6)


@pytest.mark.parametrize(("radius", "patch"), [(4, 3), (5, 1), (4, 5)])
def test_averages_and_weights_are_those_of_the_definition(radius, patch):
    widths = (0.2, 0.6)
    averages, weights = nonlocal_means(NOISY, PILOT, radius, patch, widths)
    want_averages, want_weights = by_definition(NOISY[0], PILOT[0], radius, patch, widths)
    assert 0.5 < want_weights.max() and (want_weights == 0).any()  # some have company, some none
    np.testing.assert_allclose(weights[0], want_weights, atol=2e-3)
    np.testing.assert_allclose(averages[0], want_averages, atol=2e-3)


def test_what_repeats_is_averaged_and_what_is_alone_keeps_the_pilot():
    averages, weights = nonlocal_means(NOISY, CLEAN, 4, 3, (0.4,))
    middle = (slice(None), slice(4, 8), slice(4, 8))  # sees its like above, below and beside
    error, noise = (np.square(v - CLEAN)[middle].mean() for v in (averages[:, :, :, 0], NOISY))
    assert error < 0.5 * noise and weights[middle].min() > 2.5
    alone = np.asarray(RNG.random((1, 9, 9, 1)), np.float32)
    averages, weights = nonlocal_means(alone + 0.01, alone, 1, 3, (0.01,))
    np.testing.assert_array_equal(weights, 0)
    np.testing.assert_array_equal(averages[..., 0, :], alone)


@pytest.mark.parametrize("same", [False, True], ids=["noise", "no noise"])
def test_gradients_are_finite_and_those_of_small_steps(same):
    pilot = NOISY if same else PILOT

    def f(noisy, pilot):
        averages, weights = nonlocal_means(noisy, pilot, 2, 3, (0.5,))
        return jnp.sum(jnp.sin(3 * averages)) + jnp.sum(weights)

    value, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(NOISY, pilot)
    assert jnp.isfinite(value) and all(jnp.isfinite(g).all() for g in grads)
    if not same:
        d = jnp.asarray(RNG.standard_normal(NOISY.shape), jnp.float32)
        e = 1e-3
        step = (f(NOISY + e * d, pilot) - f(NOISY - e * d, pilot)) / (2 * e)
        assert jnp.vdot(grads[0], d) == pytest.approx(float(step), rel=0.02)


def test_pictures_smaller_than_the_window():
    x = jnp.asarray(RNG.random((2, 3, 2, 1)), jnp.float32)
    averages, weights = nonlocal_means(x, 0.9 * x, 7, 5, (0.5, 1.0))
    assert averages.shape == (2, 3, 2, 2, 1) and weights.shape == (2, 3, 2, 2)
    assert jnp.isfinite(averages).all() and jnp.isfinite(weights).all()


def test_the_refinement_starts_as_nothing_and_a_frozen_network_takes_no_gradient():
    model = SimilarDenoiser((8, 8), (1, 1, 1), fine=8, depth=1, radius=2, patch=3, frozen=True)
    x = jnp.asarray(NOISY[..., :1])
    variables = model.init(KEY, x)
    first = {"params": variables["params"]["first"]}
    y1 = model._first(parent=None).apply(first, x)
    np.testing.assert_allclose(model.apply(variables, x).y, y1.y, atol=1e-6)
    assert (model.stride, model.reach) == (4, model._first(parent=None).reach + 2 + 8 + 10)

    def loss(params):
        return jnp.sum(jnp.square(model.apply({"params": params}, x).y - CLEAN[..., :1]))

    grads = jax.grad(loss)(variables["params"])
    assert not any(jnp.any(g) for g in jax.tree.leaves(grads.pop("first")))
    assert jnp.any(grads["tail"]["kernel"])
