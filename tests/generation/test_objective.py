"""The bound, importance weights, binarisation, adversaries and ladders: what they equal."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from aejax.config import base, part
from aejax.errors import UserError
from aejax.generation import adversarial as A
from aejax.generation import spectral
from aejax.generation.objective import Classification, Evidence, LatentPrior, binarise, weighted
from aejax.generation.vae import HierarchicalVAE, VampAutoEncoder
from aejax.loading import load
from aejax.nets.autoencoder import AutoEncoder
from aejax.nets.bottleneck import Gaussian
from aejax.nets.f_D import DenseDecoder
from aejax.nets.f_E import DenseEncoder
from aejax.training.run import train
from aejax.training.start import started

KEY = jax.random.key(0)
AE = {
    "name": "", "kwargs": {}, "latent": 2, "init": "random", "dtype": "float32",
    "f_E": {"name": "dense", "hidden": [8]},
    "bottleneck": {"name": "gaussian"},
    "f_D": {"name": "dense", "hidden": [8], "output_activation": "sigmoid"},
}  # fmt: skip


def images(n=6, side=4):
    return jax.random.uniform(KEY, (n, side, side, 1))


def init(model, x):
    return jax.jit(lambda: model.init({"params": KEY, "bottleneck": KEY}, x))()


# Evidence


def vae_model():
    return AutoEncoder(
        DenseEncoder(2, (8,)),
        Gaussian(2),
        DenseDecoder((4, 4, 1), (8,), output_activation="sigmoid"),
    )


def test_bound_is_distortion_plus_kl_in_nats():
    model, x = vae_model(), images()
    variables = init(model, x)
    objective = Evidence(terms={"kl": 1.0}, likelihood="normal", arguments={"sigma": 0.2})

    def run(objective):
        loss, aux = objective(model, variables, {"image": x}, KEY, False)
        return loss, aux.metrics["bound"]

    loss, bound = jax.jit(lambda: run(objective))()
    out = jax.jit(model.apply)(variables, x)
    distortion = -scipy.stats.norm.logpdf(x, out.y, 0.2).sum((1, 2, 3))
    np.testing.assert_allclose(loss, distortion + out.terms["kl"], rtol=1e-4)
    np.testing.assert_allclose(bound, loss, rtol=1e-6)
    twice, _ = jax.jit(lambda: run(dataclasses.replace(objective, terms={"kl": 2.0})))()
    np.testing.assert_allclose(twice - loss, out.terms["kl"], rtol=1e-3, atol=1e-3)


class Conjugate(nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, 1), posterior known: N(x / 2, 1 / 2)."""

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        from aejax.nets.normal import kl_normal, log_normal
        from aejax.types import Output

        flat = x.reshape(-1)
        mean, logvar = 0.3 * flat, jnp.full(flat.shape, math.log(0.8))  # not the true posterior
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(
            self.make_rng("bottleneck"), mean.shape
        )
        terms = {
            "kl": kl_normal(mean, logvar),
            "log_q": log_normal(z, mean, logvar),
            "log_p": log_normal(z),
        }
        return Output(z, z, z.reshape(x.shape), terms)


def test_importance_weighted_bound_approaches_the_truth():
    x = jnp.array([0.7, -1.5]).reshape(2, 1, 1, 1)
    truth = -scipy.stats.norm.logpdf(np.array([0.7, -1.5]), 0, math.sqrt(2))

    def bound(samples, key):
        objective = Evidence(terms={"kl": 1.0}, arguments={"sigma": 1.0}, samples=samples)
        return objective(Conjugate(), {"params": {}}, {"image": x}, key, True)[0]

    keys = jax.random.split(KEY, 200)
    means = [np.mean(jax.jit(jax.vmap(lambda k, s=s: bound(s, k)))(keys), 0) for s in (1, 8, 256)]
    assert np.all(means[0] > means[1]) and np.all(means[1] > means[2] - 0.01)
    np.testing.assert_allclose(means[2], truth, atol=0.02)


def test_importance_weights_refuse_other_terms():
    model, x = vae_model(), images()
    objective = Evidence(terms={"kl": 4.0}, samples=3)
    with pytest.raises(UserError, match='"kl": 1'):  # while it is traced
        jax.eval_shape(lambda: objective(model, init(model, x), {"image": x}, KEY, True)[0])


