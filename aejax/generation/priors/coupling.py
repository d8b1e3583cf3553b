"""A normalising flow: invertible layers, hence an exact density."""

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
    """Affine coupling layers (RealNVP, Dinh et al. 2017, arXiv 1605.08803): exact log p(z).

        z -> permuted -> kept, moved -> kept, moved * exp(scale) + shift -> ... -> u ~ N(0, I)
                          |                             |
                          +-> Dense, Dense, Dense -> scale, shift
                                + label

    Each layer scales and shifts one half of the permuted numbers by functions of the other half, so
    it is inverted exactly, and the logarithm of its determinant is the sum of the scales.

    Attributes:
      layers: number of coupling layers. width: of the networks in them.
    """

    layers: int = 8
    width: int = 256

    exact: ClassVar[bool] = True

    def setup(self):
        d = self.size
        self.half = d // 2
        rng = np.random.default_rng(0)  # the permutations are part of the architecture
        self.orders = [rng.permutation(d) for _ in range(self.layers)]
        self.first = [Dense(self.width) for _ in range(self.layers)]
        self.second = [Dense(self.width) for _ in range(self.layers)]
        last = nn.initializers.zeros_init()
        self.last = [Dense(2 * (d - self.half), init=last) for _ in range(self.layers)]
        self.condition = Condition(self.width, self.classes)

    def _scale_shift(self, i, kept, c):
        y = jax.nn.gelu(self.first[i](kept) + c)
        raw, shift = jnp.split(self.last[i](jax.nn.gelu(self.second[i](y))), 2, axis=-1)
        return 2.0 * jnp.tanh(raw / 2.0), shift

    def forward(
        self, z: Float[Array, "b d"], label: Label = None
    ) -> tuple[Float[Array, "b d"], Float[Array, " b"]]:
        """z -> (u [b, d], which is ~ N(0, I), and log |du/dz| [b])."""
        c, total = self.condition(z.shape[0], None, label), jnp.zeros(z.shape[0])
        for i, order in enumerate(self.orders):
            kept, moved = jnp.split(z[:, order], [self.half], axis=-1)
            scale, shift = self._scale_shift(i, kept, c)
            z = jnp.concatenate([kept, moved * jnp.exp(scale) + shift], axis=-1)
            total = total + jnp.sum(scale, axis=-1)
        return z, total

    def inverse(self, u: Float[Array, "b d"], label: Label = None) -> Float[Array, "b d"]:
        """u -> z, the inverse of `forward`."""
        c = self.condition(u.shape[0], None, label)
        for i in reversed(range(self.layers)):
            kept, moved = jnp.split(u, [self.half], axis=-1)
            scale, shift = self._scale_shift(i, kept, c)
            u = jnp.concatenate([kept, (moved - shift) * jnp.exp(-scale)], axis=-1)
            u = u[:, np.argsort(self.orders[i])]
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
        """n samples by one pass through the inverse; temperature scales the noise."""
        u = temperature * jax.random.normal(key, (n, self.size))
        z = applied(self, variables, u, label, method="inverse")
        return z.reshape(n, *self.shape)
