"""Bottlenecks: shapes, formulas against plain ones, gradients, codes, code books, averaging."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.nets.bottleneck import BOTTLENECKS, FSQ, base, gaussian
from aejax.nets.normal import kl_normal, kl_normals

KEY = jax.random.key(0)
SMALL = {
    "identity": {},
    "gaussian": {},
    "vq": {"codes_per_book": 16, "groups": 2},
    "residual_vq": {"codes_per_book": 8, "depth": 3},
    "fsq": {"levels": (4, 3), "groups": 2},
    "lfq": {"bits": 4},
}
SHAPES = pytest.mark.parametrize(
    "shape", [(6, 2, 3, 8), pytest.param((12, 8), marks=pytest.mark.slow)]
)
DISCRETE = ["vq", "residual_vq", "fsq", "lfq"]


def make(name, shape=(12, 8), **kwargs):
    module = BOTTLENECKS[name](latent=shape[-1], **(SMALL[name] | kwargs))
    h = jax.random.normal(KEY, shape)
    init = jax.jit(module.init, static_argnames="train")
    variables = init({"params": KEY, "bottleneck": KEY}, h, None, train=True)
    return module, variables, h


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def apply(module, variables, h, train=True, key=KEY):
    return module.apply(
        variables, h, None, train=train, rngs={"bottleneck": key}, mutable=["bottleneck"]
    )


def train(module, variables, h, steps):
    """The variables after `steps` updates on the same h."""

    def step(state, key):
        return {**state, **apply(module, {**variables, **state}, h, key=key)[1]}, None

    state = {"bottleneck": variables["bottleneck"]}
    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, steps)))(state)
    return {**variables, **state}


@SHAPES
@pytest.mark.parametrize("name", list(BOTTLENECKS))
def test_shape_terms_and_finite_gradient(name, shape):
    module, variables, h = make(name, shape)
    (h_hat, terms), _ = apply(module, variables, h)
    assert h_hat.shape == h.shape
    assert all(t.shape == shape[:1] and bool(jnp.all(jnp.isfinite(t))) for t in terms.values())
    grad = jax.grad(lambda h: jnp.sum(jnp.sin(apply(module, variables, h)[0][0])))(h)
    assert bool(jnp.all(jnp.isfinite(grad))) and float(jnp.abs(grad).max()) > 0


@pytest.mark.parametrize("name", list(BOTTLENECKS))
def test_without_training_nothing_is_random_and_nothing_moves(name):
    module, variables, h = make(name)
    (first, _), after = apply(module, variables, h, train=False, key=jax.random.key(1))
    second = module.apply(variables, h, None, train=False)[0]  # no stream of randomness at all
    np.testing.assert_array_equal(first, second)
    for a, b in zip(
        jax.tree.leaves(after), jax.tree.leaves(variables.get("bottleneck", {})), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", DISCRETE)
@SHAPES
def test_codes_and_lookup_agree_with_the_call(name, shape):
    module, variables, h = make(name, shape)
    _, moved = apply(module, variables, h)
    variables = {**variables, **moved}
    codes = module.apply(variables, h, method="codes")
    assert codes.shape[:-1] == h.shape[:-1] and jnp.issubdtype(codes.dtype, jnp.integer)
    assert 0 <= int(codes.min()) and int(codes.max()) < module.vocabulary
    h_hat = module.apply(variables, h, None, train=False)[0]
    np.testing.assert_allclose(module.apply(variables, codes, method="lookup"), h_hat, atol=1e-5)
    bits = module.apply(variables, h, None, train=False)[1]["bits"][0]
    assert float(bits) == pytest.approx(codes[0].size * math.log2(module.vocabulary), rel=1e-5)


# Gaussian


def test_kl_is_the_mean_of_log_q_minus_log_p():
    module, variables, h = make("gaussian", (4, 3))
    keys = jax.random.split(KEY, 20000)
    _, terms = jax.vmap(lambda k: apply(module, variables, h, key=k)[0])(keys)
    sampled = jnp.mean(terms["log_q"] - terms["log_p"], axis=0)
    np.testing.assert_allclose(sampled, terms["kl"][0], rtol=0.05, atol=0.02)


def test_kl_against_the_closed_form_by_hand():
    mean, sd = 0.7, 0.3
    by_hand = math.log(1 / sd) + (sd**2 + mean**2) / 2 - 0.5
    assert float(kl_normal(mean, 2 * math.log(sd))) == pytest.approx(by_hand, rel=1e-6)


def test_kl_of_two_normals_is_that_to_the_standard_one_in_other_units():
    mean, logvar, at, scale = 0.7, -1.3, 0.2, 1.1
    standardised = (mean - at) / math.exp(scale / 2), logvar - scale
    by_units = float(kl_normal(*standardised))
    assert float(kl_normals(mean, logvar, at, scale)) == pytest.approx(by_units, rel=1e-6)


def test_free_bits_gives_idle_coordinates_no_gradient():
    kl = jnp.array([[0.1, 3.0], [0.2, 1.0]])
    value, grad = jax.value_and_grad(lambda k: gaussian.free_bits(k, 0.5).sum())(kl)
    assert float(value) == pytest.approx(2 * 0.5 + 4.0)
    np.testing.assert_array_equal(grad, [[0, 1], [0, 1]])


def test_capacity_rises_with_the_steps():
    module, variables, h = make("gaussian", capacity=4.0, capacity_steps=2)
    for step in range(4):
        (_, terms), moved = apply(module, variables, h)
        variables = {**variables, **moved}
        expected = jnp.abs(terms["kl"] - 4.0 * min(1.0, (step + 1) / 2))
        np.testing.assert_allclose(terms["capacity"], expected, rtol=1e-5)


def test_mmd_tells_the_prior_from_something_else():
    k1, k2, k3 = jax.random.split(KEY, 3)
    prior = jax.random.normal(k1, (400, 4))
    same = float(jnp.mean(gaussian.mmd(jax.random.normal(k2, (400, 4)), prior)))
    other = float(jnp.mean(gaussian.mmd(1.0 + jax.random.normal(k3, (400, 4)), prior)))
    assert abs(same) < 0.02 and other > 0.1


def test_mmd_against_plain_loops():
    rng = np.random.default_rng(0)
    z, p = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))

    def kernel(a, b):
        d = ((a - b) ** 2).sum()
        return sum(6 * s / (6 * s + d) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    total = 0.0
    for i in range(5):
        for j in range(5):
            total -= 2 * kernel(z[i], p[j]) / 25
            if i != j:
                total += (kernel(z[i], z[j]) + kernel(p[i], p[j])) / 20
    assert float(jnp.mean(gaussian.mmd(jnp.array(z), jnp.array(p)))) == pytest.approx(
        total, abs=1e-5
    )


def test_total_correlation_sees_a_shared_factor():
    """Aggregate posteriors with equal marginals, with and without dependence between coordinates;
    the true total correlation of two normals of correlation r is -log(1 - r^2) / 2."""
    b, small = 1000, jnp.full((1000, 2), math.log(0.05))
    u = jax.random.normal(KEY, (b, 2))
    noise = jnp.exp(0.5 * small) * jax.random.normal(jax.random.key(1), (b, 2))
    free = gaussian.total_correlation(u + noise, u, small, b).mean()
    r = 0.9
    tied = jnp.stack([u[:, 0], r * u[:, 0] + math.sqrt(1 - r * r) * u[:, 1]], axis=1)
    bound = gaussian.total_correlation(tied + noise, tied, small, b).mean()
    true = -0.5 * math.log(1 - (r / 1.05) ** 2)
    # minibatch weighting is biased by a constant; the difference is what the penalty moves
    assert float(bound - free) == pytest.approx(true, abs=0.15)


def test_standardised_noise_cannot_be_outgrown():
    module, variables, h = make("gaussian", noise="fixed", sigma=0.5, standardise=True)
    variables = train(module, variables, 100.0 * h, 2000)
    mean, logvar = module.apply(variables, 100.0 * h, method="posterior")
    np.testing.assert_allclose(jnp.std(mean, axis=0), 1.0, rtol=0.02)
    np.testing.assert_allclose(jnp.exp(0.5 * logvar), 0.5, rtol=1e-5)


def test_unknown_noise_is_the_users_error():
    with pytest.raises(UserError, match="learned, fixed or none"):
        make("gaussian", noise="much")


# FSQ


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8])
def test_fsq_takes_each_level_and_no_other(levels):
    fsq = FSQ(latent=1, levels=(levels,))
    u = jnp.linspace(-20, 20, 4001)[:, None]
    rounded = np.unique(np.round(np.asarray(fsq.bound(u))))
    np.testing.assert_array_equal(rounded, np.arange(levels) - levels // 2)
    # normal numbers of moderate spread use every level, none more than twice its share
    u = 0.8 * jax.random.normal(KEY, (20000, 1))
    share = np.bincount(np.asarray(jnp.round(fsq.bound(u))).astype(int)[:, 0] + levels // 2)
    assert share.min() > 0.5 * 20000 / levels and share.max() < 2 * 20000 / levels


def test_fsq_every_code_survives_the_way_back():
    module, variables, _ = make("fsq", (12, 8), levels=(4, 3, 2), groups=1)
    scaled = module._scaled(jnp.array([[-2.0, -1.0, -1.0], [1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(scaled, [[-1] * 3, [1] * 3], atol=1e-6)
    codes = jnp.arange(24)[:, None]
    h_hat = module.apply(variables, codes, method="lookup")
    assert len(np.unique(np.asarray(h_hat).round(5), axis=0)) == 24


# VQ


def test_vq_is_the_nearest_code_and_passes_the_gradient_straight():
    module, variables, h = make("vq", ema=False)
    book = np.asarray(variables["params"]["books_0"]["book"])
    v = np.asarray(h).reshape(-1, 4)
    nearest = ((v[:, None] - book[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(module.apply(variables, h, method="codes").reshape(-1), nearest)
    h_hat, terms = module.apply(variables, h, None)
    np.testing.assert_allclose(np.asarray(h_hat).reshape(-1, 4), book[nearest], atol=1e-6)
    expected = ((v - book[nearest]) ** 2).sum(-1).reshape(12, 2).sum(1)
    np.testing.assert_allclose(terms["commit"], expected, rtol=1e-5)
    np.testing.assert_allclose(terms["codebook"], expected, rtol=1e-5)
    grad = jax.grad(lambda h: jnp.sum(module.apply(variables, h, None)[0] * 3.0))(h)
    np.testing.assert_allclose(grad, 3.0, rtol=1e-6)


def test_first_step_places_all_codes_on_data_and_dead_ones_come_back():
    module, variables, h = make("vq", (64, 8), codes_per_book=32, groups=1)
    variables = {**variables, **apply(module, variables, h)[1]}
    vectors = module.apply(variables, method=lambda m: m.books[0].vectors())
    d2 = ((np.asarray(vectors)[:, None] - np.asarray(h)[None]) ** 2).sum(-1).min(1)
    assert d2.max() < 1e-8
    # all data move far away: without the restart, one code would take everything
    far = 50.0 + h
    variables = train(module, variables, far, 500)
    used = np.unique(module.apply(variables, far, method="codes"))
    assert len(used) >= 0.75 * 32


def test_vq_averages_are_the_papers():
    module, variables, h = make("vq", (64, 8), codes_per_book=4, groups=1, decay=0.9, restart=0.0)
    variables = {**variables, **apply(module, variables, h)[1]}
    before = variables["bottleneck"]["books_0"]
    codes = np.asarray(module.apply(variables, h, method="codes")).reshape(-1)
    after = apply(module, variables, h)[1]["bottleneck"]["books_0"]
    for i in range(4):
        mine = np.asarray(h)[codes == i]
        n = 0.9 * before["counts"][i] + 0.1 * len(mine)
        np.testing.assert_allclose(after["counts"][i], n, rtol=1e-5)
        sums = 0.9 * np.asarray(before["sums"][i]) + 0.1 * mine.sum(0)
        np.testing.assert_allclose(after["sums"][i], sums, rtol=1e-4, atol=1e-5)


def test_mean_over_devices_weighs_all_their_vectors_alike():
    """Two devices with half the batch each: the mean of their averages moves by half of what one
    device with the whole batch moves by, in counts and sums alike."""
    module, variables, h = make("vq", (64, 8), codes_per_book=4, groups=1, restart=0.0)
    variables = train(module, variables, h, 3)
    past = jax.tree.map(lambda a: 0.99 * a, variables["bottleneck"])
    whole = apply(module, variables, h)[1]["bottleneck"]
    halves = [apply(module, variables, part)[1]["bottleneck"] for part in jnp.split(h, 2)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    moved = jax.tree.map(lambda new, old: new - old, mean, past)
    expected = jax.tree.map(lambda new, old: (new - old) / 2, whole, past)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_residual_vq_gets_closer_with_depth():
    errors = []
    for depth in (1, 2, 4):
        module, variables, h = make("residual_vq", (256, 4), depth=depth, codes_per_book=16)
        variables = train(module, variables, h, 100)
        h_hat = module.apply(variables, h, None)[0]
        errors.append(float(jnp.mean((h - h_hat) ** 2)))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_vq_groups_must_divide():
    with pytest.raises(UserError, match="not a multiple of groups 3"):
        make("vq", groups=3)


def test_perplexity_counts_codes_in_use():
    codes = jnp.array([[0], [1], [2], [3]])
    np.testing.assert_allclose(base.perplexity(codes, 10), 4.0, rtol=1e-5)


def test_lfq_entropy_is_lowest_for_sure_and_balanced_bits():
    module, variables, h = make("lfq", (512, 8))
    sure = module.apply(variables, 1e3 * h, None)[1]["entropy"].mean()
    unsure = module.apply(variables, 1e-3 * h, None)[1]["entropy"].mean()
    assert float(sure) < -2.0 and abs(float(unsure)) < 1e-3  # 4 bits: at best -4 log 2 = -2.77


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BOTTLENECKS))
def test_no_nan_in_20_seeds_of_500_steps(name):
    """A linear autoencoder around each bottleneck, large learning rate, all seeds at once."""
    import optax

    module = BOTTLENECKS[name](latent=8, **SMALL[name])
    weights = {"kl": 1e-2, "commit": 0.25, "codebook": 1.0, "entropy": 0.1}
    optimiser = optax.adam(1e-2)

    def run(key):
        k0, k1, k2, k3 = jax.random.split(key, 4)
        x = jax.random.normal(k0, (64, 16)) * jnp.array([3.0] * 4 + [0.1] * 12)
        variables = module.init({"params": k1, "bottleneck": k1}, x[:, :8], None, train=True)
        state = {k: v for k, v in variables.items() if k != "params"}
        params = {
            "b": variables.get("params", {}),
            "e": jax.random.normal(k2, (16, 8)) / 4,
            "d": jax.random.normal(k3, (8, 16)) / 4,
        }

        def step(carry, key):
            params, state, opt = carry

            def loss(params):
                (h_hat, terms), new = module.apply(
                    {"params": params["b"], **state}, x @ params["e"], None, train=True,
                    rngs={"bottleneck": key}, mutable=list(state),
                )  # fmt: skip
                penalty = sum(weights.get(k, 0.0) * v.mean() for k, v in terms.items())
                return jnp.mean((h_hat @ params["d"] - x) ** 2) + penalty, new

            (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, opt = optimiser.update(grads, opt)
            return (optax.apply_updates(params, updates), {**state, **new}, opt), value

        carry = (params, state, optimiser.init(params))
        return jax.lax.scan(step, carry, jax.random.split(key, 500))[1]

    losses = jax.jit(jax.vmap(run))(jax.random.split(KEY, 20))
    assert bool(jnp.all(jnp.isfinite(losses)))
    assert bool(jnp.all(losses[:, -1] < losses[:, 0]))
