"""Muon's step is the orthogonal factor, of Adam's size, whatever way it is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax.denoising.optim import muon, orthogonalised, scale_by_muon


def plainly(m, rounds=5):
    """Jordan's iteration as published."""
    x = m.T if m.shape[0] > m.shape[1] else m
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(rounds):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if m.shape[0] > m.shape[1] else x


@pytest.mark.parametrize("shape", [(144, 16), (16, 144), (32, 32)])
def test_the_fast_form_is_the_published_iteration(shape):
    m = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_allclose(orthogonalised(m), plainly(m), atol=2e-5)
    s = np.linalg.svd(np.asarray(orthogonalised(m)), compute_uv=False)
    assert 0.5 < s.min() and s.max() < 1.4


def test_updates_have_adams_size_for_any_kernel():
    for shape in ((3, 3, 16, 16), (1, 1, 64, 32), (3, 3, 32, 64)):
        tx = scale_by_muon()
        g = 1e-3 * jax.random.normal(jax.random.key(0), shape)
        u, _ = tx.update({"k": g}, tx.init({"k": g}))
        rms = float(jnp.sqrt(jnp.mean(u["k"] ** 2)))
        assert 0.1 < rms < 0.3


def test_thin_layers_and_vectors_go_to_adam():
    params = {"head": jnp.ones((3, 3, 1, 32)), "k": jnp.ones((3, 3, 32, 32)), "b": jnp.ones(32)}
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), params)
    tx = muon(optax.constant_schedule(0.1))
    u, _ = tx.update(grads, tx.init(params), params)
    for name in ("head", "b"):  # Adam's first step is lr * sign
        np.testing.assert_allclose(u[name], -0.1 * jnp.sign(grads[name]), rtol=1e-3)
    assert float(jnp.abs(u["k"]).std()) > 1e-3


def test_it_minimises():
    target = jax.random.normal(jax.random.key(0), (32, 32))
    params = {"w": jnp.zeros((32, 32))}
    tx = muon(optax.cosine_decay_schedule(0.3, 100))
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        value, g = jax.value_and_grad(lambda p: jnp.mean((p["w"] - target) ** 2))(params)
        u, state = tx.update(g, state, params)
        return optax.apply_updates(params, u), state, value

    first = None
    for _ in range(100):
        params, state, value = step(params, state)
        first = value if first is None else first
    assert float(value) < 0.01 * float(first)