def test_a_term_that_is_not_there_is_the_users_error():
    with pytest.raises(UserError, match="did you mean"):
        weighted({"committ": 1.0}, {"commit": jnp.ones(1)})
    # mmd is estimated in training only; evaluation goes on without
    assert weighted({"mmd": 9.0, "l2": 2.0}, {"l2": 1.0}, train=False) == 2.0


def test_training_goes_on_from_a_run(tmp_path):
    c = base()
    c.data.source, c.data.batch, c.train.length, c.optim.ema = "bundled:digits", 32, "2 steps", 0.5
    c.model.f_E = part("dense", hidden=(8,))
    c.model.f_D = part("dense", hidden=(8,), output_activation="sigmoid")
    c.model.bottleneck = part("gaussian")
    c.objective.name, c.objective.terms = "aejax.generation.objective:Evidence", {"kl": 1.0}
    c.eval.metrics, c.eval.best, c.eval.examples = (), "-bound", 32
    c.train.mode, c.train.devices = "jit", 1
    train(c, tmp_path / "run", quiet=True)
    kept = load(tmp_path / "run")
    x = jnp.zeros((2, 8, 8, 1))
    fresh = init(kept.model, x)
    config = {"start": str(tmp_path / "run"), "start_only": ""}
    got = started(fresh, config, Evidence({"kl": 1.0}), (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, got, kept.variables)
    c.model.latent, c.objective.kwargs.start = 3, str(tmp_path / "run")  # its name in 0.1
    with pytest.raises(UserError, match="start: .* of another model: its params/bottleneck"):
        train(c, tmp_path / "other", quiet=True)


def test_binarise():
    x = images(64, 8)
    fixed = binarise(x, "static", jax.random.key(1))
    np.testing.assert_array_equal(fixed, binarise(x, "static", jax.random.key(2)))
    assert set(np.unique(fixed)) == {0.0, 1.0}
    assert float(jnp.abs(fixed.mean() - x.mean())) < 0.02
    same = jnp.broadcast_to(x[:1], x.shape).at[1].add(1 / 255)
    drawn = binarise(same, "static", KEY)
    np.testing.assert_array_equal(drawn[0], drawn[2])  # a function of the image alone,
    assert float(jnp.abs(drawn[0] - drawn[1]).mean()) > 0.1  # and of every bit of it
    moving = [binarise(x, "dynamic", jax.random.key(i)) for i in (1, 2)]
    assert float(jnp.abs(moving[0] - moving[1]).mean()) > 0.1
    assert binarise(x, "", KEY) is x
    with pytest.raises(UserError):
        binarise(x, "sometimes", KEY)


def test_classification_needs_labels():
    with pytest.raises(UserError, match="labels"):
        Classification()(None, {}, {"image": images()}, KEY, True)


def test_latent_prior_tells_the_label():
    assert LatentPrior().conditions({"image": images()}, KEY, True) is None
    cond = LatentPrior().conditions({"image": images(), "label": jnp.arange(6)}, KEY, True)
    np.testing.assert_array_equal(cond["label"], jnp.arange(6))


# Adversaries


def test_each_player_moves_only_its_own_parameters():
    """The gradient of the joint loss equals that of each player's loss alone, on its own part."""
    model = A.GAN((4, 4, 1), latent=4, widths=(4,))
    x = images()
    variables = init(model, x)
    objective, batch = A.Adversarial(r1=1.0), {"image": x}

    @jax.jit  # one program: the three share all that goes forward
    def gradients(params):
        def totals(params):
            loss, aux = objective(model, {"params": params}, batch, KEY, True)
            m = aux.metrics
            alone = m["generator"].mean(), (m["discriminator"] + 0.5 * m["r1"]).mean()
            return (loss.mean(), *alone)

        values, back = jax.vjp(totals, params)
        unit = lambda i: tuple(jnp.float32(i == j) for j in range(len(values)))  # noqa: E731
        return [back(unit(i))[0] for i in range(len(values))]

    both, of_g, of_d = gradients(variables["params"])
    for a, b in zip(jax.tree.leaves(both["generator"]), jax.tree.leaves(of_g["generator"]),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(jax.tree.leaves(both["discriminator"]),
                    jax.tree.leaves(of_d["discriminator"]), strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, atol=1e-6)
    zero = lambda tree: max(float(jnp.abs(v).max()) for v in jax.tree.leaves(tree))  # noqa: E731
    assert zero(of_g["discriminator"]) == 0.0 and zero(of_d["generator"]) == 0.0
    assert zero(of_g["generator"]) > 0 and zero(of_d["discriminator"]) > 0
    drawn = jax.jit(lambda v: model.draw(v, KEY, 3))(variables)
    assert drawn.shape == (3, 4, 4, 1) and float(drawn.min()) >= 0 and float(drawn.max()) <= 1


def test_r1_of_a_linear_discriminator_is_its_square_norm():
    w = jnp.arange(16.0)
    value = A.r1(lambda x: x.reshape(len(x), -1) @ w[:, None], images())
    np.testing.assert_allclose(value, float(w @ w), rtol=1e-5)


# Priors inside the model


def test_vamp_prior_is_the_mixture_of_posteriors():
    model = VampAutoEncoder((4, 4, 1), AE, components=3)
    x = images()
    variables = init(model, x)
    z = jax.random.normal(KEY, (5, 2))
    ours = jax.jit(lambda v: model.apply(v, z, method="log_prior"))(variables)
    pseudo = jnp.clip(variables["params"]["pseudo"], 0, 1)
    mean, logvar = model.apply(
        variables, pseudo, method=lambda m, u: m.ae.bottleneck.posterior(m.ae.f_E(u, None, False))
    )
    sd = np.exp(0.5 * np.asarray(logvar))
    each = [scipy.stats.norm.logpdf(z, mean[i], sd[i]).sum(1) for i in range(3)]
    np.testing.assert_allclose(ours, np.logaddexp.reduce(each, 0) - math.log(3), rtol=1e-4)
    run = jax.jit(lambda v: model.apply(v, x, None, True, rngs={"bottleneck": KEY}).terms)
    terms = run(variables)
    np.testing.assert_allclose(terms["kl"], terms["log_q"] - terms["log_p"], atol=1e-4)


@pytest.mark.slow
def test_ladder_kl_is_the_mean_of_its_samples_and_it_draws():
    model = HierarchicalVAE((6, 6, 1), (1, 2, 3), (1, 1, 1), (8, 8, 8), (2, 2, 2), fine=4)
    x = jnp.round(images(3, 6))
    variables = init(model, x)
    noise = jax.tree.map(lambda p: 0.2 * jax.random.normal(KEY, p.shape), variables)
    variables = jax.tree.map(jnp.add, variables, noise)
    run = jax.jit(jax.vmap(lambda k: model.apply(variables, x, rngs={"bottleneck": k}).terms))
    terms = run(jax.random.split(KEY, 500))
    sampled = np.mean(terms["log_q"] - terms["log_p"], 0)
    np.testing.assert_allclose(sampled, np.mean(terms["kl"], 0), rtol=0.1, atol=0.15)
    assert float(np.mean(terms["kl"])) > 0.05
    out = model.apply(variables, x)
    assert out.y.shape == x.shape and out.extra["logits"].shape == x.shape
    drawn = model.draw(variables, KEY, 4)
    assert drawn.shape == (4, 6, 6, 1) and 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_spectral_norm_against_svd_and_inside_a_decoder():
    w = jax.random.normal(KEY, (3, 3, 4, 5))
    top = np.linalg.svd(np.asarray(w).reshape(-1, 5), compute_uv=False)[0]
    assert float(spectral.spectral_norm(w, 50)) == pytest.approx(top, rel=1e-3)
    plain = DenseDecoder((2, 2, 1), (8,))
    bounded = spectral.SpectralDecoder(2, (2, 2, 1), "dense", arguments={"hidden": (8,)})
    h = jax.random.normal(KEY, (2, 2))
    variables = bounded.init(KEY, h)
    big = jax.tree.map(lambda p: 100.0 * p, variables)
    near = bounded.apply(big, h + 1e-2) - bounded.apply(big, h)
    # every layer has norm at most 1 and gelu a slope below 1.13
    assert float(jnp.linalg.norm(near, axis=(1, 2)).max()) < 1.2 * 1e-2 * math.sqrt(2)
    big = jax.tree.map(lambda p: 100.0 * p, plain.init(KEY, h))
    far = plain.apply(big, h + 1e-2) - plain.apply(big, h)
    assert float(jnp.linalg.norm(far, axis=(1, 2)).max()) > 1.0
