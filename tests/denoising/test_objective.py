"""Training without clean images cannot see what it must not see, and finds what it can."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax.denoising.models import ResidualDenoiser
from aejax.denoising.objective import (
    Neighbor2Neighbor,
    Noise2Noise,
    Noise2Self,
    Noise2Void,
    Supervised,
    blind_spots,
    neighbours,
)
from aejax.errors import UserError
from aejax.training.start import started

KEY = jax.random.key(0)
NOISE = ({"name": "gaussian", "sigma": 50.0},)
ALL = (Noise2Noise, Noise2Void, Noise2Self, Neighbor2Neighbor)


class Spy:
    """A model that hands what it is given to a function."""

    def __init__(self, f):
        self.f = f

    def apply(self, variables, x, cond=None, train=False, rngs=None, mutable=False):
        from aejax.types import Output

        y = self.f(variables, x)
        return (Output(y, y, y), {}) if mutable else Output(y, y, y)


def test_blind_spots_never_keep_their_own_pixel():
    x = jnp.arange(2 * 12 * 10, dtype=jnp.float32).reshape(2, 12, 10, 1)  # all pixels differ
    for seed in range(5):
        seen, hidden = blind_spots(jax.random.key(seed), x, 1.0, 2)
        assert bool(hidden.all()) and bool((seen != x).all())
    seen, hidden = blind_spots(KEY, jnp.tile(x, (1, 8, 8, 1)), 0.1, 2)
    assert 0.05 < float(hidden.mean()) < 0.15
    np.testing.assert_array_equal((seen != jnp.tile(x, (1, 8, 8, 1))) <= hidden, True)


@pytest.mark.parametrize("cls", [pytest.param(Noise2Void, marks=pytest.mark.slow), Noise2Self])
def test_the_identity_scores_no_better_than_noise_allows(cls):
    """A network that copies its input would have loss 0 if it saw the pixels it is judged on."""
    x = jnp.full((4, 64, 64, 1), 0.5)
    loss, _ = cls({"mse": 1.0}, NOISE)(Spy(lambda v, x: x), {"params": {}}, {"image": x}, KEY, True)
    variance = (50 / 255) ** 2
    if cls is Noise2Void:  # a neighbour has noise of its own
        np.testing.assert_allclose(float(loss.mean()), 2 * variance, rtol=0.15)
    assert float(loss.mean()) > 1.9 * variance
    # and the truth, which nobody showed, scores the noise alone
    loss, _ = cls({"mse": 1.0}, NOISE)(
        Spy(lambda v, x: 0 * x + 0.5), {"params": {}}, {"image": x}, KEY, True
    )
    np.testing.assert_allclose(float(loss.mean()), variance, rtol=0.15)


def test_noise2noise_has_two_independent_noises():
    x = jnp.full((4, 64, 64, 1), 0.5)
    loss, _ = Noise2Noise({"mse": 1.0}, NOISE)(
        Spy(lambda v, x: x), {"params": {}}, {"image": x}, KEY, True
    )
    np.testing.assert_allclose(float(loss.mean()), 2 * (50 / 255) ** 2, rtol=0.05)
    with pytest.raises(UserError, match="two noisy versions"):
        Noise2Noise({"mse": 1.0})
    pair = jnp.concatenate([x, x + 0.25], -1)
    loss, aux = Noise2Noise({"mse": 1.0}, pairs=True)(
        Spy(lambda v, x: x), {"params": {}}, {"image": pair}, KEY, False
    )
    np.testing.assert_allclose(float(loss.mean()), 0.25**2, rtol=1e-5)
    assert aux.pictures["y"].shape == x.shape


def test_neighbours_are_two_different_adjacent_pixels_of_each_cell():
    x = jnp.arange(8 * 12, dtype=jnp.float32).reshape(1, 8, 12, 1)
    a, b, _ = neighbours(KEY, x)
    assert a.shape == b.shape == (1, 4, 6, 1)
    d = np.abs(np.asarray(a - b)).ravel()
    assert set(d) == {1.0, 12.0}  # beside or below, never diagonal, never the same
    rows = np.asarray(a)[0, ..., 0] // 12 // 2
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(4)[:, None], (4, 6)))
    odd = neighbours(KEY, jnp.zeros((2, 9, 11, 3)))[0]
    assert odd.shape == (2, 4, 5, 3)


def test_the_regulariser_is_zero_for_the_truth_and_positive_for_smearing():
    """On a picture with gradients, the truth at half size has y1 - y2 = f(g1) - g2."""
    x = jnp.broadcast_to(jnp.linspace(0, 1, 32)[None, None, :, None], (1, 32, 32, 1))
    batch = {"image": x}
    spy = Spy(lambda v, x: x)
    plain, _ = Neighbor2Neighbor({"mse": 1.0}, gamma=0.0)(spy, {"params": {}}, batch, KEY, True)
    with_it, _ = Neighbor2Neighbor({"mse": 1.0}, gamma=5.0)(spy, {"params": {}}, batch, KEY, True)
    np.testing.assert_allclose(plain, with_it, rtol=1e-5)
    smear = Spy(lambda v, x: 0 * x + x.mean())
    plain, _ = Neighbor2Neighbor({"mse": 1.0}, gamma=0.0)(smear, {"params": {}}, batch, KEY, True)
    with_it, _ = Neighbor2Neighbor({"mse": 1.0}, gamma=5.0)(smear, {"params": {}}, batch, KEY, True)
    assert float((with_it - plain).min()) > 1e-4


@pytest.mark.parametrize(
    "cls", [pytest.param(c, marks=() if c is Noise2Noise else pytest.mark.slow) for c in ALL]
)
def test_each_learns_to_denoise_without_a_clean_image(cls):
    """A tiny network on one fixed noisy batch of stripes: 60 steps, no clean pixel in the loss."""
    model = ResidualDenoiser(width=16, blocks=1)
    y, x = np.mgrid[:32, :32]
    clean = 0.5 + 0.3 * np.sin((x + 2 * y + np.arange(8)[:, None, None]) / 4)
    clean = jnp.asarray(clean[..., None], jnp.float32)
    objective = cls({"mse": 1.0}, NOISE)
    variables = jax.jit(model.init)(KEY, clean)
    tx = optax.adam(3e-3)
    state = tx.init(variables)

    @jax.jit
    def step(variables, state, key):
        def loss(v):
            return objective(model, v, {"image": clean}, key, True)[0].mean()

        value, g = jax.value_and_grad(loss)(variables)
        updates, state = tx.update(g, state)
        return optax.apply_updates(variables, updates), state, value

    for i in range(60):
        variables, state, value = step(variables, state, jax.random.fold_in(KEY, i))
    assert np.isfinite(float(value))
    _, aux = objective(model, variables, {"image": clean}, jax.random.key(99), False)
    noisy = float(jnp.mean((aux.pictures["x_tilde"] - clean) ** 2))
    assert float(aux.metrics["mse"].mean()) < 0.5 * noisy


def test_balance_weighs_examples_by_their_level_and_tells_the_same_one():
    from aejax.denoising.objective import Supervised

    x = jnp.full((64, 16, 16, 1), 0.5)
    noise = ({"name": "gaussian", "sigma": (-10.0, 55.0)},)
    spy = Spy(lambda v, x: 0 * x + 0.6)  # an error of 0.1 whatever the level
    plain, _ = Supervised({"mae": 1.0}, noise, balance=0.0)(
        spy, {"params": {}}, {"image": x}, KEY, True
    )
    np.testing.assert_allclose(plain, 0.1, rtol=1e-5)
    loss, aux = Supervised({"mae": 1.0}, noise, balance=0.7)(
        spy, {"params": {}}, {"image": x}, KEY, True
    )
    level = np.asarray((aux.pictures["x_tilde"] - x).std((1, 2, 3))) * 255
    np.testing.assert_allclose(loss, 0.1 * (28 / (level + 3)) ** 0.7, rtol=0.1)
    assert (level == 0).sum() >= 3  # draws below 0 are clean
    told = Supervised({"mae": 1.0}, noise, tell=("sigma",)).conditions({"image": x}, KEY, True)
    assert float(told["sigma"].min()) == 0 and told["sigma"].shape == (64,)


def test_start_takes_weights_of_the_same_model_only(tmp_path, monkeypatch):
    from aejax import weights

    model = ResidualDenoiser(width=8, blocks=1)
    x = jnp.zeros((1, 16, 16, 1))
    kept = jax.tree.map(lambda v: v + 1, jax.jit(model.init)(KEY, x))
    kwargs = {"width": 8, "blocks": 1}
    config = {
        "model": {"name": "aejax.denoising.models:ResidualDenoiser", "kwargs": kwargs},
        "data": {"channels": 1},
    }
    path = tmp_path / "w.safetensors"
    weights.save(path, kept, weights.Metadata(config))

    def start(fresh, x):
        config = {"start": str(path), "start_only": ""}
        return started(fresh, config, Noise2Void({"mse": 1.0}), x.shape[1:])

    fresh = jax.jit(model.init)(jax.random.key(5), x)
    got = start(fresh, x)
    jax.tree.map(np.testing.assert_allclose, got["params"], kept["params"])
    rgb = jnp.repeat(jax.random.uniform(KEY, (1, 16, 16, 1)), 3, -1)
    colour = start(jax.jit(model.init)(KEY, rgb), rgb)
    wanted = jnp.repeat(model.apply(kept, rgb[..., :1]).y, 3, -1)
    np.testing.assert_allclose(model.apply(colour, rgb).y, wanted, rtol=1e-4)
    other = ResidualDenoiser(width=16, blocks=1)
    with pytest.raises(UserError, match="another model"):
        start(jax.jit(other.init)(KEY, x), x)


def test_a_measured_level_balances_corruptions_that_tell_none():
    """As a told one does: an error weighs less where there is more noise."""
    x = jnp.full((2, 64, 64, 1), 0.5)
    copy = Spy(lambda v, x: x)
    at = {s: ({"name": "gaussian", "sigma": s},) for s in (5.0, 50.0)}
    coarse = {s: (*noise, {"name": "blur", "sigma": 0.01}) for s, noise in at.items()}

    def loss(corrupt, **kwargs):
        f = Supervised({"mae": 1.0}, corrupt, **kwargs)
        return float(f(copy, {"params": {}}, {"image": x}, KEY, True)[0].mean())

    for s in at:
        told = loss(at[s])
        np.testing.assert_allclose(loss(coarse[s], measured=True), told, rtol=0.03)
    assert loss(at[50.0]) / loss(at[5.0]) == pytest.approx(10 * (8 / 53) ** 0.7, rel=0.03)
