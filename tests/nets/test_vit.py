"""Transformers and the convolutional pair of tokenizers: shapes, positions, remat, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.config import base, part
from aejax.errors import UserError
from aejax.nets import vit
from aejax.nets.autoencoder import build_model
from tests.helpers import others_slow

KEY = jax.random.key(0)
SMALL = {"patch": 8, "width": 16, "depth": 2, "heads": 2}


def model(f, bottleneck="identity", shape=(32, 16, 3), dtype="float32", **more):
    c = base()
    c.model.latent, c.model.dtype = 6, dtype
    arguments = SMALL | more if f == "vit" else {"widths": (8, 8, 8), "depth": 1, **more}
    c.model.f_E, c.model.f_D = part(f, **arguments), part(f, **arguments)
    c.model.bottleneck = part(bottleneck)
    return build_model(c.model, shape)


def moved(variables, seed=1):
    """Every parameter off its start, so that no branch is zero."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return tree.unflatten(
        [v + 0.1 * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize(
    "f, more, h",
    [
        pytest.param("vit", {}, (2, 4, 2, 6), marks=pytest.mark.slow),
        ("vit", {"position": "learned", "registers": 3}, (2, 4, 2, 6)),
        pytest.param("vit", {"tokens": 5, "registers": 2}, (2, 5, 6), marks=pytest.mark.slow),
        pytest.param("vqgan", {}, (2, 8, 4, 6), marks=pytest.mark.slow),
    ],
)
def test_shapes_there_and_back(f, more, h):
    net = model(f, **more)
    x = jax.random.uniform(KEY, (2, 32, 16, 3))
    variables = net.init(KEY, x)
    out = net.apply(variables, x)
    assert out.h.shape == h and out.y.shape == x.shape and out.y.dtype == jnp.float32
    grads = jax.grad(lambda v: jnp.mean(jnp.square(net.apply(v, x).y - x)))(moved(variables))
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize("f", ["vit", "vqgan"])
def test_remat_changes_no_number(f):
    x = jax.random.uniform(KEY, (2, 32, 16, 3))
    plain, again = model(f), model(f, remat=True)
    variables = moved(plain.init(KEY, x))
    assert jax.tree.structure(variables) == jax.tree.structure(again.init(KEY, x))

    def loss(net):
        return lambda v: jnp.mean(jnp.square(net.apply(v, x).y - x))

    a, b = (jax.grad(loss(net))(variables) for net in (plain, again))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), a, b)
    assert "remat" in str(jax.make_jaxpr(jax.grad(loss(again)))(variables))


@pytest.mark.slow
@pytest.mark.parametrize("f", ["vit", "vqgan"])
def test_bfloat16_keeps_parameters_in_float32(f):
    x = jax.random.uniform(KEY, (2, 32, 16, 3))
    exact, net = model(f), model(f, dtype="bfloat16")
    variables = moved(exact.init(KEY, x))
    assert {v.dtype for v in jax.tree.leaves(net.init(KEY, x))} == {jnp.dtype("float32")}
    a, b = exact.apply(variables, x).y, net.apply(variables, x).y
    assert b.dtype == jnp.float32
    assert 1e-5 < np.abs(a - b).max() / np.abs(a - 0.5).max() < 0.1


def test_rope_sees_distances_not_places():
    """q k of two tokens depends on how far apart they are, and registers have no place."""
    angle = vit.angles(4, 4, 8, extra=1)
    q, k = jax.random.normal(KEY, (2, 1, 1, 1, 8))
    q, k = (vit.rotate(jnp.broadcast_to(a, (1, 17, 1, 8)), angle)[0, :, 0] for a in (q, k))
    products = np.asarray(q @ k.T)[1:, 1:].reshape(4, 4, 4, 4)
    np.testing.assert_allclose(products[0, 0, 1, 2], products[2, 1, 3, 3], rtol=1e-4)
    assert abs(products[0, 0, 1, 2] - products[0, 0, 2, 1]) > 1e-4
    np.testing.assert_array_equal(angle[0], 0)


@pytest.mark.slow
def test_a_grid_takes_pictures_of_other_sizes():
    """With rotations no parameter knows the picture's size."""
    net = model("vit")
    variables = net.init(KEY, jnp.zeros((1, 32, 16, 3)))
    assert net.apply(variables, jnp.zeros((1, 48, 24, 3))).y.shape == (1, 48, 24, 3)


@pytest.mark.parametrize(
    "f, more, shape, words",
    [
        ("vit", {}, (30, 16, 3), "30x16 does not divide into 8x8"),
        ("vit", {"heads": 3}, (32, 16, 3), "width 16 does not divide into 3 heads"),
        ("vit", {"position": "sinus"}, (32, 16, 3), "rope or learned"),
        ("vqgan", {}, (30, 16, 3), "30x16 does not divide by 4"),
    ],
)
def test_mistakes_are_named(f, more, shape, words):
    with pytest.raises(UserError, match=words):
        model(f, shape=shape, **more).init(KEY, jnp.zeros((1, *shape)))


@pytest.mark.parametrize(
    "bottleneck", others_slow(["gaussian", "vq", "residual_vq", "fsq", "lfq"], "residual_vq")
)
def test_every_bottleneck_takes_a_row_of_tokens(bottleneck):
    net = model("vit", bottleneck, tokens=4)
    x = jax.random.uniform(KEY, (2, 32, 16, 3))
    variables = net.init({"params": KEY, "bottleneck": KEY}, x)
    out = net.apply(variables, x)
    assert out.h_hat.shape == (2, 4, 6) and out.y.shape == x.shape
