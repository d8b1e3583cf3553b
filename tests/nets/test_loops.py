"""On a CPU XLA's weight gradient of a convolution is up to 80 times slower inside a loop than
outside it: no step of any config may have one there. Read in the step's jaxpr."""

import jax
import jax.numpy as jnp
import pytest

from aejax import config as configs
from aejax.nets import ops
from aejax.training.build import build
from aejax.training.sharding import of_mode
from aejax.training.step import make_dispatch
from tests.helpers import others_slow
from tests.test_config import FILES, ROOT

FAST = ("compress/codec.py", "denoise/gray.py", "generate/table.py", "quickstart.py")


def inner_jaxprs(eqn):
    for value in eqn.params.values():
        for v in value if isinstance(value, (tuple, list)) else (value,):
            v = getattr(v, "jaxpr", v)
            if hasattr(v, "eqns"):
                yield v


def slow_gradients(jaxpr, in_loop=False):
    """The convolutions inside loops that contract over the batch, as weight gradients do."""
    found = []
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "conv_general_dilated" and in_loop:
            if eqn.params["dimension_numbers"].lhs_spec[0] != 0:
                found.append(eqn)
        unrolled = name == "scan" and eqn.params["unroll"] >= eqn.params["length"]
        loop = in_loop or (name in ("scan", "while") and not unrolled)
        for inner in inner_jaxprs(eqn):
            found += slow_gradients(inner, loop)
    return found


def count(jaxpr, name):
    inner = sum(count(j, name) for eqn in jaxpr.eqns for j in inner_jaxprs(eqn))
    return inner + sum(eqn.primitive.name == name for eqn in jaxpr.eqns)


def test_the_reading_finds_them():
    x, w = jnp.ones((2, 4, 4, 3)), jnp.ones((3, 3, 3, 3))

    def loop(x, w, unroll=1):
        step = jax.grad(lambda w: jnp.sin(ops.conv(x, w)).sum())
        return jax.lax.scan(lambda w, _: (w - step(w), None), w, length=3, unroll=unroll)[0]

    with ops.forms(conv="plain"):
        assert len(slow_gradients(jax.make_jaxpr(loop)(x, w).jaxpr)) == 1
        assert not slow_gradients(jax.make_jaxpr(lambda x, w: loop(x, w, 3))(x, w).jaxpr)
    for form in ("cpu_f32", "cpu_bf16"):
        with ops.forms(conv=form):
            jaxpr = jax.make_jaxpr(loop)(x, w).jaxpr
            assert not slow_gradients(jaxpr) and count(jaxpr, "dot_general") > 0


@pytest.mark.parametrize(
    "file", others_slow(FILES, *FAST), ids=lambda p: str(p.relative_to(ROOT / "experiments"))
)
def test_no_config_has_one(file):
    config = configs.load(f"{file}:smoke")
    parts = build(config)
    sharding = of_mode("jit", devices=jax.devices()[:1])
    batch = parts.pipeline.dispatch(0, 2)
    try:
        dispatch = make_dispatch(parts.step_on(sharding), 2)
        key = jax.random.key(0)
        jaxpr = jax.make_jaxpr(dispatch)(parts.abstract(), batch, parts.pipeline.resident, key)
    finally:
        parts.pipeline.close()
    assert count(jaxpr.jaxpr, "dot_general") > 0, "this is no train step"
    assert not slow_gradients(jaxpr.jaxpr)
