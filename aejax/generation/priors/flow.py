"""Flow matching: a learned velocity field carries noise to latents."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.errors import UserError
from aejax.generation import samplers
from aejax.generation.nets import MLP, Condition, Transformer
from aejax.generation.priors.base import Prior
from aejax.nets.applied import applied
from aejax.nets.blocks import Dense
from aejax.types import Label, Variables


class FlowMatching(Prior):
    """Flow matching with straight paths: a velocity field that carries noise at t = 0 to latents at
    t = 1 (Lipman et al. 2023, arXiv 2210.02747), with logit-normal t in training (Esser et al.
    2024, arXiv 2403.03206).

        training   z, noise -> (1 - t) noise + t z --> net(., t, label) -> velocity;
                   the loss is |velocity - (z - noise)|^2
        drawing    noise -> dz/dt = velocity(z, t) from t = 0 to 1 -> z

    Attributes:
      net: "mlp" for vectors, "dit" for maps (a transformer over patches, Peebles and Xie 2023).
      width: channels of the network.
      depth: number of blocks.
      heads: attention heads of "dit".
      patch: side of the patches of "dit", in positions of the latent.
      t_mean, t_std: mean and standard deviation of logit t in training.

    Raises:
      UserError: another net, or a latent that `patch` does not divide.
    """

    net: str = "mlp"
    width: int = 256
    depth: int = 4
    heads: int = 4
    patch: int = 1
    t_mean: float = 0.0
    t_std: float = 1.0

    def setup(self):
        self.condition = Condition(self.width, self.classes)
        if self.net == "mlp":
            self.field = MLP(self.width, self.depth)
        elif self.net == "dit":
            if len(self.shape) != 3 or self.shape[0] % self.patch or self.shape[1] % self.patch:
                raise UserError(f"net dit with patch {self.patch} takes no latent {self.shape}")
            rows, columns = self.shape[0] // self.patch, self.shape[1] // self.patch
            token = self.patch**2 * self.shape[2]
            self.embed = Dense(self.width)
            self.field = Transformer(self.width, self.depth, self.heads, rows * columns, token)
        else:
            raise UserError(f'prior net "{self.net}"; take mlp or dit')

    def velocity(
        self, z: Float[Array, " b *s"], t: Float[Array, " b"], label: Label = None
    ) -> Float[Array, " b *s"]:
        """dz/dt at (z, t), in the shape of z."""
        c = self.condition(z.shape[0], t, label)
        if self.net == "mlp":
            return self.field(self.flat(z), c).reshape(z.shape)
        b, (rows, columns, k), p = z.shape[0], self.shape, self.patch
        x = z.reshape(b, rows // p, p, columns // p, p, k).swapaxes(2, 3)
        x = self.field(self.embed(x.reshape(b, -1, p * p * k)), c)
        x = x.reshape(b, rows // p, columns // p, p, p, k).swapaxes(2, 3)
        return x.reshape(z.shape)

    def __call__(
        self, z: Float[Array, " b *s"], label: Label = None, train: bool = False
    ) -> Float[Array, " b"]:
        """Mean squared error of the velocity at a random t; no unit."""
        if not train and not self.has_rng("bottleneck"):
            k1 = k2 = jax.random.key(0)
        else:
            k1, k2 = jax.random.split(self.make_rng("bottleneck"))
        t = jax.nn.sigmoid(self.t_mean + self.t_std * jax.random.normal(k1, z.shape[:1]))
        noise = jax.random.normal(k2, z.shape)
        s = t.reshape(-1, *(1,) * (z.ndim - 1))
        v = self.velocity((1.0 - s) * noise + s * z, t, self.training_labels(label, train))
        return jnp.mean(jnp.square(self.flat(v - (z - noise))), axis=-1)

    @nn.nowrap
    def guided_velocity(
        self, variables: Variables, n: int, label: Label, guidance: float = 1.0
    ) -> Callable[[Array, Array], Array]:
        """(z [n, *shape], t) -> dz/dt for labels [n] or None, see `samplers.guided`."""

        def velocity(z, t, c):
            return applied(self, variables, z, jnp.full(n, t), c, method="velocity")

        return samplers.guided(velocity, label, self.classes, guidance)

    @nn.nowrap
    def draw(
        self,
        variables: Variables,
        key: PRNGKeyArray,
        n: int,
        label: Label = None,
        guidance: float = 1.0,
        steps: int = 24,
        solver: str = "heun",
    ) -> Float[Array, " n *s"]:
        """n samples by solving the ODE.

        Args:
          label: classes [n]; None = random classes.
          guidance: of `samplers.guided`; 1 = none.
          steps, solver: of `samplers.ode`.
        """
        key, label = self.drawing_labels(key, n, label)
        noise = jax.random.normal(key, (n, *self.shape))
        return samplers.ode(
            self.guided_velocity(variables, n, label, guidance), noise, steps, solver
        )
