"""The Gaussian bottleneck, and penalties for the distance of its posterior from N(0, I)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import logsumexp
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.nets.bottleneck.base import Terms
from aejax.nets.normal import kl_normal, log_normal


def free_bits(kl: Float[Array, "b k"], floor: float) -> Float[Array, " b"]:
    """Free bits (Kingma et al. 2016, arXiv 1606.04934): the KL in nats, summed over coordinates.

    A coordinate whose mean KL over the batch is below `floor` nats counts as `floor`, without a
    gradient.
    """
    return jnp.sum(jnp.where(jnp.mean(kl, axis=0) > floor, kl, floor), axis=-1)


def total_correlation(
    z: Float[Array, "b k"],
    mean: Float[Array, "b k"],
    logvar: Float[Array, "b k"],
    examples: int,
) -> Float[Array, " b"]:
    """log q(z) - sum_d log q(z_d) in nats, by minibatch-weighted sampling (Chen et al. 2018, arXiv
    1802.04942). KL + (beta - 1) * this is the penalty of beta-TCVAE.

    Args:
      z: samples of the posteriors N(mean, exp(logvar)).
      examples: size of the training set.
    """
    log_q = log_normal(z[:, None], mean[None], logvar[None])  # [b, b, k]
    constant = math.log(z.shape[0] * examples)
    joint = logsumexp(jnp.sum(log_q, axis=-1), axis=1) - constant
    return joint - jnp.sum(logsumexp(log_q, axis=1) - constant, axis=-1)


def mmd(z: Float[Array, "b k"], prior: Float[Array, "b k"]) -> Float[Array, " b"]:
    """The unbiased squared MMD between z and samples of the prior, as a term per example (WAE,
    Tolstikhin et al. 2018, arXiv 1711.01558).

    The kernel is a sum of inverse multiquadratic kernels of seven widths. The mean over the batch
    is the estimate; it has no unit and can be negative.
    """
    b, k = z.shape

    def kernel(a, c):
        d2 = jnp.sum(jnp.square(a), -1)[:, None] + jnp.sum(jnp.square(c), -1)[None] - 2 * a @ c.T
        d2 = jnp.maximum(d2, 0.0)
        scales = [2.0 * k * s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
        return sum(s / (s + d2) for s in scales)

    off_diagonal = 1.0 - jnp.eye(b)
    within = jnp.sum((kernel(z, z) + kernel(prior, prior)) * off_diagonal, axis=1) / max(b - 1, 1)
    return within - 2.0 * jnp.mean(kernel(z, prior), axis=1)


class Gaussian(nn.Module):
    """A normal posterior whose mean and variance are linear functions of h (VAE, Kingma and Welling
    2014, arXiv 1312.6114).

           ┌───────┐   mean, log variance   ┌────────────────────┐
        h─►│ dense ├───────────┬───────────►│ mean + std * noise ├─►h_hat
           └───────┘           │            └────────────────────┘
                               └──►terms: kl, l2, ...

    With train=False h_hat is the mean, unless `sample` is set.

    Attributes:
      latent: k, channels of h_hat.
      noise: "learned": the variance is computed from h (VAE); "fixed": standard deviation `sigma`,
        to train a decoder on slightly noisy latents; "none": deterministic (RAE, WAE).
      sigma: standard deviation of the noise "fixed".
      sample: draw noise with train=False too.
      floor: nats per coordinate of the term "free" (see `free_bits`); 0 = no such term.
      capacity, capacity_steps: the term "capacity" is |KL - C|; C rises linearly from 0 to
        `capacity` nats in `capacity_steps` training steps (Burgess et al. 2018, arXiv 1804.03599).
      extra: optional terms that cost more time: "tc", "mmd".
      examples: size of the training set, for "tc".
      standardise: divide the mean by its running standard deviation over the training set (per
        channel, without gradient), so that the encoder cannot evade noise of a fixed sigma by a
        larger scale of h.

    Terms, in nats unless noted: "kl" (analytic); "log_q" and "log_p", the log densities of a drawn
    z, for importance weights; "l2" = |mean|^2 / 2, no unit (RAE-L2, Ghosh et al. 2020, arXiv
    1903.12436); optional "free", "capacity", "tc" and "mmd" (no unit).

    Raises:
      UserError: `noise` is none of the three.
    """

    latent: int
    noise: str = "learned"
    sigma: float = 0.1
    sample: bool = False
    floor: float = 0.0
    capacity: float = 0.0
    capacity_steps: int = 0
    extra: tuple[str, ...] = ()
    examples: int = 60000
    standardise: bool = False

    def setup(self):
        if self.noise not in ("learned", "fixed", "none"):
            raise UserError(f'bottleneck noise "{self.noise}"; take learned, fixed or none')
        learned = self.noise == "learned"
        self.to_posterior = nn.Dense(self.latent * (2 if learned else 1))
        if self.capacity_steps:
            self.count = self.variable("bottleneck", "count", lambda: jnp.zeros(()))
        if self.standardise:
            self.scale = self.variable("bottleneck", "scale", lambda: jnp.ones(self.latent))

    def posterior(
        self, h: Float[Array, "b *s k"]
    ) -> tuple[Float[Array, "b *s k"], Float[Array, "b *s k"] | None]:
        """(mean, log variance) of h; the log variance is None if noise is "none"."""
        out = self.to_posterior(h).astype(jnp.float32)
        if self.noise == "learned":
            mean, raw = jnp.split(out, 2, axis=-1)
            return mean, 10.0 * jnp.tanh(raw / 10.0)  # so that exp() cannot overflow
        if self.standardise:
            out = out / self.scale.value
        if self.noise == "fixed":
            return out, jnp.full_like(out, 2.0 * math.log(self.sigma))
        return out, None

    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (mean or sample of the posterior, terms)."""
        mean, logvar = self.posterior(h)
        self._update_running_state(mean, train)
        z, flat = mean, lambda a: a.reshape(a.shape[0], -1)
        is_sampled = logvar is not None and (train or self.sample)
        if is_sampled:
            epsilon = jax.random.normal(self.make_rng("bottleneck"), mean.shape)
            z = mean + jnp.exp(0.5 * logvar) * epsilon
        terms = {"l2": 0.5 * jnp.sum(jnp.square(flat(mean)), axis=-1)}
        if logvar is not None:
            kl = flat(kl_normal(mean, logvar))
            terms["kl"] = jnp.sum(kl, axis=-1)
            if self.floor:
                terms["free"] = free_bits(kl, self.floor)
            if self.capacity:
                progress = 1.0
                if self.capacity_steps:
                    progress = jnp.minimum(1.0, self.count.value / self.capacity_steps)
                terms["capacity"] = jnp.abs(terms["kl"] - self.capacity * progress)
        if is_sampled:
            terms["log_q"] = jnp.sum(flat(log_normal(z, mean, logvar)), axis=-1)
            terms["log_p"] = jnp.sum(flat(log_normal(z)), axis=-1)
            if "tc" in self.extra:
                terms["tc"] = total_correlation(flat(z), flat(mean), flat(logvar), self.examples)
        if "mmd" in self.extra and train:
            prior = jax.random.normal(self.make_rng("bottleneck"), flat(z).shape)
            terms["mmd"] = mmd(flat(z), prior)
        return z.astype(h.dtype), terms

    def _update_running_state(self, mean, train):
        """Updates the step counter and the running standard deviation, in training."""
        if not train or self.is_initializing() or not self.is_mutable_collection("bottleneck"):
            return
        if self.capacity_steps:
            self.count.value = self.count.value + 1.0
        if self.standardise:
            raw = jax.lax.stop_gradient(mean) * self.scale.value
            batch_std = jnp.std(raw.reshape(-1, self.latent), axis=0) + 1e-6
            self.scale.value = 0.99 * self.scale.value + 0.01 * batch_std
