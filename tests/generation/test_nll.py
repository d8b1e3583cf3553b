"""Importance-sampled likelihood on a model whose likelihood is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from aejax.errors import UserError
from aejax.generation.nll import importance_nll
from aejax.nets.normal import log_normal
from aejax.types import Output


class Conjugate(nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, 1) for one pixel, and a posterior that is not the true one."""

    draws: bool = True

    def __call__(self, x, cond=None, train=False):
        flat = x.reshape(-1)
        mean, logvar = 0.4 * flat, jnp.full(flat.shape, math.log(0.7))
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(
            self.make_rng("bottleneck"), mean.shape
        )
        terms = {"log_q": log_normal(z, mean, logvar), "log_p": log_normal(z)}
        return Output(z, z, z.reshape(x.shape), terms if self.draws else {})


def test_against_the_known_density():
    images = np.array([0, 100, 255], np.uint8).reshape(3, 1, 1, 1)
    result = importance_nll(Conjugate(), {}, images, "normal", {"sigma": 1.0}, samples=4000,
                           batch=2, chunk=1000)  # fmt: skip
    truth = -scipy.stats.norm.logpdf(images.ravel() / 255, 0, math.sqrt(2)).mean()
    assert result["nll"] == pytest.approx(truth, abs=0.01) and result["n"] == 3
    assert result["elbo"] > result["nll"] + 0.01
    assert result["bits_per_dim"] == pytest.approx(result["nll"] / math.log(2) + 8)


def test_without_latents_there_is_none():
    with pytest.raises(UserError, match="samples no latents"):
        importance_nll(Conjugate(False), {}, np.zeros((1, 1, 1, 1), np.uint8), "normal", samples=2)
