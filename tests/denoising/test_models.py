"""Denoisers keep shapes of any size, are homogeneous, and know what they were told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.denoising.cost import macs_per_pixel
from aejax.denoising.models import DnCNN, ResidualDenoiser, UNetDenoiser, with_one_more_level
from aejax.errors import UserError
from tests.helpers import others_slow

SMALL = {"widths": (8, 16), "blocks": (1, 1, 1)}
MODELS = {
    "unet": UNetDenoiser(**SMALL),
    "gated": UNetDenoiser(**SMALL, block="gated"),
    "residual": ResidualDenoiser(width=8, blocks=2),
    "dncnn": DnCNN(depth=4, width=8),
}


@functools.partial(jax.jit, static_argnums=0)
def init(model, x, cond=None):
    """As one program: op by op is compiled op by op."""
    return model.init(jax.random.key(0), x, cond)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, *args):
    return model.apply(*args)


def trained(model, x, cond=None, scale=0.1, seed=1):
    """Variables as after some training: nothing is zero any more."""
    variables = init(model, x, cond)
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    leaves = [v + scale * jax.random.normal(k, v.shape) for v, k in zip(leaves, keys, strict=True)]
    return {**variables, "params": jax.tree.unflatten(tree, leaves)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "shape", [pytest.param((2, 16, 24, 1), marks=pytest.mark.slow), (1, 13, 9, 3)]
)
def test_any_size_and_both_channel_counts_start_as_the_identity(name, shape):
    x = jax.random.uniform(jax.random.key(0), shape)
    model = MODELS[name]
    out = apply(model, init(model, x), x)
    np.testing.assert_array_equal(out.y, x)
    y = apply(model, trained(model, x), x).y
    assert y.shape == shape and float(jnp.abs(y - x).max()) > 1e-3


@pytest.mark.parametrize("name,exact", [("unet", True), ("residual", True), ("gated", False)])
def test_bias_free_models_are_homogeneous(name, exact):
    x = 0.2 + jax.random.uniform(jax.random.key(0), (1, 16, 16, 1))
    model = MODELS[name]
    v = trained(model, x)
    y, y3 = apply(model, v, x).y, apply(model, v, 3 * x).y
    np.testing.assert_allclose(y3, 3 * y, rtol=1e-4 if exact else 2e-2, atol=1e-4)
    biased = UNetDenoiser(**SMALL, bias_free=False)
    v = trained(biased, x)
    assert float(jnp.abs(apply(biased, v, 3 * x).y - 3 * apply(biased, v, x).y).max()) > 1e-2


def test_told_always_needs_and_uses_the_level():
    model = UNetDenoiser(**SMALL, told="always")
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 1))
    with pytest.raises(UserError, match="needs the noise level"):
        model.init(jax.random.key(0), x)
    cond = {"sigma": jnp.array([0.1, 0.2])}
    v = trained(model, x, cond)
    same = {"sigma": jnp.array([0.1, 0.1])}
    a, b = apply(model, v, x, cond).y, apply(model, v, x, same).y
    np.testing.assert_array_equal(a[0], b[0])
    assert float(jnp.abs(a[1] - b[1]).max()) > 1e-4
    with pytest.raises(UserError, match="one of never"):
        UNetDenoiser(**SMALL, told="yes").init(jax.random.key(0), x)


def test_told_sometimes_hides_the_level_of_most_examples_in_training_only():
    model = UNetDenoiser(**SMALL, told="sometimes")
    x = jnp.tile(jax.random.uniform(jax.random.key(0), (1, 8, 8, 1)), (200, 1, 1, 1))
    cond = {"sigma": jnp.full((200,), 0.2)}
    v = trained(model, x[:1], {"sigma": cond["sigma"][:1]})
    told, blind = apply(model, v, x, cond).y, apply(model, v, x).y
    assert float(jnp.abs(told - blind).max()) > 1e-4
    seen = model.apply(v, x, cond, train=True, rngs={"bottleneck": jax.random.key(3)}).y
    is_told = np.abs(np.asarray(seen - told)).max((1, 2, 3)) < 1e-6
    is_blind = np.abs(np.asarray(seen - blind)).max((1, 2, 3)) < 1e-6
    assert (is_told ^ is_blind).all() and 0.15 < is_told.mean() < 0.45


@pytest.mark.parametrize("name", others_slow(["unet", "gated", "residual", "dncnn"], "unet"))
def test_reach_bounds_what_an_input_can_influence(name):
    """The margin of tiles rests on it."""
    model = MODELS[name]
    side = 2 * (model.reach // model.stride + 2) * model.stride
    x = jax.random.uniform(jax.random.key(0), (1, side, side, 1))
    v = trained(model, x, scale=0.3)
    middle = side // 2 // model.stride * model.stride
    grad = jax.jit(jax.grad(lambda x: model.apply(v, x).y[0, middle, middle, 0]))(x)
    rows, cols = np.nonzero(np.asarray(grad[0, ..., 0]))
    far = max(np.abs(rows - middle).max(), np.abs(cols - middle).max())
    assert far <= model.reach
    assert far >= model.reach // 4  # and is no wild overestimate


def test_blocks_must_fit_widths():
    with pytest.raises(UserError, match="take 3 numbers"):
        UNetDenoiser(widths=(8, 16), blocks=(1, 1)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def test_costs_are_those_of_the_literature():
    """DnCNN-S: 554 kMAC per pixel and 0.55 M parameters (Zhang et al. 2017, convolutions only)."""
    assert abs(macs_per_pixel(DnCNN(depth=17), 1, 32) / 1e3 - 554) < 1
    by_hand = 9 * (4 * 8 + 4 * 8 * 8 + 8 * 4) / 4  # head, 2 blocks of 2, tail at half resolution
    assert macs_per_pixel(ResidualDenoiser(width=8, blocks=2), 1, 32) == pytest.approx(by_hand)


def test_dncnn_normalises_by_the_batch_in_training_and_keeps_statistics():
    model, x = MODELS["dncnn"], jax.random.uniform(jax.random.key(0), (4, 16, 16, 1))
    v = init(model, x)
    _, changed = model.apply(v, x, train=True, mutable=["batch_stats"])
    before, after = (jax.tree.leaves(s["batch_stats"]) for s in (v, changed))
    assert any(float(jnp.abs(a - b).max()) > 1e-4 for a, b in zip(before, after, strict=True))


def test_one_more_level_is_the_same_function_until_it_is_trained():
    x = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    shallow = UNetDenoiser(widths=(8, 16), blocks=(1, 2, 1), told="sometimes")
    deep = UNetDenoiser(widths=(8, 16, 24), blocks=(1, 1, 2, 1, 1))
    v = trained(shallow, x, {"sigma": jnp.zeros(1)})
    found = {"params": with_one_more_level(v["params"], 24)}
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, dict(init(deep, x)))
    np.testing.assert_allclose(apply(deep, found, x).y, apply(shallow, v, x).y, atol=1e-5)
    moved = {
        "params": {**found["params"], "up1_from": {"Conv_0": {"kernel": jnp.ones((1, 1, 24, 64))}}}
    }
    assert float(jnp.abs(apply(deep, moved, x).y - apply(deep, found, x).y).max()) > 1e-3
