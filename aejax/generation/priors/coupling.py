"""A normalising flow: invertible layers with an exact density."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.generation.nets import Condition
from aejax.generation.priors.base import Prior
from aejax.nets.applied import applied
from aejax.nets.blocks import Dense
from aejax.nets.normal import log_normal
from aejax.types import Label, Variables


class CouplingFlow(Prior):
    """Affine coupling layers (RealNVP, Dinh et al. 2017, arXiv 1605.08803) with an exact log p(z).

        z -> permuted -> a, b -> a, b * exp(scale) + shift -> ... -> u ~ N(0, I)
                         |                 |
                         +-> Dense, Dense, Dense -> scale, shift
                               + label

    Each layer scales and shifts one half b of the permuted elements by functions of the other half
    a. So it can be inverted exactly, and the log-determinant is the sum of the scales.

    Attributes:
      layers: number of coupling layers.
      width: hidden channels of their networks.
    """

    layers: int = 8
    width: int = 256

    exact: ClassVar[bool] = True

    def setup(self):
        d = self.size
        self.half = d // 2
        rng = np.random.default_rng(0)  # the permutations are part of the architecture
        self.permutations = [rng.permutation(d) for _ in range(self.layers)]
        self.first = [Dense(self.width) for _ in range(self.layers)]
        self.second = [Dense(self.width) for _ in range(self.layers)]
        last = nn.initializers.zeros_init()
        self.last = [Dense(2 * (d - self.half), init=last) for _ in range(self.layers)]
        self.condition = Condition(self.width, self.classes)

    def _scale_shift(self, i, a, c):
        y = jax.nn.gelu(self.first[i](a) + c)
        raw, shift = jnp.split(self.last[i](jax.nn.gelu(self.second[i](y))), 2, axis=-1)
        return 2.0 * jnp.tanh(raw / 2.0), shift

    def forward(
        self, z: Float[Array, "b d"], label: Label = None
    ) -> tuple[Float[Array, "b d"], Float[Array, " b"]]:
        """z -> (u ~ N(0, I), log |det du/dz|)."""
        c, log_det = self.condition(z.shape[0], None, label), jnp.zeros(z.shape[0])
        for i, permutation in enumerate(self.permutations):
            a, b = jnp.split(z[:, permutation], [self.half], axis=-1)
            scale, shift = self._scale_shift(i, a, c)
            z = jnp.concatenate([a, b * jnp.exp(scale) + shift], axis=-1)
            log_det = log_det + jnp.sum(scale, axis=-1)
        return z, log_det

    def inverse(self, u: Float[Array, "b d"], label: Label = None) -> Float[Array, "b d"]:
        """u -> z, the inverse of `forward`."""
        c = self.condition(u.shape[0], None, label)
        for i in reversed(range(self.layers)):
            a, b = jnp.split(u, [self.half], axis=-1)
            scale, shift = self._scale_shift(i, a, c)
            u = jnp.concatenate([a, (b - shift) * jnp.exp(-scale)], axis=-1)
            u = u[:, np.argsort(self.permutations[i])]
        return u

    def __call__(
        self, z: Float[Array, " b *s"], label: Label = None, train: bool = False
    ) -> Float[Array, " b"]:
        """-log p(z) in nats."""
        u, log_det = self.forward(self.flat(z), self.training_labels(label, train))
        return -jnp.sum(log_normal(u), axis=-1) - log_det

    @nn.nowrap
    def draw(
        self,
        variables: Variables,
        key: PRNGKeyArray,
        n: int,
        label: Label = None,
        temperature: float = 1.0,
    ) -> Float[Array, " n *s"]:
        """n samples by one pass through the inverse.

        Args:
          label: classes [n]; None = the flow is used without a class.
          temperature: standard deviation of the noise u.
        """
        u = temperature * jax.random.normal(key, (n, self.size))
        z = applied(self, variables, u, label, method="inverse")
        return z.reshape(n, *self.shape)
