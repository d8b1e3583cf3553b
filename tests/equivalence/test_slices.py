"""Slices joined by a slow network, and the two rings of a torus: the same step as one device's."""

import jax
import numpy as np
import pytest

from aejax.nets import ops, target
from aejax.training import sharding
from aejax.training.build import build
from aejax.training.step import make_dispatch
from tests.equivalence.test_modes import CONV, SGD, assert_same
from tests.helpers import others_slow, tiny


class OfTorus(sharding.Fsdp):
    """Laid out as TPUs are."""

    def _sides(self, count):
        return sharding.torus(count)


def trained(mode, devices, slices, steps=3, kind=None):
    """(state, loss, compiled text) after some steps."""
    parts = build(tiny(**SGD, **CONV, train__mode=mode))
    kind = kind or sharding.MODES[mode]
    where = kind(devices=jax.devices()[:devices], slices=slices)
    state, resident, key = parts.placed(where)
    step, first = parts.step_on(where), parts.pipeline.dispatch(0, 1)
    compiled = where.compile(make_dispatch(step, 1), state, first, resident, key)
    for i in range(steps):
        batch = where.place_batch(parts.pipeline.dispatch(i, 1))
        state, metrics = compiled(state, batch, resident, key)
    return jax.device_get(where.local(state)), metrics["loss"], compiled.as_text()


@pytest.fixture(scope="module")
def reference():
    return trained("jit", 1, 1)


@pytest.mark.parametrize("mode", others_slow(["jit", "fsdp"], "fsdp"))
def test_two_slices(reference, mode):
    state, loss, _ = trained(mode, 8, 2)
    assert_same(state.params, reference[0].params)
    assert_same(loss, reference[1])


@pytest.mark.slow
@pytest.mark.parametrize("slices", [1, 2])
def test_rings_of_a_torus(reference, slices):
    state, loss, text = trained("fsdp", 8, slices, kind=OfTorus)
    assert_same(state.params, reference[0].params)
    assert_same(loss, reference[1])
    assert "reduce-scatter" in text


def test_the_sides_of_a_torus():
    assert [sharding.torus(n) for n in (1, 2, 4, 8, 16, 32, 256)] == [
        (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (16, 16)
    ]  # fmt: skip


def test_what_is_lowered_needs_no_values():
    parts = build(tiny(train__mode="fsdp"))
    key = jax.eval_shape(lambda: jax.random.key(0))
    for mode in ("pmap", "jit", "fsdp"):
        where = sharding.of_mode(mode, devices=jax.devices()[:4])
        dispatch = make_dispatch(parts.step_on(where), 2)
        batch = parts.pipeline.dispatch(0, 2)
        lowered = where.lower(dispatch, parts.abstract(), batch, parts.pipeline.resident, key)
        assert "stablehlo" in lowered.as_text()


def test_forms_are_those_of_the_target():
    x, w = np.ones((2, 4, 4, 3), np.float32), np.ones((3, 3, 3, 3), np.float32)
    assert target.platform() == "cpu" and ops.form("conv", jax.numpy.asarray(x)).startswith("cpu")
    with target.compiling_for("tpu"):
        assert ops.form("conv", jax.numpy.asarray(x)) == "plain"
        there = str(jax.make_jaxpr(ops.conv)(x, w))
    here = str(jax.make_jaxpr(ops.conv)(x, w))
    assert "custom_vjp" in here and "custom_vjp" not in there
