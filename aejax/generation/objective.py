"""Objectives of generation: the evidence lower bound, a prior over latents, a classifier.

All are `objective(model, variables, batch, key, train) -> (loss [b], Aux)`, as everywhere in the
package, and are minimised by its one training loop.
"""

import dataclasses
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.errors import UserError
from aejax.generation.likelihood import log_likelihood, log_weight
from aejax.loading import load
from aejax.objective import run_model
from aejax.registry import did_you_mean
from aejax.types import Aux, Batch, Variables


def binarise(x: Float[Array, "b h w c"], how: str, key: PRNGKeyArray) -> Float[Array, "b h w c"]:
    """Black and white images, drawn with the gray values as probabilities of 1.

    Args:
      how: "dynamic" draws anew each time; "static" draws once per image (the random numbers follow
        from its pixels, so that they are the same in every epoch); "" returns x.

    Raises:
      UserError: another `how`.
    """
    if not how:
        return x
    if how == "dynamic":
        return jax.random.bernoulli(key, x).astype(x.dtype)
    if how != "static":
        raise UserError(f'binarise "{how}": static, dynamic or ""')

    def statically_drawn(image):
        values = jnp.round(image.reshape(-1) * 255).astype(jnp.uint32)
        weights = jnp.arange(values.size, dtype=jnp.uint32) * jnp.uint32(2654435761)
        seed = jnp.sum((values + 1) * (weights ^ (weights >> 15)), dtype=jnp.uint32)  # a hash
        return jax.random.bernoulli(jax.random.fold_in(jax.random.key(0), seed), image)

    return jax.vmap(statically_drawn)(x).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """-log p(x | z) + weighted terms of the bottleneck, in nats per image; {"kl": 1} is the VAE.

    Args:
      terms: weights of the bottleneck's terms: kl (beta), free, capacity, tc, mmd, l2, commit, ...
      likelihood: one of likelihood.LIKELIHOODS; arguments: its own (sigma, mixtures, levels).
      samples: above 1, training minimises the importance-weighted bound of that many samples
        instead (IWAE, Burda et al. 2016, arXiv 1509.00519); the terms must be {"kl": 1}.
      binarise: "", "static" or "dynamic", see `binarise`.
      perceptual: weight of the distance between features of a classifier
        (`features.classifier.perceptual`); perceptual_model: the name of its shipped weights, never
        those that score the samples.
      perceptual_share: the part of each batch it is computed on; it costs more than a small model.

    Raises:
      UserError: in training, a weight for a term that the bottleneck does not have; samples > 1
        with other terms; a likelihood whose parameters f_D does not give.
    """

    terms: Mapping[str, float]
    likelihood: str = "normal"
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict)
    samples: int = 1
    binarise: str = ""
    perceptual: float = 0.0
    perceptual_model: str = ""
    perceptual_share: float = 1.0

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        """Loss in nats per image. Metrics: "distortion" = -log p(x | z), "bound" = distortion + kl,
        "mse", every term of the bottleneck, "perceptual"."""
        key, key_binary = jax.random.split(key)
        x = binarise(batch["image"], self.binarise, key_binary)
        if self.samples > 1 and train:
            return self._importance(model, variables, x, key)
        out, collections = run_model(model, variables, x, None, key, train)
        distortion = -log_likelihood(self.likelihood, x, out, **dict(self.arguments))
        loss = distortion + weighted(self.terms, out.terms, train)
        metrics = {
            "loss": loss,
            "distortion": distortion,
            "mse": jnp.mean(jnp.square(out.y - x), (1, 2, 3)),
            **out.terms,
        }
        if "kl" in out.terms:
            metrics["bound"] = distortion + out.terms["kl"]
        if self.perceptual:
            from aejax.generation.features.classifier import perceptual

            count = max(1, round(len(x) * self.perceptual_share))
            distance = jnp.mean(perceptual(self.perceptual_model, x[:count], out.y[:count]))
            loss = loss + self.perceptual * distance
            metrics |= {"loss": loss, "perceptual": jnp.full(len(x), distance)}
        return loss, Aux(metrics, collections, {"x": x, "y": out.y})

    def _importance(self, model, variables, x, key):
        if dict(self.terms) != {"kl": 1.0}:
            raise UserError("samples > 1 needs objective.terms = {kl: 1} and a gaussian bottleneck")

        def one_sample(key):
            out, collections = run_model(model, variables, x, None, key, True)
            log_w = log_weight(self.likelihood, x, out, **dict(self.arguments))
            return log_w, out.terms["kl"], out.y, collections

        # under vmap x is encoded once for all samples
        log_w, kl, y, collections = jax.vmap(one_sample)(jax.random.split(key, self.samples))
        loss = math.log(self.samples) - logsumexp(log_w, axis=0)
        y, collections = jax.tree.map(lambda a: a[0], (y, collections))
        metrics = {"loss": loss, "bound": loss, "mse": jnp.mean(jnp.square(y - x), (1, 2, 3))}
        metrics["kl"] = jnp.mean(kl, axis=0)
        return loss, Aux(metrics, collections, {"x": x, "y": y})


