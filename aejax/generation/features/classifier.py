"""A small classifier whose last hidden layer gives the features, instead of Inception.

Inception was not trained on digits or clothes: published FIDs on Fashion-MNIST range from 1 to 196.
A classifier of the same set needs no download, and its weights are shipped with the config that
trained them. Features are scaled so that their mean variance over real images is 1: a Frechet
distance equal to the number of features is then as large as the total variance.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from aejax import weights
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.generation.features.batches import Extract, in_batches
from aejax.loading import load
from aejax.nets.applied import applied
from aejax.nets.blocks import Conv, Dense, Downsample
from aejax.types import Cond, Output, Variables
from aejax.weights import Metadata

# data.source -> shipped classifier that scores samples, trained on the training split
SCORING_CLASSIFIERS = {
    "tfds:mnist": "digits-classifier",
    "tfds:fashion_mnist": "fashion-classifier",
}


class Classifier(nn.Module):
    """A small residual CNN: features and class logits of images.

        x [b, h, w, c] -> level 1 -> ... -> level n -> mean over pixels -> layer norm
          -> Dense, relu -> features -> Dense -> logits
        level: 3x3, stride 2, relu -> u;  u + two 3x3 convolutions of u

    Output: h = features [b, features], h_hat = logits [b, classes], y = x, and in `extra` the maps
    of the levels, "level0", "level1", ...

    Attributes:
      shape: (h, w, c) of the images.
      classes: number of classes.
      widths: channels of each level.
      features: number of features.
      dropout: dropout rate of the features before the last layer.
    """

    shape: Sequence[int]
    classes: int = 10
    widths: Sequence[int] = (24, 48, 64)
    features: int = 64
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """Images in [0, 1] -> Output."""
        u = x - 0.5
        levels = []
        for width in self.widths:
            pad = (-u.shape[1] % 2, -u.shape[2] % 2)
            u = jnp.pad(u, ((0, 0), (0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
            u = jax.nn.relu(Downsample(width, kernel=3)(u))
            u = u + jax.nn.relu(Conv(width)(jax.nn.relu(Conv(width)(u))))
            levels.append(u)
        u = nn.LayerNorm()(jnp.mean(u, axis=(1, 2)))
        features = jax.nn.relu(Dense(self.features)(u))
        hidden = features
        if train and self.dropout:
            keep = 1.0 - self.dropout
            mask = jax.random.bernoulli(self.make_rng("bottleneck"), keep, features.shape)
            hidden = features * mask / keep
        logits = Dense(self.classes)(hidden)
        return Output(features, logits, x, {}, {f"level{i}": v for i, v in enumerate(levels)})


@functools.lru_cache(4)
def shipped(name: str) -> tuple[nn.Module, Variables, Metadata]:
    """(module, variables, metadata) of a shipped classifier: "digits-classifier", ..."""
    trained = load(name)
    return trained.model, trained.variables, weights.metadata(name)


def extractor(name: str, batch: int = 500) -> Extract:
    """The extractor of a shipped classifier: (scaled features, predicted classes)."""
    model, variables, meta = shipped(name)
    scale = meta.feature_scale

    @jax.jit
    def run(x):
        out = applied(model, variables, x.astype(jnp.float32) / 255.0)
        return out.h / scale, jnp.argmax(out.h_hat, axis=-1)

    return in_batches(run, batch)


def scale_of(features: Float[np.ndarray, "n d"]) -> float:
    """The number to divide the features by, so that their mean variance is 1."""
    return float(np.sqrt(np.asarray(features, np.float64).var(0).mean()))


def check_perceptual_model(name: str) -> None:
    """Checks that a perceptual loss does not use a classifier that also scores samples: a model
    trained on its features would get a better score without better pictures.

    Raises:
      UserError: `name` is one of SCORING_CLASSIFIERS, or a file with the weights of one of them.
    """
    sha256 = weights.metadata(name).sha256
    for classifier in SCORING_CLASSIFIERS.values():
        if pathlib.Path(name).stem == classifier or weights.metadata(classifier).sha256 == sha256:
            raise UserError(
                f'perceptual_model "{name}" is the classifier that scores the samples; '
                f"use another one, such as {classifier.replace('classifier', 'perceptual')}"
            )


def perceptual(
    name: str, x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """A perceptual distance: the mean squared distance of the normalised feature maps of a shipped
    classifier, summed over its levels (after LPIPS, Zhang et al. 2018, arXiv 1801.03924).

    Args:
      name: of the classifier.

    Raises:
      UserError: `name` is a classifier that scores samples.
    """
    check_perceptual_model(name)
    model, variables, _ = shipped(name)
    levels_x, levels_y = (applied(model, variables, v).extra for v in (x, y))

    def unit(v):
        return v / jnp.sqrt(jnp.sum(jnp.square(v), -1, keepdims=True) + 1e-6)

    def distance(level):
        difference = unit(levels_x[level]) - unit(levels_y[level])
        return jnp.mean(jnp.sum(jnp.square(difference), -1), (1, 2))

    return sum(map(distance, levels_x), jnp.zeros(()))


def as_meta(model: Classifier) -> JsonObject:
    """The arguments of this module, for the .json beside its weights."""
    names = ("shape", "classes", "widths", "features", "dropout")
    return {n: list(v) if isinstance(v := getattr(model, n), tuple | list) else v for n in names}
