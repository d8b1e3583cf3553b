"""Fewer multiplications, the same convolution: against lax in float32 and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from aejax.nets import ops
from aejax.nets.ops import winograd

SHAPES = [(1, 1, 1, 3, 2), (3, 7, 9, 5, 4), (2, 8, 12, 6, 3), (5, 34, 33, 4, 4), (2, 3, 70, 2, 3)]


@pytest.mark.parametrize("t", [2, 4])
def test_the_identity_in_one_dimension(t):
    """A^T [(G g) * (B^T d)] is the correlation of d with g."""
    rng = np.random.default_rng(t)
    d, g = rng.standard_normal(t + 2), rng.standard_normal(3)
    b, k, a = (np.array(m[t]) for m in (winograd.B_T, winograd.G, winograd.A_T))
    np.testing.assert_allclose(a @ ((k @ g) * (b @ d)), correlate(d, g, "valid"), atol=1e-10)


@pytest.mark.parametrize("t", [pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("n, h, w, c, o", SHAPES)
def test_equal_to_lax(n, h, w, c, o, t):
    keys = jax.random.split(jax.random.key(h), 3)
    x = jax.random.normal(keys[0], (n, h, w, c))
    k = jax.random.normal(keys[1], (3, 3, c, o))
    g = jax.random.normal(keys[2], (n, h, w, o))
    with ops.forms(conv="plain"):
        y, pull = jax.vjp(ops.conv, x, k)
        dw = pull(g)[1]
    found = jax.jit(winograd.conv, static_argnums=2)(x, k, t)
    np.testing.assert_allclose(found, y, rtol=0, atol=5e-6 * np.abs(y).max())
    found = jax.jit(winograd.weight_gradient, static_argnums=2)(x, g, t)
    np.testing.assert_allclose(found, dw, rtol=0, atol=5e-6 * np.abs(dw).max())


def test_the_weight_gradient_of_many_pixels():
    """Long sums: the error is in the size of float32's own, measured in float64."""
    n, s, c = 8, 32, 16
    x = np.asarray(jax.random.normal(jax.random.key(0), (n, s, s, c)))
    g = np.asarray(jax.random.normal(jax.random.key(1), (n, s, s, c)))
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64)
    exact = np.stack(
        [
            np.tensordot(
                wide[:, i : i + s, j : j + s], g.astype(np.float64), ([0, 1, 2], [0, 1, 2])
            )
            for i in range(3)
            for j in range(3)
        ]
    ).reshape(3, 3, c, c)
    found = winograd.weight_gradient(jnp.asarray(x), jnp.asarray(g))
    assert np.abs(found - exact).max() < 3e-6 * np.abs(exact).max()


@pytest.mark.parametrize(("count", "side"), [(6, 128), (2, 272)], ids=["threes", "one by one"])
def test_several_pictures_at_a_time_change_nothing(count, side):
    assert count * side**2 > winograd.PIXELS
    x = jax.random.normal(jax.random.key(0), (count, side, side, 4))
    k = jax.random.normal(jax.random.key(1), (3, 3, 4, 4))
    alone = jnp.concatenate([winograd.conv(picture[None], k) for picture in x])
    np.testing.assert_allclose(winograd.conv(x, k), alone, atol=5e-6 * np.abs(alone).max())


def test_taken_for_many_channels_unless_exactness_is_asked_for():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-9, 10, (1, 64, 64, 64)), jnp.float32)
    k = jnp.asarray(rng.integers(-9, 10, (3, 3, 64, 64)), jnp.float32)
    with ops.forms(conv="plain"):
        whole = ops.conv(x, k)
    with ops.forms(conv="cpu_f32"):
        found = ops.conv(x, k)
        assert 0 < np.abs(found - whole).max() < 5e-6 * np.abs(whole).max()
        with jax.default_matmul_precision("highest"):
            np.testing.assert_array_equal(ops.conv(x, k), whole)
