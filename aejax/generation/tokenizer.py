"""The objective of image tokenizers: pixels, perception, an opponent and the bottleneck's terms.

As VQGAN (Esser et al. 2021, arXiv 2012.09841) and latent diffusion (Rombach et al. 2022, arXiv
2112.10752) train f_E and f_D; the model is `adversarial:AutoEncoderWithOpponent`, or any
autoencoder if there is no opponent.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.errors import UserError
from aejax.generation.adversarial import discriminator_loss, frozen, generator_loss, r1
from aejax.generation.objective import weighted
from aejax.losses import mixture
from aejax.metrics import lpips as perception
from aejax.nets.applied import applied
from aejax.objective import run_model
from aejax.types import Aux, Batch, Variables


@dataclasses.dataclass(frozen=True)
class Tokenize:
    """loss(y, x) + perceptual * LPIPS(y, x) + adversarial * generator + terms, + discriminator.

    Args:
      loss: weights of losses.LOSSES, means over pixels. terms: of the bottleneck's terms, which are
        sums over h; they are divided by the numbers of x, so that weights are those in print.
      perceptual: weight of LPIPS. lpips: the user's weights file (see metrics/lpips.py); sha256:
        its hash, checked if given. A file without a weight measures and does not train.
      adversarial: weight of the opponent's loss on y; 0 = no opponent. begin: steps without it,
        while the discriminator learns already; adaptive: scale it by the ratio of both gradients
        at y, at most 1e4. penalty: of R1 on the discriminator.
    """

    loss: Mapping[str, float]
    terms: Mapping[str, float]
    perceptual: float = 0.0
    lpips: str = ""
    sha256: str = ""
    adversarial: float = 0.0
    begin: int = 10_000
    adaptive: bool = True
    penalty: float = 0.0

    def __post_init__(self):
        if self.perceptual and not self.lpips:
            raise UserError(
                "objective.kwargs.perceptual needs objective.kwargs.lpips, a file of LPIPS "
                "weights; aejax/metrics/lpips.py says how to write it"
            )

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        """Metrics: "mse", "lpips", every term per number of x, "discriminator", "generator"."""
        x = batch["image"]
        out, collections = run_model(model, variables, x, None, key, train)
        numbers = x[0].size
        terms = {name: v / numbers for name, v in out.terms.items()}
        distance, metrics = self._distance(x, out.y)
        total = distance + weighted(self.terms, terms, train)
        metrics |= {"mse": jnp.mean(jnp.square(out.y - x), (1, 2, 3)), **terms}
        if self.adversarial and train:
            adversarial, of_opponent = self._opponent(model, variables, x, out.y)
            total, metrics = total + adversarial, metrics | of_opponent
        return total, Aux({"loss": total, **metrics}, collections, {"x": x, "y": out.y})

    def _distance(self, x: Array, y: Array) -> tuple[Array, dict[str, Array]]:
        """([b]: the loss of the pixels, with the weighted LPIPS if asked for; metrics)."""
        distance = mixture(dict(self.loss))(x, y)
        if not self.lpips:
            return distance, {}
        lpips = perception.lpips(perception.load(self.lpips, self.sha256), x, y)
        if self.perceptual:
            distance = distance + self.perceptual * lpips
        return distance, {"lpips": lpips}

    def _opponent(
        self, model: nn.Module, variables: Variables, x: Array, y: Array
    ) -> tuple[Array, dict[str, Array]]:
        """(the adversarial part of the loss [b], metrics)."""
        discriminate = lambda v, x: applied(model, v, x, method="discriminate")  # noqa: E731
        fixed = frozen(variables, "discriminator")
        generator = generator_loss(discriminate(fixed, y))
        balance = jnp.ones(())
        if self.adaptive:
            length = lambda g: jnp.sqrt(jnp.sum(jnp.square(g)))  # noqa: E731
            of_distance = jax.grad(lambda y: jnp.sum(self._distance(x, y)[0]))(y)
            of_generator = jax.grad(lambda y: jnp.sum(generator_loss(discriminate(fixed, y))))(y)
            balance = jnp.clip(length(of_distance) / (length(of_generator) + 1e-6), 0.0, 1e4)
            balance = jax.lax.stop_gradient(balance)
        begun = (variables["adversarial"]["steps"] >= self.begin).astype(jnp.float32)
        discriminator = discriminator_loss(
            discriminate(variables, x), discriminate(variables, jax.lax.stop_gradient(y))
        )
        metrics = {"discriminator": discriminator, "generator": generator}
        metrics["balance"] = jnp.full(len(x), balance)
        if self.penalty:
            penalty = r1(lambda x: discriminate(variables, x), x)
            discriminator = discriminator + 0.5 * self.penalty * penalty
        return begun * self.adversarial * balance * generator + discriminator, metrics
