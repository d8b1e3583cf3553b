"""`model.quantise`: products in integers, parameters and their names as without."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax
from aejax.config import part
from aejax.errors import UserError
from aejax.nets import ops
from aejax.nets.autoencoder import build_model
from aejax.nets.quantise import quantised
from tests.helpers import tiny

pytest.importorskip("qwix")
CONV = {"model__f_E": part("conv", widths=(4, 8)), "model__f_D": part("conv", widths=(4, 8))}


def built(c, shape=(8, 8, 1)):
    model = build_model(c.model, shape)
    return model, model.init(jax.random.key(0), jnp.zeros((1, *shape)))


def products(function, *args):
    """[(types of its two inputs, primitive, shapes)] of each product in the trace of a function."""
    made = []

    def is_jaxpr(value):
        return hasattr(value, "eqns") or hasattr(value, "jaxpr")

    def visit(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
                a, b = (v.aval for v in eqn.invars[:2])
                types = (a.dtype.name, b.dtype.name)
                made.append((types, eqn.primitive.name, (a.shape, b.shape)))
            for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
                if is_jaxpr(value):
                    visit(getattr(value, "jaxpr", value))

    visit(jax.make_jaxpr(function)(*args).jaxpr)
    return made


def types_of_products(function, *args):
    made = products(function, *args)
    print(*made, sep="\n")  # pytest shows it where a test fails
    return [types for types, *_ in made]


INT, FLOAT = ("int8", "int8"), ("float32", "float32")


@pytest.mark.parametrize("changes", [{}, CONV], ids=["dense", "conv"])
def test_products_are_of_int8_and_parameters_are_those_of_the_float_model(changes):
    c = tiny(**changes)
    _, plain = built(c)
    c.model.quantise = {"weights": "int8", "activations": "int8"}
    model, variables = built(c)
    jax.tree.map(np.testing.assert_array_equal, variables, plain)
    x = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 1)), jnp.float32)
    assert set(types_of_products(lambda v: model.apply(v, x).y, variables)) == {INT}
    float_model, _ = built(tiny(**changes))
    y, near = (m.apply(variables, x).y for m in (float_model, model))
    assert 0 < jnp.abs(y - near).max() < 0.05 * jnp.abs(y).max()
    h = model.apply(variables, x, method="encode")
    assert jnp.abs(model.apply(variables, h, method="decode") - near).max() < 0.05


class Matmul(nn.Module):
    """Two products that jax.numpy jits itself, of the same shapes."""

    @nn.compact
    def __call__(self, x):
        for name in ("a", "b"):
            x = jnp.matmul(x, self.param(name, nn.initializers.lecun_normal(), (16, 16)))
        return x


def test_traces_of_a_quantised_model_and_of_others_are_kept_apart():
    spec = {"weights": "int8", "activations": "int8"}
    with ops.forms(all="plain"):
        model = Matmul()
        variables = model.init(jax.random.key(0), jnp.ones((1, 16)))
        kinds = [(model, FLOAT), (quantised(model, spec), INT)]
        for x, order in ((jnp.ones((3, 16)), kinds), (jnp.ones((5, 16)), kinds[::-1])):
            for kind, types in order:
                assert types_of_products(kind.apply, variables, x) == [types] * 2


@pytest.mark.parametrize("only", ["f_E", "f_D"])
def test_layers_of_one_shape_inside_and_outside_of_only(only):
    hidden = part("dense", hidden=(16, 16))
    c = tiny(model__f_E=hidden, model__f_D=hidden)
    c.model.quantise = {"weights": "int8", "activations": "int8", "only": f"{only}/.*"}
    model, variables = built(c)
    x = jnp.ones((2, 8, 8, 1))
    encoder, decoder = (INT, FLOAT) if only == "f_E" else (FLOAT, INT)
    made = types_of_products(lambda v: model.apply(v, x).y, variables)
    assert made == [encoder] * 3 + [decoder] * 3


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