def weighted(
    weights: Mapping[str, float], terms: Mapping[str, Array], train: bool = True
) -> Array | float:
    """Sum of weights[name] * terms[name], [b]. In evaluation terms may be missing: "mmd" and "tc"
    are estimated in training only.

    Raises:
      UserError: in training, a weight for a term that the bottleneck does not give.
    """
    total = 0.0
    for name, weight in weights.items():
        if name not in terms:
            if not train:
                continue
            raise UserError(
                f"objective.terms.{name}: the bottleneck has no such term"
                + did_you_mean(name, terms)
            )
        total = total + weight * terms[name]
    return total


@dataclasses.dataclass(frozen=True)
class LatentPrior:
    """The loss of a prior on the latents of a frozen, trained autoencoder (a `LatentModel`).

    Args:
      autoencoder: workdir of its training, or the name of shipped weights; the averaged weights are
        used. "": those that the model was initialised with.
    """

    autoencoder: str = ""

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        """Loss in nats if the prior is exact, else in its own unit; metrics "prior", "mse"."""
        cond = self.conditions(batch, key, train)
        out, collections = run_model(model, variables, batch["image"], cond, key, train)
        loss, x = out.terms["prior"], batch["image"]
        metrics = {"loss": loss, "prior": loss}
        if not train:
            metrics["mse"] = jnp.mean(jnp.square(out.y - x), (1, 2, 3))
        return loss, Aux(metrics, collections, {"x": x, "y": out.y})

    def conditions(self, batch: Batch, key: PRNGKeyArray, train: bool) -> dict[str, Array] | None:
        """{"label": ...} if the data have labels."""
        return {"label": batch["label"]} if "label" in batch else None

    def initialise(self, model: nn.Module, variables: Variables, images: Array) -> Variables:
        """The variables, with the trained autoencoder's in place.

        Raises:
          UserError: no such run or weights, or another architecture.
        """
        if not self.autoencoder:
            return variables
        from aejax.generation.latent import with_autoencoder

        trained = load(self.autoencoder).variables
        return with_autoencoder(variables, trained, self.autoencoder)


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy of a classifier's logits (h_hat), for the extractors in `features`.

    Args:
      smoothing: share of the target spread over all classes.
    """

    smoothing: float = 0.05

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        """Loss in nats; metric "accuracy", 0 or 1 per example.

        Raises:
          UserError: the data have no labels.
        """
        if "label" not in batch:
            raise UserError("a classifier needs labels; choose a data.source that has them")
        x = batch["image"]
        out, collections = run_model(model, variables, x, None, key, train)
        log_p = jax.nn.log_softmax(out.h_hat, axis=-1)
        truth = jax.nn.one_hot(batch["label"], log_p.shape[-1])
        smoothing = self.smoothing if train else 0.0
        target = (1.0 - smoothing) * truth + smoothing / log_p.shape[-1]
        loss = -jnp.sum(target * log_p, axis=-1)
        correct = (jnp.argmax(log_p, axis=-1) == batch["label"]).astype(jnp.float32)
        return loss, Aux({"loss": loss, "accuracy": correct}, collections, {"x": x, "y": x})
