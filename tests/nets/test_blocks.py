"""Blocks: the identity at the start, sizes, homogeneity, dtypes, and no slow gradient in a loop."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.nets import blocks, ops

X = jax.random.normal(jax.random.key(0), (2, 6, 8, 8))


def initialise(module, key, x):
    """Dense and Conv have a field called `init`, which hides Module.init where they stand alone."""
    return jax.jit(functools.partial(nn.Module.init, module))(key, x)


def perturbed(module, x=X, seed=1):
    """Variables with every parameter away from its start."""
    variables = initialise(module, jax.random.key(seed), x)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


@pytest.mark.parametrize(
    "module, shape",
    [
        (blocks.Dense(5), (2, 6, 8, 5)),
        (blocks.Conv(5, 3), (2, 6, 8, 5)),
        (blocks.Conv(5, 5, 2), (2, 3, 4, 5)),
        (blocks.DepthwiseConv(5), (2, 6, 8, 8)),
        (blocks.Downsample(5), (2, 3, 4, 5)),
        (blocks.Upsample(5, 2, 3), (2, 12, 16, 5)),
        (blocks.LayerNorm(), (2, 6, 8, 8)),
        (blocks.ResBlock(12), (2, 6, 8, 12)),
        (blocks.GatedBlock(kernel=5, expand=4), (2, 6, 8, 8)),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
def test_sizes_and_types(module, shape, dtype):
    module = module.clone(dtype=dtype)
    variables = initialise(module, jax.random.key(0), X)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
    y = module.apply(variables, X)
    assert y.shape == shape and y.dtype == dtype
    loss = lambda v: module.apply(v, X).astype(jnp.float32).sum()  # noqa: E731
    grads = jax.jit(jax.grad(loss))(variables)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("module", [blocks.ResBlock(), blocks.GatedBlock()])
def test_residual_blocks_begin_as_the_identity(module):
    variables = initialise(module, jax.random.key(0), X)
    np.testing.assert_array_equal(module.apply(variables, X), X)
    assert not np.allclose(module.apply(perturbed(module), X), X)


@pytest.mark.parametrize(
    "module",
    [
        blocks.Dense(5),
        blocks.Conv(5),
        blocks.DepthwiseConv(),
        blocks.Downsample(4),
        blocks.Upsample(4),
        blocks.ResBlock(6),
        blocks.GatedBlock(),
    ],
)
def test_without_biases_a_block_is_homogeneous(module):
    for bias_free in (False, True):
        m = module.clone(bias_free=bias_free)
        variables = perturbed(m)
        apply = jax.jit(m.apply)
        y = apply(variables, X)
        error = np.abs(apply(variables, 7.0 * X) - 7.0 * y).max() / np.abs(7.0 * y).max()
        assert error < 1e-5 if bias_free else error > 1e-3


def test_layer_norm_forgets_scale():
    variables = perturbed(blocks.LayerNorm())
    y = blocks.LayerNorm().apply(variables, X)
    np.testing.assert_allclose(blocks.LayerNorm().apply(variables, 100 * X), y, atol=1e-4)


@pytest.mark.parametrize("module", [blocks.ResBlock(), blocks.GatedBlock(), blocks.Upsample(8)])
def test_blocks_are_equal_in_every_form(module):
    variables = perturbed(module)
    gradient = jax.jit(jax.grad(lambda v, x: (module.apply(v, x) ** 2).mean(), (0, 1)))
    with ops.forms(all="plain"):
        expected = gradient(variables, X)
    for form, tol in (("cpu_f32", 2e-5), ("cpu_bf16", 3e-2)):
        with ops.forms(all=form):
            found = gradient(variables, X)
        for e, r in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            # In the mean over elements: rounding decides on which side of zero a few relus are.
            assert np.linalg.norm(r - e) < tol * np.linalg.norm(e)
