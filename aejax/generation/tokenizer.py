"""The objective of image tokenizers: distortion, LPIPS, an adversarial loss and the bottleneck's
terms, as in VQGAN (Esser et al. 2021, arXiv 2012.09841) and latent diffusion (Rombach et al. 2022,
arXiv 2112.10752).

The model is `adversarial:AutoEncoderWithOpponent`, or any autoencoder if there is no adversarial
loss.
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
    """The sum of

        loss(y, x) + perceptual * LPIPS(y, x) + adversarial * balance * generator loss(y)
        + terms / (h w c) + discriminator loss(x, y)

    Args:
      loss: {name in losses.LOSSES: weight}, means over pixels.
      terms: weights of the bottleneck's terms. These are sums over h; they are divided by the
        number of elements of x, so that weights are those of the papers.
      perceptual: weight of LPIPS.
      lpips: file of LPIPS weights (see metrics/lpips.py). If it is given and `perceptual` is 0,
        LPIPS is only a metric.
      sha256: hash of that file, checked if given.
      adversarial: weight of the generator loss; 0 = no discriminator.
      begin: steps before the generator loss is used; the discriminator is trained from step 0.
      adaptive: balance = ratio of the norms of the gradients of both losses at y, at most 1e4;
        False: balance = 1.
      penalty: weight of the R1 penalty of the discriminator.

    Raises:
      UserError: `perceptual` without `lpips`.
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
        """Metrics: "mse", "lpips", the terms per element of x, "discriminator", "generator"."""
        x = batch["image"]
        out, collections = run_model(model, variables, x, None, key, train)
        elements = x[0].size
        terms = {name: v / elements for name, v in out.terms.items()}
        distance, metrics = self._distance(x, out.y)
        total = distance + weighted(self.terms, terms, train)
        metrics |= {"mse": jnp.mean(jnp.square(out.y - x), (1, 2, 3)), **terms}
        if self.adversarial and train:
            adversarial, more_metrics = self._adversarial(model, variables, x, out.y)
            total, metrics = total + adversarial, metrics | more_metrics
        return total, Aux({"loss": total, **metrics}, collections, {"x": x, "y": out.y})

    def _distance(self, x: Array, y: Array) -> tuple[Array, dict[str, Array]]:
        """(distortion and weighted LPIPS [b], metrics)."""
        distance = mixture(dict(self.loss))(x, y)
        if not self.lpips:
            return distance, {}
        lpips = perception.lpips(perception.load(self.lpips, self.sha256), x, y)
        if self.perceptual:
            distance = distance + self.perceptual * lpips
        return distance, {"lpips": lpips}

    def _adversarial(
        self, model: nn.Module, variables: Variables, x: Array, y: Array
    ) -> tuple[Array, dict[str, Array]]:
        """(weighted losses of generator and discriminator [b], metrics)."""

        def discriminate(v, x):
            return applied(model, v, x, method="discriminate")

        def norm(g):
            return jnp.sqrt(jnp.sum(jnp.square(g)))

        fixed = frozen(variables, "discriminator")
        generator = generator_loss(discriminate(fixed, y))
        balance = jnp.ones(())
        if self.adaptive:
            g_distance = jax.grad(lambda y: jnp.sum(self._distance(x, y)[0]))(y)
            g_generator = jax.grad(lambda y: jnp.sum(generator_loss(discriminate(fixed, y))))(y)
            balance = jnp.clip(norm(g_distance) / (norm(g_generator) + 1e-6), 0.0, 1e4)
            balance = jax.lax.stop_gradient(balance)
        has_begun = (variables["adversarial"]["steps"] >= self.begin).astype(jnp.float32)
        discriminator = discriminator_loss(
            discriminate(variables, x), discriminate(variables, jax.lax.stop_gradient(y))
        )
        metrics = {"discriminator": discriminator, "generator": generator}
        metrics["balance"] = jnp.full(len(x), balance)
        if self.penalty:
            penalty = r1(lambda x: discriminate(variables, x), x)
            discriminator = discriminator + 0.5 * self.penalty * penalty
        return has_begun * self.adversarial * balance * generator + discriminator, metrics
