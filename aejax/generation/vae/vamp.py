"""A VAE whose prior is a mixture of its own posteriors."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.config import plain
from aejax.nets.applied import applied
from aejax.nets.autoencoder import build_model
from aejax.nets.normal import log_normal
from aejax.types import Cond, Config, Label, Output, Variables


class VampAutoEncoder(nn.Module):
    """A VAE whose prior is the mixture of its own posteriors at `components` learned pseudo-inputs
    (Tomczak and Welling 2018, arXiv 1705.07120).

        x             -> f_E -> bottleneck -> z ~ q(z | x) -> f_D -> y
        pseudo-inputs -> f_E -> bottleneck -> q(z | pseudo-input), whose mean is p(z)

    Attributes:
      shape: (h, w, c) of the images.
      autoencoder: its `config.model`, with a "gaussian" bottleneck.
      components: number of pseudo-inputs.
      remat: of the autoencoder, if its own config does not ask for it.

    Terms: in training "kl" is one sample's log q(z | x) - log p(z), which can be negative, and
    "log_q", "log_p" are its two parts, for importance weights; nats. In evaluation no z is sampled,
    and "kl" is that of the bottleneck, against N(0, I).
    """

    shape: Sequence[int]
    autoencoder: Config
    components: int = 100
    remat: bool = False

    def setup(self):
        config = plain(self.autoencoder)
        config["remat"] = self.remat or config.get("remat", False)
        self.ae = build_model(config, tuple(self.shape))

        def gray_noise(key, shape):
            return 0.5 + 0.2 * jax.random.normal(key, shape)

        self.pseudo = self.param("pseudo", gray_noise, (self.components, *self.shape))

    def encode(self, x: Float[Array, "b h w c"], cond: Cond = None) -> Float[Array, "b *s k"]:
        """The mean of the posterior of x."""
        return self.ae.encode(x, cond)

    def decode(self, h: Float[Array, "b *s k"], cond: Cond = None) -> Float[Array, "b h w c"]:
        """y of h."""
        return self.ae.decode(h, cond)

    def log_prior(self, z: Float[Array, "b *s k"]) -> Float[Array, " b"]:
        """log p(z) in nats."""
        mean, logvar = self._posterior(self.pseudo)
        z, mean, logvar = (a.reshape(a.shape[0], -1) for a in (z, mean, logvar))
        log_p = log_normal(z[:, None], mean[None], logvar[None])  # [b, components, k]
        return logsumexp(jnp.sum(log_p, axis=-1), axis=1) - math.log(self.components)

    def _posterior(self, pseudo: Float[Array, "n h w c"]) -> tuple[Array, Array]:
        """(mean, log variance) of q(z | pseudo-input)."""
        x = jnp.clip(pseudo, 0.0, 1.0)
        return self.ae.bottleneck.posterior(self.ae.f_E(x, None, False))

    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """The autoencoder's output with "kl" against the learned prior."""
        out = self.ae(x, cond, train)
        terms = dict(out.terms)
        log_p = self.log_prior(out.h_hat)
        if "log_q" in terms:
            terms |= {"log_p": log_p, "kl": terms["log_q"] - log_p}
        return Output(out.h, out.h_hat, out.y, terms, out.extra)

    def from_prior(self, key: PRNGKeyArray, n: int) -> Float[Array, "n h w c"]:
        """n pictures in [0, 1]; `draw` calls this with variables."""
        k1, k2 = jax.random.split(key)
        component = jax.random.randint(k1, (n,), 0, self.components)
        mean, logvar = self._posterior(self.pseudo[component])
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(k2, mean.shape)
        return jnp.clip(self.ae.decode(z), 0.0, 1.0)

    @nn.nowrap
    def draw(
        self, variables: Variables, key: PRNGKeyArray, n: int, label: Label = None
    ) -> Float[Array, "n h w c"]:
        """n pictures in [0, 1], with z from the posterior of random pseudo-inputs; the label is not
        used."""
        return applied(self, variables, key, n, method="from_prior")
