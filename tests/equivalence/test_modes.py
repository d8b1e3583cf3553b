"""pmap = jit = fsdp, many devices = one, accumulated = whole, looped = single steps."""

import jax
import numpy as np
import pytest

from aejax.config import part
from aejax.errors import UserError
from aejax.training.build import build
from aejax.training.sharding import of_mode
from aejax.training.step import make_dispatch, make_train_step
from tests.helpers import tiny

CONV = {"model__f_E": part("conv", widths=(8, 8)), "model__f_D": part("conv", widths=(8, 8))}


def trained(config, devices=8, per_dispatch=1, steps=4):
    """Parameters and metrics after some steps of a config on the first devices."""
    parts = build(config)
    sharding = of_mode(config.train.mode, config.train.fsdp, jax.devices()[:devices])
    state, resident, key = parts.placed(sharding)
    step, first = parts.step_on(sharding), parts.pipeline.dispatch(0, per_dispatch)
    compiled = sharding.compile(make_dispatch(step, per_dispatch), state, first, resident, key)
    for start in range(0, steps, per_dispatch):
        batch = sharding.place_batch(parts.pipeline.dispatch(start, per_dispatch))
        state, metrics = compiled(state, batch, resident, key)
    return jax.device_get(sharding.local(state)), jax.device_get(metrics), state


def assert_same(a, b, rtol=2e-4, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


SGD = {"optim__name": "momentum", "optim__lr": 0.1, "optim__ema": 0.9, "optim__clip": 1.0}


@pytest.fixture(scope="module")
def reference():
    return trained(tiny(**SGD, **CONV, train__mode="jit"), devices=1)


@pytest.mark.parametrize("mode", ["pmap", "jit", "fsdp"])
@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_modes_and_devices(reference, mode, devices):
    state, metrics, placed = trained(tiny(**SGD, **CONV, train__mode=mode), devices)
    assert_same(state.params, reference[0].params)
    assert_same(state.ema, reference[0].ema)
    assert_same(metrics["loss"], reference[1]["loss"])
    sharded = [not v.sharding.is_fully_replicated for v in jax.tree.leaves(placed.params)]
    assert any(sharded) == (mode == "fsdp" and devices > 1)


def test_accumulation_is_one_large_batch(reference):
    state, metrics, _ = trained(tiny(**SGD, **CONV, optim__accumulate=4), devices=1)
    assert_same(state.params, reference[0].params)
    assert_same(metrics["loss"], reference[1]["loss"])


def test_steps_per_dispatch(reference):
    state, _, _ = trained(tiny(**SGD, **CONV), devices=1, per_dispatch=4)
    assert_same(state.params, reference[0].params)


def test_a_step_without_a_finite_gradient_changes_nothing():
    config = tiny()
    parts = build(config)
    sharding = of_mode("jit", devices=jax.devices()[:1])
    state = parts.init()
    bad = lambda *a: {"image": parts.pipeline.images(*a)["image"] * np.nan}  # noqa: E731
    step = make_train_step(parts.objective, parts.model, parts.tx, parts.schedule, sharding, bad)
    compiled = jax.jit(make_dispatch(step, 1))
    after, metrics = compiled(
        state, parts.pipeline.dispatch(0, 1), parts.pipeline.resident, jax.random.key(0)
    )
    assert metrics["skipped"] == 1 and after.step == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, state.opt_state)


@pytest.mark.parametrize("mode", ["pmap", "fsdp"])
def test_only_what_the_regex_finds_is_trained(mode):
    config = tiny(optim__name="adamw", optim__weight_decay=0.1, optim__only="f_D", train__mode=mode)
    before = build(config).init()
    after = trained(config, devices=4)[0]
    jax.tree.map(np.testing.assert_array_equal, after.params["f_E"], before.params["f_E"])
    moved = jax.tree.map(lambda a, b: np.any(a != b), after.params["f_D"], before.params["f_D"])
    assert all(jax.tree.leaves(moved))
    moments = jax.tree.leaves(before.opt_state)
    assert len(moments) < len(jax.tree.leaves(build(tiny()).init().opt_state))  # none for f_E


@pytest.mark.parametrize("regex", ["f_C", "f_D("])
def test_a_regex_that_finds_nothing_is_refused(regex):
    with pytest.raises(UserError, match=r"optim\.only"):
        build(tiny(optim__only=regex)).init()
