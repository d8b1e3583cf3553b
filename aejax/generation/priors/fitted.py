"""Priors without gradient steps: the standard normal distribution, and Gaussian mixtures."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.errors import UserError
from aejax.generation.priors.base import Prior
from aejax.nets.normal import log_normal
from aejax.types import Label, Variables


class Normal(Prior):
    """N(0, I): the prior that a VAE or WAE is trained towards. It has no parameters."""

    exact: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self, z: Float[Array, " b *s"], label: Label = None, train: bool = False
    ) -> Float[Array, " b"]:
        """-log N(z; 0, I) in nats."""
        return -jnp.sum(log_normal(self.flat(z)), axis=-1)

    @nn.nowrap
    def draw(
        self, variables: Variables, key: PRNGKeyArray, n: int, label: Label = None
    ) -> Float[Array, " n *s"]:
        """n samples of N(0, I); the label is not used."""
        return jax.random.normal(key, (n, *self.shape))


class Mixture(Prior):
    """A Gaussian mixture with full covariances, for all data or for each class.

    For an autoencoder trained on reconstruction alone, a mixture of 10 components instead of 1
    improves the FID on MNIST from 58.7 to 10.7 (Ghosh et al. 2020, arXiv 1903.12436).

    Attributes:
      components: number of components, per class if there are classes.
    """

    components: int = 10

    exact: ClassVar[bool] = True

    def setup(self):
        g, m, d = max(self.classes, 1), self.components, self.size
        normal, zeros = nn.initializers.normal(1.0), nn.initializers.zeros_init()
        self.logits = self.param("logits", zeros, (g, m))
        self.means = self.param("means", normal, (g, m, d))
        self.roots = self.param("roots", lambda _, s: jnp.broadcast_to(jnp.eye(d), s), (g, m, d, d))

    def _log_p(self, z):
        """log p(z | class) of each of g classes, [b, g], in nats."""
        z = self.flat(z)

        def component(mean, root):
            u = jax.scipy.linalg.solve_triangular(root, (z - mean).T, lower=True).T
            return jnp.sum(log_normal(u), axis=-1) - jnp.sum(jnp.log(jnp.abs(jnp.diagonal(root))))

        log_p = jax.vmap(jax.vmap(component))(self.means, self.roots)  # [g, m, b]
        return logsumexp(log_p + jax.nn.log_softmax(self.logits)[..., None], axis=1).T

    def __call__(
        self, z: Float[Array, " b *s"], label: Label = None, train: bool = False
    ) -> Float[Array, " b"]:
        """-log p(z | label) in nats; without labels -log p(z) with equally likely classes."""
        log_p = self._log_p(z)
        if self.classes and label is not None:
            return -jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]
        return math.log(log_p.shape[1]) - logsumexp(log_p, axis=1)

    @nn.nowrap
    def fit(self, z: np.ndarray, label: np.ndarray | None = None, seed: int = 0) -> Variables:
        """Fits the mixture by expectation maximisation (scikit-learn); returns the variables.

        Args:
          z: latents [n, *shape].
          label: class of each example, [n]; required if `classes` is not 0.

        Raises:
          UserError: fewer than one component, or fewer examples than components in some class.
        """
        if self.components < 1:
            raise UserError(f"components = {self.components} is below 1")
        from sklearn.mixture import GaussianMixture

        z = np.asarray(z, np.float64).reshape(len(z), -1)
        groups = [z] if not self.classes else [z[label == k] for k in range(self.classes)]
        fewest = min(map(len, groups))
        if fewest < max(2, self.components):
            raise UserError(
                f"{fewest} examples (of the smallest class) are too few for {self.components} "
                "components"
            )
        settings = {"reg_covar": 1e-5, "random_state": seed, "max_iter": 100}
        mixtures = [GaussianMixture(self.components, **settings).fit(group) for group in groups]
        weights, means, covariances = (
            np.stack([getattr(mixture, name) for mixture in mixtures])
            for name in ("weights_", "means_", "covariances_")
        )
        params = {"logits": np.log(weights), "means": means}
        params["roots"] = np.linalg.cholesky(covariances)
        return {"params": {name: value.astype(np.float32) for name, value in params.items()}}

    @nn.nowrap
    def draw(
        self, variables: Variables, key: PRNGKeyArray, n: int, label: Label = None
    ) -> Float[Array, " n *s"]:
        """n samples of classes `label` [n]; None = random classes."""
        p = variables["params"]
        k1, k2, k3 = jax.random.split(key, 3)
        group = label if self.classes else jnp.zeros(n, jnp.int32)
        if group is None:
            group = jax.random.randint(k3, (n,), 0, self.classes)
        index = jax.random.categorical(k1, jnp.asarray(p["logits"])[group])
        root, mean = (jnp.asarray(p[name])[group, index] for name in ("roots", "means"))
        noise = jax.random.normal(k2, (n, self.size))
        return (mean + jnp.einsum("nij,nj->ni", root, noise)).reshape(n, *self.shape)
