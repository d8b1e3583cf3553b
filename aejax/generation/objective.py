"""Objectives of generative models: the evidence lower bound, the loss of a prior over latents, and
the cross-entropy of a classifier. All fulfil `contracts.Objective`."""

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
    """Binary images, sampled with the gray values in [0, 1] as probabilities of 1.

    Args:
      how: "dynamic" samples anew in each call; "static" samples once per image (the key is a hash
        of its pixels, so that the result is the same in every epoch); "" returns x.
      key: of "dynamic".

    Raises:
      UserError: another `how`.
    """
    if not how:
        return x
    if how == "dynamic":
        return jax.random.bernoulli(key, x).astype(x.dtype)
    if how != "static":
        raise UserError(f'binarise "{how}": use static, dynamic or ""')

    def sample_static(image):
        values = jnp.round(image.reshape(-1) * 255).astype(jnp.uint32)
        weights = jnp.arange(values.size, dtype=jnp.uint32) * jnp.uint32(2654435761)
        seed = jnp.sum((values + 1) * (weights ^ (weights >> 15)), dtype=jnp.uint32)  # a hash
        return jax.random.bernoulli(jax.random.fold_in(jax.random.key(0), seed), image)

    return jax.vmap(sample_static)(x).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """-log p(x | z) + weighted terms of the bottleneck, in nats per image; with {"kl": 1} this is
    the negative ELBO of a VAE (Kingma and Welling 2014, arXiv 1312.6114).

    Args:
      terms: weights of the bottleneck's terms: kl (beta), free, capacity, tc, mmd, l2, commit, ...
      likelihood: one of likelihood.LIKELIHOODS.
      arguments: of the likelihood (sigma, mixtures, levels).
      samples: above 1, training minimises the importance-weighted bound of that many samples
        instead (IWAE, Burda et al. 2016, arXiv 1509.00519); the terms must be {"kl": 1}.
      binarise: "", "static" or "dynamic", see `binarise`.
      perceptual: weight of the distance between features of a classifier
        (`features.classifier.perceptual`).
      perceptual_model: name of its shipped weights; not those of a classifier that scores samples.
      perceptual_share: fraction of each batch on which that distance is computed; it costs more
        than a small model.

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
            raise UserError(
                'objective.kwargs.samples > 1 needs objective.terms = {"kl": 1} and a gaussian '
                "bottleneck"
            )

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
      autoencoder: folder of its run, or the name of shipped weights; the averaged weights are used.
        "": keep the initial weights of the model.
    """

    autoencoder: str = ""

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        """Loss in nats if the prior has an exact density, else without a unit; metrics "prior",
        and in evaluation "mse"."""
        cond = self.conditions(batch, key, train)
        out, collections = run_model(model, variables, batch["image"], cond, key, train)
        loss, x = out.terms["prior"], batch["image"]
        metrics = {"loss": loss, "prior": loss}
        if not train:
            metrics["mse"] = jnp.mean(jnp.square(out.y - x), (1, 2, 3))
        return loss, Aux(metrics, collections, {"x": x, "y": out.y})

    def conditions(self, batch: Batch, key: PRNGKeyArray, train: bool) -> dict[str, Array] | None:
        """{"label": [b]} if the data have labels, else None."""
        return {"label": batch["label"]} if "label" in batch else None

    def initialise(self, model: nn.Module, variables: Variables, images: Array) -> Variables:
        """The variables, with those of the trained autoencoder loaded.

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
      smoothing: label smoothing in training (Szegedy et al. 2016, arXiv 1512.00567).
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
            raise UserError("a classifier needs labels; use a data.source that has them")
        x = batch["image"]
        out, collections = run_model(model, variables, x, None, key, train)
        log_p = jax.nn.log_softmax(out.h_hat, axis=-1)
        truth = jax.nn.one_hot(batch["label"], log_p.shape[-1])
        smoothing = self.smoothing if train else 0.0
        target = (1.0 - smoothing) * truth + smoothing / log_p.shape[-1]
        loss = -jnp.sum(target * log_p, axis=-1)
        correct = (jnp.argmax(log_p, axis=-1) == batch["label"]).astype(jnp.float32)
        return loss, Aux({"loss": loss, "accuracy": correct}, collections, {"x": x, "y": x})
