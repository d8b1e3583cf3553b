"""Priors: exact densities, exact inverses, caches, solvers, and learning something known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from aejax.errors import UserError
from aejax.generation import samplers
from aejax.generation.priors import PRIORS, FlowMatching, Mixture
from tests.helpers import others_slow

KEY = jax.random.key(0)
SMALL = {
    "normal": {},
    "mixture": {"components": 2},
    "coupling": {"layers": 4, "width": 16},
    "flow_matching": {"width": 8, "depth": 1},
    "autoregressive": {"vocabulary": 5, "width": 8, "depth": 1, "heads": 2},
    "maskgit": {"vocabulary": 5, "width": 8, "depth": 1, "heads": 2},
}


def make(name, shape=(6,), classes=0, seed=0, **kwargs):
    prior = PRIORS[name](shape=shape, classes=classes, **(SMALL[name] | kwargs))
    key = jax.random.key(seed)
    if prior.discrete:
        z = jax.random.randint(key, (8, *shape), 0, prior.vocabulary)
    else:
        z = jax.random.normal(key, (8, *shape))
    label = jnp.arange(8) % classes if classes else None
    init = jax.jit(lambda k: prior.init({"params": k, "bottleneck": k}, z, label, train=True))
    # layers that start at zero hide mistakes: move everything a little (NumPy compiles nothing)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), jax.device_get(init(key)))
    return prior, jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), moved), z, label


def apply(prior, *args, **kwargs):
    """prior.apply as one program: op by op is compiled op by op."""
    return jax.jit(lambda *a: prior.apply(*a, **kwargs))(*args)


def learn(prior, variables, z, label=None, steps=250, lr=5e-3):
    optimiser = optax.adam(optax.cosine_decay_schedule(lr, steps))

    @jax.jit
    def run(variables):
        def step(carry, key):
            v, opt = carry
            loss, grad = jax.value_and_grad(
                lambda v: prior.apply(v, z, label, train=True, rngs={"bottleneck": key}).mean()
            )(v)
            updates, opt = optimiser.update(grad, opt)
            return (optax.apply_updates(v, updates), opt), loss

        return jax.lax.scan(
            step, (variables, optimiser.init(variables)), jax.random.split(KEY, steps)
        )

    (variables, _), losses = run(variables)
    return variables, losses


@pytest.mark.parametrize("name", others_slow(PRIORS, "flow_matching", "autoregressive"))
@pytest.mark.parametrize(
    "shape, classes", [pytest.param((6,), 0, marks=pytest.mark.slow), ((2, 2, 4), 3)]
)
def test_loss_and_draw_have_the_right_shapes(name, shape, classes):
    prior, variables, z, label = make(name, shape, classes)
    loss = jax.jit(lambda v: prior.apply(v, z, label, train=True, rngs={"bottleneck": KEY}))(
        variables
    )
    assert loss.shape == (8,) and bool(jnp.all(jnp.isfinite(loss)))
    draw = jax.jit(lambda key, label: prior.draw(variables, key, 5, label))
    drawn = draw(KEY, None)
    assert drawn.shape == (5, *shape) and bool(jnp.all(jnp.isfinite(drawn)))
    if classes:
        assert draw(KEY, jnp.zeros(5, int)).shape == (5, *shape)
    if prior.discrete:
        assert 0 <= int(drawn.min()) and int(drawn.max()) < prior.vocabulary
    again = draw(KEY, None)
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(drawn, draw(jax.random.key(9), None))


# Exact densities


def test_mixture_against_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(300, 3)) @ rng.normal(size=(3, 3)) + c for c in (0, 4)])
    from sklearn.mixture import GaussianMixture

    prior = Mixture(shape=(3,), components=2)
    variables = prior.fit(z)
    reference = GaussianMixture(2, reg_covar=1e-5, random_state=0, max_iter=100).fit(z)
    ours = prior.apply(variables, jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(-ours, reference.score_samples(z), rtol=1e-3, atol=1e-3)
    one = Mixture(shape=(3,), components=1)
    full = scipy.stats.multivariate_normal(z.mean(0), np.cov(z.T, bias=True) + 1e-5 * np.eye(3))
    ours = one.apply(one.fit(z), jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(-ours, full.logpdf(z), rtol=1e-3, atol=1e-3)


def test_mixture_draws_what_it_was_fitted_to_and_the_class_asked_for():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 500)
    z = rng.normal(size=(1000, 2)) * 0.5 + label[:, None] * [[6.0, -6.0]]
    prior = Mixture(shape=(2,), classes=2, components=1)
    variables = prior.fit(z, label)
    drawn = np.asarray(prior.draw(variables, KEY, 4000, jnp.ones(4000, int)))
    np.testing.assert_allclose(drawn.mean(0), [6, -6], atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(z[500:].T), atol=0.05)
    mixed = np.asarray(prior.draw(variables, KEY, 4000))
    assert abs((mixed[:, 0] > 3).mean() - 0.5) < 0.05


def test_mixture_needs_examples():
    with pytest.raises(UserError, match="too few for 10 components"):
        Mixture(shape=(2,), components=10).fit(np.zeros((5, 2)))


@pytest.mark.parametrize("classes", [3])
def test_coupling_is_invertible_and_its_log_det_is_the_jacobians(classes):
    prior, variables, z, label = make("coupling", (5,), classes)
    u, log_det = apply(prior, variables, z, label, method="forward")
    np.testing.assert_allclose(apply(prior, variables, u, label, method="inverse"), z, atol=1e-4)
    forward = lambda a, c: prior.apply(  # noqa: E731
        variables, a[None], None if c is None else c[None], method="forward"
    )[0][0]
    jacobian = jax.jit(jax.jacobian(forward))
    for i in range(3):
        matrix = jacobian(z[i], None if label is None else label[i])
        assert float(log_det[i]) == pytest.approx(np.linalg.slogdet(matrix)[1], abs=1e-4)
    assert float(jnp.abs(log_det).max()) > 1e-3


def test_coupling_density_integrates_to_one():
    prior, variables, _, _ = make("coupling", (2,))
    axis = np.linspace(-40, 40, 801)  # one coordinate's spread is an exponential of the other
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), jnp.float32)
    total = np.exp(-apply(prior, variables, grid)).sum() * (axis[1] - axis[0]) ** 2
    assert float(total) == pytest.approx(1.0, abs=1e-3)


def test_autoregressive_sums_to_one_over_all_codes():
    prior, variables, _, _ = make("autoregressive", (3,), vocabulary=4)
    codes = jnp.asarray(np.stack(np.meshgrid(*[range(4)] * 3), -1).reshape(-1, 3))
    assert float(np.exp(-apply(prior, variables, codes)).sum()) == pytest.approx(1.0, abs=1e-4)


# The cache, causality


def test_cache_gives_the_logits_of_the_whole_pass(classes=3):
    prior, variables, codes, label = make("autoregressive", (7,), classes, depth=2)
    whole = apply(prior, variables, codes, label, method="logits")
    assert float(jnp.abs(whole).max()) > 1e-3
    cache = prior.bind(variables).field.empty_cache(8)
    before = jnp.full(8, prior.vocabulary)
    step = jax.jit(lambda *a: prior.apply(variables, *a, label, method="step"))
    for i in range(7):
        one, cache = step(before, i, cache)
        np.testing.assert_allclose(one, whole[:, i], atol=1e-5)
        before = codes[:, i]


def test_no_code_sees_itself_or_later_ones():
    prior, variables, codes, _ = make("autoregressive", (6,))
    changed = codes.at[:, 3].set((codes[:, 3] + 1) % prior.vocabulary)
    logits = jax.jit(lambda c: prior.apply(variables, c, method="logits"))
    a, b = logits(codes), logits(changed)
    np.testing.assert_array_equal(a[:, :4], b[:, :4])
    assert float(jnp.abs(a[:, 4:] - b[:, 4:]).max()) > 1e-4


# Learning something known


@pytest.mark.slow
def test_flow_matching_learns_two_points_and_guidance_takes_sides():
    label = jnp.arange(512) % 2
    z = jnp.where(label[:, None] == 1, 1.0, -1.0) * jnp.array([[1.0, 0.5]])
    z = z + 0.1 * jax.random.normal(KEY, z.shape)
    prior, variables, _, _ = make("flow_matching", (2,), classes=2, width=32, depth=2)
    variables, losses = learn(prior, variables, z, label, steps=400)
    ones = jnp.ones(500, int)
    drawn = prior.draw(variables, KEY, 500, ones)
    np.testing.assert_allclose(drawn.mean(0), [1.0, 0.5], atol=0.15)
    assert float(drawn.std(0).max()) < 0.35
    unlabelled = prior.draw(variables, KEY, 500)
    assert 0.35 < float((unlabelled[:, 0] > 0).mean()) < 0.65
    without = prior.draw(variables, KEY, 500, ones, guidance=0.0)
    assert 0.3 < float((without[:, 0] > 0).mean()) < 0.7  # the class is not looked at


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoregressive", "maskgit"])
def test_code_priors_learn_a_pattern(name):
    """Rows that count upwards from a random start: the first code decides all others."""
    codes = (jnp.arange(6)[None] + jnp.arange(256)[:, None]) % 5
    prior, variables, _, _ = make(name, (6,), width=32, depth=2)
    variables, losses = learn(prior, variables, codes)
    drawn = prior.draw(variables, KEY, 200)
    right = jnp.all((drawn[:, 1:] - drawn[:, :-1]) % 5 == 1, axis=1)
    assert float(right.mean()) > 0.9
    assert len(np.unique(drawn[:, 0])) == 5
    if prior.exact:  # nothing is left to know but the start
        nll = prior.apply(variables, codes).mean()
        assert float(nll) == pytest.approx(np.log(5), abs=0.05)


# Samplers


def test_solvers_have_their_orders():
    exact = np.e
    error = {
        (solver, n): abs(float(samplers.ode(lambda z, t: z, jnp.ones(1), n, solver)[0]) - exact)
        for solver in ("euler", "heun")
        for n in (10, 20)
    }
    assert error["euler", 10] / error["euler", 20] == pytest.approx(2, rel=0.1)
    assert error["heun", 10] / error["heun", 20] == pytest.approx(4, rel=0.1)


def test_solver_mistakes():
    with pytest.raises(UserError, match="euler or heun"):
        samplers.ode(lambda z, t: z, jnp.ones(1), 4, "magic")


def test_guidance_is_linear():
    f = samplers.guided(lambda z, t, c: c.astype(float), jnp.array([3]), 7, 2.5)
    assert float(f(jnp.zeros(1), 0.0)[0]) == pytest.approx(7 + 2.5 * (3 - 7))


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_unmasking_ends_with_no_mask_and_keeps_what_it_kept(steps):
    codes = samplers.unmask(lambda c: jnp.zeros((*c.shape, 4)), KEY, 6, 10, 4, steps, 1.0)
    assert codes.shape == (6, 10) and int(codes.max()) < 4


def test_dit_patches_are_put_back_where_they_were():
    """With every block at zero and the head copying the token, the velocity is the input."""
    prior = FlowMatching(shape=(4, 4, 2), net="dit", width=8, depth=1, heads=2, patch=2)
    z = jax.random.normal(KEY, (3, 4, 4, 2))
    p = 2
    tokens = z.reshape(3, 2, p, 2, p, 2).swapaxes(2, 3).reshape(3, 4, 8)
    np.testing.assert_array_equal(tokens[:, 1], z[:, :2, 2:].reshape(3, 8))
    variables = jax.jit(lambda: prior.init({"params": KEY, "bottleneck": KEY}, z, train=True))()
    at = jnp.full(3, 0.5)
    velocity = jax.jit(lambda v, z: prior.apply(v, z, at, method="velocity"))
    v = velocity(variables, z)
    np.testing.assert_array_equal(v, jnp.zeros_like(z))  # the head starts at zero
    head = {"kernel": jnp.eye(8), "bias": jnp.zeros(8)}
    params = jax.tree.map(lambda a: a, variables["params"])
    params["field"]["head"] = head
    moved = velocity({"params": params}, z)
    swapped = z.at[:, :2, :2].set(z[:, :2, 2:]).at[:, :2, 2:].set(z[:, :2, :2])
    params["field"]["positions"] = jnp.zeros_like(params["field"]["positions"])
    a = velocity({"params": params}, z)
    b = velocity({"params": params}, swapped)
    np.testing.assert_allclose(a[:, :2, :2], b[:, :2, 2:], atol=1e-5)  # patches moved, outputs too
    np.testing.assert_allclose(a[:, 2:], b[:, 2:], atol=1e-5)
    assert float(jnp.abs(moved).max()) > 0


def test_wrong_net_and_patch_are_the_users_errors():
    for kwargs in ({"net": "unet"}, {"net": "dit", "patch": 4}):
        with pytest.raises(UserError):
            make("flow_matching", (2, 2, 4), **kwargs)
