"""f_E, f_D and what joins them: shapes for any size, the linear optimum, gradients in bfloat16."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax.config import base, part
from aejax.errors import UserError
from aejax.nets.autoencoder import build_model
from aejax.nets.f_E import F_E, stride_of
from aejax.nets.init import at_linear_optimum
from aejax.nets.linear import principal_components
from aejax.training import run
from aejax.training.build import build
from tests.helpers import others_slow, tiny


def model_config(**keys):
    c = base().model
    with c.unlocked():
        c.update(keys)
    return c


def photos(shape, n=64, seed=0):
    """Smooth random images, so that a few components hold most of the variance."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(6, *shape)).cumsum(1).cumsum(2)
    x = np.tensordot(rng.normal(size=(n, 6)), basis, 1) + 0.3 * rng.normal(size=(n, *shape))
    return ((x - x.min()) / (x.max() - x.min())).astype(np.float32)


PARTS = {
    "linear": ("linear", {}),
    "dense": ("dense", {"hidden": (12,)}),
    "conv": ("conv", {"widths": (4, 8)}),
    "spatial": ("conv", {"widths": (4, 8), "spatial": True}),
    "patches": ("linear", {"patch": 4}),
}


def make(kind, shape, latent=5, **keys):
    name, arguments = PARTS[kind]
    return build_model(
        model_config(
            latent=latent, f_E=part(name, **arguments), f_D=part(name, **arguments), **keys
        ),
        shape,
    )


@pytest.mark.parametrize("kind", others_slow(PARTS, "dense", "conv"))
@settings(max_examples=4, deadline=None)
@given(height=st.integers(4, 20), width=st.integers(4, 20), channels=st.sampled_from([1, 3]))
def test_any_size_comes_back_in_its_size(kind, height, width, channels):
    shape = (height, width, channels)
    model = make(kind, shape)
    x = jnp.zeros((2, *shape))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    out = jax.eval_shape(model.apply, variables, x)
    assert out.y.shape == x.shape
    stride = stride_of(model.f_E)
    grid = (-(-height // stride), -(-width // stride)) if stride else ()
    assert out.h.shape == (2, *grid, model.f_E.latent)


@pytest.mark.parametrize("kind", others_slow(PARTS, "linear", "spatial"))
def test_pca_start_is_the_linear_optimum(kind):
    x, k = photos((8, 12, 1)), 3
    model = make(kind, x.shape[1:], latent=k, init="pca")
    variables = jax.jit(model.init)(jax.random.key(0), jnp.asarray(x))
    started = at_linear_optimum(model, variables, jnp.asarray(x))
    y = np.asarray(jax.jit(model.apply)(started, x).y)
    patch = 4 if kind in ("spatial", "patches") else 0
    rows = x.reshape(len(x), -1)
    if patch:
        rows = x.reshape(-1, 2, 4, 3, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16)
    mean, basis = principal_components(rows, k)
    error = ((rows - mean) - (rows - mean) @ basis @ basis.T) ** 2
    np.testing.assert_allclose(np.mean((x - y) ** 2), error.mean(), rtol=1e-3)
    # and the network is not cut off: its scale has a gradient
    if kind not in ("linear", "patches"):
        loss = lambda v: jnp.mean((model.apply(v, x).y - x) ** 2)  # noqa: E731
        assert np.abs(jax.jit(jax.grad(loss))(started)["params"]["f_D"]["scale"]).max() > 0


@pytest.mark.parametrize("kind", others_slow(["dense", "conv", "spatial"], "dense"))
def test_gradients_are_finite_in_bfloat16(kind):
    x = photos((8, 8, 3), 4)
    model = make(kind, x.shape[1:], dtype="bfloat16")
    variables = jax.jit(model.init)(jax.random.key(0), x)
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(variables))
    loss = lambda v: jnp.mean((model.apply(v, x).y.astype(jnp.float32) - x) ** 2)  # noqa: E731
    grads = jax.tree.leaves(jax.jit(jax.grad(loss))(variables))
    assert all(np.isfinite(g).all() for g in grads) and any(np.abs(g).max() > 0 for g in grads)


def test_linear_autoencoder_reaches_pca(tmp_path):
    """Baldi and Hornik (1989): from a random start, the error of PCA, within 1 %."""
    c = tiny(
        model__f_E=part("linear"), model__f_D=part("linear"), model__latent=8,
        train__length="1500 steps", train__steps_per_dispatch=50, data__batch=256,
        optim__lr=2e-2, data__eval_split="train", eval__examples=0,
        eval__batch=256, eval__metrics=("mse",), eval__best="-mse",
    )  # fmt: skip
    result = run.train(c, tmp_path, quiet=True)
    parts = build(c)
    x = parts.pipeline.resident["image"].reshape(parts.pipeline.n, -1) / 255.0
    mean, basis = principal_components(x.astype(np.float32), 8)
    best = np.mean((x - mean - (x - mean) @ basis @ basis.T) ** 2)
    # evaluation clips y to [0, 1], which can only help; the loss does not
    assert result.metrics["test/loss"] == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"latent": 0}, "whole number from 1"),
        ({"dtype": "float16"}, "float32 or bfloat16"),
        ({"init": "zeros"}, "random or pca"),
        ({"f_E": part("dens")}, 'did you mean "dense"'),
        ({"f_E": part("dense", hiden=(3,))}, 'did you mean "hidden"'),
        ({"name": "no.such.module:Model"}, "no module"),
    ],
)
def test_impossible_models_are_named(keys, words):
    with pytest.raises(UserError, match=words):
        build_model(model_config(**keys), (8, 8, 1))


def test_every_encoder_has_a_decoder_of_its_name():
    from aejax.nets.f_D import F_D

    assert set(F_E) == set(F_D)


def test_components_cost_the_smaller_of_n_and_d():
    """72 pictures of 32x32x3: a matrix of 3,072 x 3,072 would take 75 MB; of 96x96x3, 6 GB."""
    rng = np.random.default_rng(0)
    rows = (rng.random((72, 10)) @ rng.random((10, 3072))).astype(np.float32)
    tracemalloc.start()
    mean, basis = principal_components(rows, 80)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    np.testing.assert_allclose(basis.T @ basis, np.eye(80), atol=1e-3)  # what 72 cannot span too
    centred = rows - mean
    kept = centred @ basis[:, :10] @ basis[:, :10].T
    np.testing.assert_allclose(kept, centred, atol=1e-2)


def test_a_wide_problem_has_the_components_of_its_transpose():
    rows = np.random.default_rng(1).standard_normal((30, 50)).astype(np.float32)
    _, _, right = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    _, basis = principal_components(rows, 5)
    np.testing.assert_allclose(np.abs(np.sum(basis * right[:5].T, 0)), 1, atol=1e-4)
