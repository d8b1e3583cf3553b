"""The tokenizers' objective, and that their smoke forms learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import config as configs
from aejax.errors import UserError
from aejax.generation.tokenizer import Tokenize
from aejax.training.build import build
from aejax.training.sharding import of_mode
from aejax.training.step import make_dispatch
from tests.test_config import ROOT

FOLDER = ROOT / "experiments" / "tokenizer"


def objective(**more):
    return Tokenize(loss={"mae": 1.0}, terms={}, **more)


@pytest.fixture(scope="module")
def parts():
    made = build(configs.load(str(FOLDER / "vit_1d.py:smoke")))
    yield made
    made.pipeline.close()


def gradient(parts, objective, variables, key=0):
    batch = parts.example(4)

    def loss(params):
        values, aux = objective(
            parts.model, variables | {"params": params}, batch, jax.random.key(key), True
        )
        return jnp.mean(values), aux.metrics

    return jax.grad(loss, has_aux=True)(variables["params"])


def size(tree):
    return sum(float(jnp.abs(v).sum()) for v in jax.tree.leaves(tree))


@pytest.mark.slow
def test_the_opponent_waits_for_its_step_and_learns_meanwhile(parts):
    variables = dict(parts.init().variables)
    plain, _ = gradient(parts, objective(), variables)
    assert size(plain["discriminator"]) == 0
    before, metrics = gradient(parts, objective(adversarial=0.5, begin=10), variables)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        before["ae"],
        plain["ae"],
    )
    assert size(before["discriminator"]) > 0 and metrics["discriminator"].shape == (4,)
    variables["adversarial"] = {"steps": jnp.float32(10)}
    after, _ = gradient(parts, objective(adversarial=0.5, begin=10), variables)
    assert size(jax.tree.map(jnp.subtract, after["ae"], plain["ae"])) > 1e-3 * size(plain["ae"])


@pytest.mark.slow
def test_the_balance_equals_the_gradients_at_y(parts):
    variables = dict(parts.init().variables) | {"adversarial": {"steps": jnp.float32(1)}}
    metrics = gradient(parts, objective(adversarial=1.0, begin=0), variables)[1]
    assert 0 < metrics["balance"][0] < 1e4
    told = gradient(parts, objective(adversarial=1.0, begin=0, adaptive=False), variables)[1]
    assert told["balance"][0] == 1.0


@pytest.mark.slow
def test_perception_is_measured_without_a_weight_and_trained_with_one(parts):
    variables = dict(parts.init().variables)
    without, metrics = gradient(parts, objective(lpips="random"), variables)
    plain, _ = gradient(parts, objective(), variables)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), without, plain
    )
    assert metrics["lpips"].min() > 0
    trained, _ = gradient(parts, objective(lpips="random", perceptual=1.0), variables)
    assert size(jax.tree.map(jnp.subtract, trained["ae"], plain["ae"])) > 1e-3 * size(plain["ae"])
    with pytest.raises(UserError, match="perceptual needs objective.kwargs.lpips"):
        objective(perceptual=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kl_f8", "fsq_f16", "vq_f16", "vit_1d"])
def test_smoke_forms_learn(name):
    """On bundled photographs, pixels alone: lower after 30 steps."""
    config = configs.load(str(FOLDER / f"{name}.py:smoke,plain"), ["train.length=30 steps"])
    parts = build(config)
    where = of_mode("jit", devices=jax.devices()[:1])
    state, resident, key = parts.placed(where)
    first = parts.pipeline.dispatch(0, 1)
    compiled = where.compile(make_dispatch(parts.step_on(where), 1), state, first, resident, key)
    losses = []
    for i in range(30):
        batch = where.place_batch(parts.pipeline.dispatch(i, 1))
        state, metrics = compiled(state, batch, resident, key)
        losses.append(float(metrics["mse"]))
    parts.pipeline.close()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3]), losses
