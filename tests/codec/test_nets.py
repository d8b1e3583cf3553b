"""The model as the training sees it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aejax.codec import freeze
from aejax.codec.frozen import flat
from aejax.codec.levels import logistic_bits
from aejax.codec.objective import RateDistortion, klt_start
from aejax.codec.quality import RATES, at_quality, lagrangian
from aejax.codec.transforms import KLT_SCALE
from aejax.errors import UserError
from aejax.training.start import started as started_from
from tests.codec import tiny


def pictures(n, side=64):
    return np.stack([tiny.photo(side, side, seed=i) for i in range(n)]).astype(np.float32) / 255


@pytest.fixture(scope="module")
def started():
    """(model, variables) at the KLT of some pictures."""
    model, key = tiny.model(), jax.random.key(0)
    images = pictures(24)
    made = jax.jit(lambda: model.init({"params": key, "bottleneck": key}, images[:2]))()
    return model, klt_start(made, images)


def test_bits_of_the_logistic_are_right_far_into_the_tails():
    for sigma in (0.1, 1.0, 30.0):
        s = sigma * math.sqrt(3) / math.pi
        v = np.array([0.0, 1.0, -3.0, 8 * sigma])
        p = stats.logistic.cdf(np.abs(v) + 0.5, scale=s) - stats.logistic.cdf(
            np.abs(v) - 0.5, scale=s
        )
        bits = np.asarray(logistic_bits(jnp.asarray(v, jnp.float32), math.log(sigma)))
        good = p > 1e-12
        np.testing.assert_allclose(bits[good], -np.log2(p[good]), rtol=2e-3, atol=2e-4)
    far, slope = jax.value_and_grad(lambda v: logistic_bits(v, math.log(0.1)))(1e4)
    assert np.isfinite(far) and far > 1e5 and slope == pytest.approx(26.2, rel=0.02)
    down = jax.grad(lambda t: logistic_bits(50.0, t))(math.log(0.1))
    assert np.isfinite(down) and down < -10  # the scale is called back


def test_quality_is_the_exponent_of_lambda():
    q = jnp.array([0.0, 50.0, 100.0])
    low, middle, high = np.asarray(lagrangian(q))
    assert low == pytest.approx(RATES[0]) and high == pytest.approx(RATES[1], rel=1e-5)
    assert middle**2 == pytest.approx(low * high, rel=0.03)
    table = jnp.arange(9.0)[:, None] * 8
    np.testing.assert_array_equal(at_quality(table, q)[:, 0, 0, 0], [0, 32, 63.75])


@pytest.mark.slow
def test_klt_start_is_the_best_linear_codec(started):
    """Without rounding and networks, what is lost is the variance outside the 24 components."""
    model, variables = started
    images = pictures(24)
    flips = np.concatenate([images, images[:, :, ::-1]]) - 0.5
    rows = flips.reshape(48, 4, 16, 4, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 768)
    values = np.linalg.eigvalsh(rows.T.astype(float) @ rows / len(rows))[::-1]
    klt = np.asarray(variables["params"]["f_E"]["klt"]) / KLT_SCALE
    lost = np.mean(np.sum((rows - rows @ klt @ klt.T) ** 2, axis=1))
    assert lost == pytest.approx(values[24:].sum(), rel=0.02)
    x = jnp.asarray(images[:4])
    cond = {"quality": jnp.full(4, 100.0)}
    out = jax.jit(model.apply)(variables, x, cond)
    error = float(jnp.mean((out.y - x) ** 2))
    # what rounding at quality 100 and last layers that start small, not at zero, add to it
    assert error < 3 * values[24:].sum() / 768 + 2e-4


def test_hyper_latents_are_alive_at_the_start(started):
    """A z that rounds to zero everywhere teaches its decoder nothing, for ever."""
    model, variables = started

    def z(m, x):
        cond = {"quality": jnp.full(len(x), 50.0)}
        return m.bottleneck.hyper_analysis(m.bottleneck.scaled(m.f_E(x, cond), cond), cond)

    run = jax.jit(lambda v, x: model.apply(v, x, method=z))
    found = np.asarray(run(variables, jnp.asarray(pictures(8))))
    assert 0.2 < found.std() < 5


@pytest.mark.parametrize(
    "hyper, metric",
    [
        pytest.param("context", "mse", marks=pytest.mark.slow),
        ("factorized", "mse"),
        pytest.param("mean-scale", "mse", marks=pytest.mark.slow),
        pytest.param("scale", "mse", marks=pytest.mark.slow),
        pytest.param("context", "ms-ssim", marks=pytest.mark.slow),
    ],
)
def test_a_few_steps_lower_the_loss(hyper, metric):
    model, key, x = tiny.model(hyper=hyper), jax.random.key(0), jnp.asarray(pictures(4))
    objective = RateDistortion(metric=metric)
    made = jax.jit(lambda: model.init({"params": key, "bottleneck": key}, x))()
    params = klt_start(made, pictures(24))["params"]

    @jax.jit
    def step(params, momentum, key):
        def loss(p):
            value, aux = objective(model, {"params": p}, {"image": x}, key, True)
            return value.mean(), aux.metrics

        (value, metrics), g = jax.value_and_grad(loss, has_aux=True)(params)
        momentum = jax.tree.map(lambda m, g: 0.8 * m + jnp.sign(g) * 5e-4, momentum, g)
        return jax.tree.map(lambda p, m: p - m, params, momentum), momentum, value, metrics

    momentum, values = jax.tree.map(jnp.zeros_like, params), []
    for i in range(16):
        params, momentum, value, metrics = step(params, momentum, jax.random.fold_in(key, i % 4))
        values.append(float(value))
    assert np.mean(values[-4:]) < 0.98 * np.mean(values[:4]), values
    assert (metrics["bpp_z"] > 0).all() == (hyper != "factorized")


def test_training_goes_on_from_other_weights(tmp_path):
    freeze.save(tiny.frozen(), tmp_path / "w")
    params, file = tiny.params(1), str(tmp_path / "w.safetensors")

    def start(name):
        config = {"start": name, "start_only": ""}
        return started_from({"params": params}, config, RateDistortion(), (16, 16, 3))["params"]

    found = start(file)
    for path, value in flat(tiny.frozen().params).items():
        np.testing.assert_array_equal(flat(found)[path], value)
    params["bottleneck"]["z_base"] = np.zeros((9, 5))
    with pytest.raises(UserError, match=r"z_base is \(9, 4\), not \(9, 5\)"):
        start(file)
    with pytest.raises(UserError, match="no weights"):
        start("nothing")


def test_kernels_are_bytes_and_stay_what_they_are(tmp_path):
    """A frozen model frozen again is the same; most of its file is one byte per weight."""
    once = tiny.frozen().params
    a, b = flat(once), flat(freeze.frozen_params(once))
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])
    for path, value in a.items():
        if not freeze.is_exact(path) and freeze.storage_type(path, value) == "int8":
            assert np.abs(value / freeze.int8_scale(value)).max() == 127
            assert np.allclose(value, flat(tiny.params())[path], atol=value.max() / 120)


@pytest.mark.slow
def test_gradients_reach_every_parameter(started):
    model, variables = started
    x = jnp.asarray(pictures(5))

    def loss(params):
        key, batch = jax.random.key(1), {"image": x}
        return RateDistortion()(model, {"params": params}, batch, key, True)[0].sum()

    for path, g in flat(jax.jit(jax.grad(loss))(variables["params"])).items():
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, path


def test_whole_pictures_of_any_size(started):
    model, variables = started
    x = jnp.asarray(tiny.photo(37, 50)[None] / 255.0, jnp.float32)
    out = jax.jit(model.apply)(variables, x)
    assert out.y.shape == (1, 37, 50, 3)


def test_estimated_and_real_bits_agree(started):
    """Of files, without their headers and checks, against the tables' own sum; and the model's
    estimate, which knows no fitted tables, against both."""
    from aejax.codec import api as codec
    from aejax.codec.layout import parse

    model, variables = started
    images = [tiny.photo(128, 192, seed=i) for i in range(4)]
    fields = {name: getattr(model, name) for name in freeze.FIELDS}
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    frozen = freeze.freeze(variables["params"], fields, images)
    r = codec.use(frozen)
    estimate = jax.jit(r.model.apply)
    for byte in (100, 255):
        data = codec.encode(images[0], byte / 2.55, runtime=r)
        cost = sum(frozen.tables.cost(s, lv) for s, lv in freeze.tile_symbols(r, images[0], byte))
        chunks = parse(data, lambda _: 2).tiles[0]
        coded = 8 * sum(len(c.data) for c in chunks)
        assert -8 <= coded - cost <= 0.005 * cost + 64 * len(chunks)
        cond = {"quality": jnp.array([byte / 2.55])}
        terms = estimate(r.variables, images[0][None] / np.float32(255), cond).terms
        model_bits = float(terms["bits_y"][0] + terms["bits_z"][0])
        assert coded == pytest.approx(model_bits, rel=0.1)
