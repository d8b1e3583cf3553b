"""`model.quantise`: products in integers, parameters and their names as without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax
from aejax.config import part
from aejax.errors import UserError
from aejax.nets.autoencoder import build_model
from tests.helpers import tiny

pytest.importorskip("qwix")
CONV = {"model__f_E": part("conv", widths=(4, 8)), "model__f_D": part("conv", widths=(4, 8))}


def built(c, shape=(8, 8, 1)):
    model = build_model(c.model, shape)
    return model, model.init(jax.random.key(0), jnp.zeros((1, *shape)))


def types_of_products(model, variables, x):
    found = set()

    def visit(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
                found.add(tuple(v.aval.dtype.name for v in eqn.invars[:2]))
            for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
                if is_jaxpr(value):
                    visit(getattr(value, "jaxpr", value))

    def is_jaxpr(value):
        return hasattr(value, "eqns") or hasattr(value, "jaxpr")

    visit(jax.make_jaxpr(lambda v, x: model.apply(v, x).y)(variables, x).jaxpr)
    return found


@pytest.mark.parametrize("changes", [{}, CONV], ids=["dense", "conv"])
def test_products_are_of_int8_and_parameters_are_those_of_the_float_model(changes):
    c = tiny(**changes)
    _, plain = built(c)
    c.model.quantise = {"weights": "int8", "activations": "int8"}
    model, variables = built(c)
    jax.tree.map(np.testing.assert_array_equal, variables, plain)
    x = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 1)), jnp.float32)
    assert types_of_products(model, variables, x) == {("int8", "int8")}
    float_model, _ = built(tiny(**changes))
    y, near = (m.apply(variables, x).y for m in (float_model, model))
    assert 0 < jnp.abs(y - near).max() < 0.05 * jnp.abs(y).max()
    h = model.apply(variables, x, method="encode")
    assert jnp.abs(model.apply(variables, h, method="decode") - near).max() < 0.05


def test_weights_alone(tmp_path):
    c = tiny()
    c.model.quantise = {"weights": "int4"}
    model, variables = built(c)
    y = model.apply(variables, jnp.ones((1, 8, 8, 1))).y
    exact = built(tiny())[0].apply(variables, jnp.ones((1, 8, 8, 1))).y
    assert 0 < jnp.abs(y - exact).max()


def test_a_run_is_trained_quantised_from_a_float_one_and_loaded(tmp_path):
    aejax.train(tiny(), tmp_path / "float", quiet=True)
    c = tiny(model__start=str(tmp_path / "float"), model__start_only="kernel|bias")
    c.model.quantise = {"weights": "int8", "activations": "int8"}
    result = aejax.train(c, tmp_path / "int8", quiet=True)
    assert np.isfinite(result.metrics["test/mse"])
    model = aejax.load(tmp_path / "int8")
    assert model.evaluate().metrics["mse"] == pytest.approx(
        result.metrics["test/mse"], rel=0.02
    )  # scales of activations are those of the batch
    a, b = (aejax.load(tmp_path / n).variables["params"] for n in ("float", "int8"))
    assert not jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), a, b))  # it was trained


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"weight": "int8"}, "no key 'weight'; did you mean \"weights\""),
        ({"weights": "int5"}, 'model.quantise.weights = "int5": int8 or int4'),
        ({"activations": "fp4"}, "model.quantise.activations"),
    ],
)
def test_mistakes(spec, message):
    c = tiny()
    c.model.quantise = spec
    with pytest.raises(UserError, match=message):
        built(c)
