"""Pruning as an optimiser: the share that is asked for, kept through a stop, none lost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax
from aejax.errors import UserError
from aejax.training import prune
from tests.helpers import tiny

PRUNED = "aejax.training.prune:pruned"


def config(**changes):
    kwargs = {"sparsity": 0.75, "end": 10, "every": 2}
    kwargs |= {k.removeprefix("kwargs__"): v for k, v in changes.items() if "kwargs__" in k}
    other = {k: v for k, v in changes.items() if "kwargs__" not in k}
    c = tiny(**{"train__length": "12 steps", "optim__name": PRUNED} | other)
    for name, value in kwargs.items():
        c.optim.kwargs[name] = value
    return c


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    return {
        "a": {"kernel": jnp.asarray(rng.standard_normal((20, 10)), jnp.float32),
              "bias": jnp.ones(10)},
        "b": {"kernel": jnp.asarray(0.1 * rng.standard_normal((10, 30)), jnp.float32)},
    }  # fmt: skip


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_go_and_biases_stay(params, scope):
    masks = prune.largest(params, jnp.float32(0.6), scope == "global")
    assert masks["a"]["bias"].shape == ()
    a, b = (np.asarray(masks[n]["kernel"]) for n in "ab")
    if scope == "layer":
        assert (a.mean(), b.mean()) == (pytest.approx(0.4), pytest.approx(0.4))
    else:
        assert (a.sum() + b.sum()) / 500 == pytest.approx(0.4)
        assert a.mean() > b.mean()  # b's weights are ten times smaller
    for name, mask in (("a", a), ("b", b)):
        size = np.abs(np.asarray(params[name]["kernel"]))
        assert size[mask].min() > size[~mask].max()


def test_the_share_rises_as_a_cubic(params):
    tx = prune.pruned(lambda step: 1e-3, sparsity=0.8, begin=2, end=10, every=1)
    state, grads = tx.init(params), jax.tree.map(jnp.ones_like, params)
    update, shares = jax.jit(tx.update), []
    for _ in range(14):
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        shares.append(prune.sparsity_of(params))
    t = np.clip((np.arange(14) - 2) / 8, 0, 1)
    np.testing.assert_allclose(shares, 0.8 * (1 - (1 - t) ** 3), atol=0.003)


def test_at_once_is_full_after_one_step_and_nothing_pruned_moves(params):
    tx = prune.pruned(lambda step: 1e-2, sparsity=0.5)
    state, grads = tx.init(params), jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(grads, state, params)
    first = optax.apply_updates(params, updates)
    updates, state = tx.update(grads, state, first)
    second = optax.apply_updates(first, updates)
    assert prune.sparsity_of(first) == pytest.approx(0.5)
    zero = np.asarray(first["a"]["kernel"]) == 0
    assert (np.asarray(second["a"]["kernel"])[zero] == 0).all()
    assert (
        np.asarray(second["a"]["kernel"])[~zero] != np.asarray(first["a"]["kernel"])[~zero]
    ).all()


def test_without_pruning_it_is_adam(params):
    ours, theirs = prune.pruned(lambda step: 1e-2, sparsity=0.0), optax.adam(1e-2)
    grads = jax.tree.map(jnp.cos, params)
    a, _ = ours.update(grads, ours.init(params), params)
    b, _ = theirs.update(grads, theirs.init(params), params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


def test_a_run_is_pruned_resumed_and_gives_a_lottery_ticket(tmp_path):
    aejax.train(config(train__length="6 steps"), tmp_path / "whole", quiet=True)
    aejax.train(config(), tmp_path / "whole", quiet=True)
    whole = aejax.load(tmp_path / "whole").variables["params"]
    assert prune.sparsity_of(whole) == pytest.approx(0.75, abs=0.002)
    aejax.train(config(kwargs__masks=str(tmp_path / "whole")), tmp_path / "ticket", quiet=True)
    ticket = aejax.load(tmp_path / "ticket").variables["params"]
    zeros = jax.tree.map(lambda a, b: bool(((a == 0) <= (b == 0)).all()), whole, ticket)
    assert jax.tree.all(zeros)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sparsity": 1.0}, "a share of at least 0 and below 1"),
        ({"scope": "model"}, "global or layer"),
        ({"begin": 5, "end": 3}, "0 <= begin <= end"),
        ({"optimiser": "admam"}, 'did you mean "adam"'),
        ({"masks": "gray"}, "is of another model"),
    ],
)
def test_what_cannot_be_is_one_line(kwargs, message, tmp_path):
    c = config(**{f"kwargs__{k}": v for k, v in kwargs.items()})
    with pytest.raises(UserError, match=message):
        aejax.train(c, tmp_path / "run", quiet=True)
