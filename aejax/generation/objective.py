"""Objectives of this room: the evidence lower bound, a prior over latents, a classifier.

All are the package's `objective(model, variables, batch, key, train) -> (loss [b], Aux)`; there is
no trainer here.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

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
    """Gray values as probabilities of 1: "dynamic" draws anew each time, "static" once per image
    (the draw follows from its pixels, so that it is the same in every epoch), "" leaves x."""
    if not how:
        return x
    if how == "dynamic":
        return jax.random.bernoulli(key, x).astype(x.dtype)
    if how != "static":
        raise UserError(f'binarise "{how}": static, dynamic or ""')

    def one(image):
        values = jnp.round(image.reshape(-1) * 255).astype(jnp.uint32)
        place = jnp.arange(values.size, dtype=jnp.uint32) * jnp.uint32(2654435761)
        mark = jnp.sum((values + 1) * (place ^ (place >> 15)), dtype=jnp.uint32)
        return jax.random.bernoulli(jax.random.fold_in(jax.random.key(0), mark), image)

    return jax.vmap(one)(x).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """-log p(x | z) + weighted terms of the bottleneck, in nats per image; {"kl": 1} is the VAE.

    Args:
      terms: weights of the bottleneck's terms: kl (beta), free, capacity, tc, mmd, l2, commit, ...
      likelihood: one of likelihood.LIKELIHOODS; arguments: its own (sigma, mixtures, levels).
      samples: above 1, the importance-weighted bound of that many samples (IWAE, Burda et al. 2016,
        arXiv 1509.00519) takes the place of the sum; the terms must be {"kl": 1}.
      binarise: "", "static" or "dynamic".
      perceptual: weight of the squared distance of a classifier's features (see `classifier`), and
        perceptual_model: the name of its shipped weights. Never the network that scores.
      perceptual_share: the part of each batch it is computed on; it is dearer than a small model.
    """

    terms: Mapping[str, float]
    likelihood: str = "normal"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    samples: int = 1
    binarise: str = ""
    perceptual: float = 0.0
    perceptual_model: str = ""
    perceptual_share: float = 1.0

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, "b"], Aux]:
        """Loss in nats per image, and metrics "nll" (of the bound), "distortion", every term."""
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

            some = max(1, round(len(x) * self.perceptual_share))
            near = jnp.mean(perceptual(self.perceptual_model, x[:some], out.y[:some]))
            loss = loss + self.perceptual * near
            metrics |= {"loss": loss, "perceptual": jnp.full(len(x), near)}
        return loss, Aux(metrics, collections, {"x": x, "y": out.y})

    def _importance(self, model, variables, x, key):
        if dict(self.terms) != {"kl": 1.0}:
            raise UserError("samples > 1 needs objective.terms = {kl: 1} and a gaussian bottleneck")

        def one(key):
            out, collections = run_model(model, variables, x, None, key, True)
            log_w = log_weight(self.likelihood, x, out, **dict(self.arguments))
            return log_w, out.terms["kl"], out.y, collections

        # of all samples at once, so that x is encoded once
        log_w, kl, y, collections = jax.vmap(one)(jax.random.split(key, self.samples))
        loss = math.log(self.samples) - logsumexp(log_w, axis=0)
        y, collections = jax.tree.map(lambda a: a[0], (y, collections))
        metrics = {"loss": loss, "bound": loss, "mse": jnp.mean(jnp.square(y - x), (1, 2, 3))}
        metrics["kl"] = jnp.mean(kl, axis=0)
        return loss, Aux(metrics, collections, {"x": x, "y": y})


def weighted(
    weights: Mapping[str, float], terms: Mapping[str, Array], train: bool = True
) -> Array | float:
    """Sum of weights[name] * terms[name]; in evaluation of those there are, as "mmd" and "tc" are
    estimated in training only.

    Raises:
      UserError: in training, a weight for a term that the bottleneck does not give.
    """
    total = 0.0
    for name, weight in weights.items():
        if name not in terms:
            if not train:
                continue
            raise UserError(
                f"objective.terms.{name}: the bottleneck gives no such term"
                + did_you_mean(name, terms)
            )
        total = total + weight * terms[name]
    return total


@dataclasses.dataclass(frozen=True)
class LatentPrior:
    """The prior's own loss on the latents of a frozen, trained autoencoder.

    Args:
      autoencoder: workdir of its training, or the name of shipped weights; its averaged weights are
        taken. Empty: whatever the model was initialised with.
    """

    autoencoder: str = ""

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, "b"], Aux]:
        """Loss: nats where the prior is exact, else its own unit."""
        cond = self.conditions(batch, key, train)
        out, collections = run_model(model, variables, batch["image"], cond, key, train)
        loss, x = out.terms["prior"], batch["image"]
        metrics = {"loss": loss, "prior": loss}
        if not train:
            metrics["mse"] = jnp.mean(jnp.square(out.y - x), (1, 2, 3))
        return loss, Aux(metrics, collections, {"x": x, "y": out.y})

    def conditions(self, batch: Batch, key: PRNGKeyArray, train: bool) -> dict[str, Array] | None:
        """The label, where there is one."""
        return {"label": batch["label"]} if "label" in batch else None

    def initialise(self, model: nn.Module, variables: Variables, images: Any) -> Variables:
        """The variables with the trained autoencoder in them."""
        if not self.autoencoder:
            return variables
        from aejax.generation.latent import with_autoencoder

        found = load(self.autoencoder).variables
        return with_autoencoder(variables, found, self.autoencoder)


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy of a classifier's logits, for the extractors that samples are judged by.

    Args:
      smoothing: share of the target spread over all classes.
    """

    smoothing: float = 0.05

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, "b"], Aux]:
        """Loss in nats, "accuracy" in [0, 1]."""
        if "label" not in batch:
            raise UserError("a classifier needs labels; choose a data.source that has them")
        x = batch["image"]
        out, collections = run_model(model, variables, x, None, key, train)
        log_p = jax.nn.log_softmax(out.h_hat, axis=-1)
        truth = jax.nn.one_hot(batch["label"], log_p.shape[-1])
        share = self.smoothing if train else 0.0
        loss = -jnp.sum(((1.0 - share) * truth + share / log_p.shape[-1]) * log_p, axis=-1)
        right = (jnp.argmax(log_p, axis=-1) == batch["label"]).astype(jnp.float32)
        return loss, Aux({"loss": loss, "accuracy": right}, collections, {"x": x, "y": x})


OBJECTIVES: Sequence[type] = (Evidence, LatentPrior, Classification)
