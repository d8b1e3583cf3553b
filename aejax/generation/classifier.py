"""A small classifier whose last hidden layer is what samples are judged by, instead of Inception's.

Inception has never seen a digit or a shoe: values in print for Fashion-MNIST run from 1 to 196. A
classifier of the same domain needs no download, and its weights are shipped with the config that
trained them. Features are divided by one number, so that over real images their total variance is
their count: a Frechet distance of d then means "as far off as all of the variance there is".
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from aejax import weights
from aejax.errors import UserError
from aejax.loading import load
from aejax.nets.blocks import Conv, Dense, Downsample
from aejax.types import Output

# data.source -> the classifier that was trained on its training split
JUDGES = {"tfds:mnist": "digits-classifier", "tfds:fashion_mnist": "fashion-classifier"}


class Classifier(nn.Module):
    """[b, h, w, c] -> Output with h = features [b, features] and h_hat = logits [b, classes].

    Levels of two 3x3 convolutions, each half the size of the one before, then the mean over pixels.
    """

    shape: Sequence[int]
    classes: int = 10
    widths: Sequence[int] = (24, 48, 64)
    features: int = 64
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], cond: dict | None = None, train: bool = False
    ) -> Output:
        """Images in [0, 1] -> features and logits; y is x."""
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
def shipped(name: str) -> tuple[Classifier, Any, dict]:
    """(module, variables, meta) of a shipped classifier: "digits-classifier", ..."""
    trained = load(name)
    return trained.model, trained.variables, weights.provenance(name)


def extractor(name: str, batch: int = 500):
    """uint8 images [n, h, w, c] -> (features float64 [n, d], predicted classes int [n])."""
    model, variables, meta = shipped(name)
    scale = float(meta["feature_scale"])

    @jax.jit
    def run(x):
        out = model.apply(variables, x.astype(jnp.float32) / 255.0)
        return out.h / scale, jnp.argmax(out.h_hat, axis=-1)

    def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, labels = [], []
        for i in range(0, len(images), batch):
            part = images[i : i + batch]
            full = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            f, k = run(full)
            features.append(np.asarray(f, np.float64)[: len(part)])
            labels.append(np.asarray(k)[: len(part)])
        return np.concatenate(features), np.concatenate(labels)

    return extract


def scale_of(features: np.ndarray) -> float:
    """The number that makes the mean variance of the features 1."""
    return float(np.sqrt(np.asarray(features, np.float64).var(0).mean()))


def refuse_judge(name: str) -> None:
    """A classifier that judges must not be trained against: its distance would tell nothing.

    Raises:
      UserError: `name` is one of the judges, or weights equal to one of theirs.
    """
    mine = weights.provenance(name)["sha256"]
    for known in JUDGES.values():
        if pathlib.Path(name).stem == known or weights.provenance(known)["sha256"] == mine:
            raise UserError(
                f'perceptual_model "{name}" is the classifier whose features judge the samples; '
                f"take another, such as {known.replace('classifier', 'perceptual')}"
            )


def perceptual(
    name: str, x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]
) -> Float[Array, "b"]:
    """Sum over levels of the mean squared distance of channel-normalised features (after LPIPS,
    Zhang et al. 2018, arXiv 1801.03924), on our own classifier.

    Raises:
      UserError: `name` is a classifier that judges samples.
    """
    refuse_judge(name)
    model, variables, _ = shipped(name)
    a, b = (model.apply(variables, v).extra for v in (x, y))

    def unit(v):
        return v / jnp.sqrt(jnp.sum(jnp.square(v), -1, keepdims=True) + 1e-6)

    return sum(jnp.mean(jnp.sum(jnp.square(unit(a[k]) - unit(b[k])), -1), (1, 2)) for k in a)


def as_meta(model: Classifier) -> dict[str, Any]:
    """The arguments that make this module, for the .json of its weights."""
    names = ("shape", "classes", "widths", "features", "dropout")
    return {n: list(v) if isinstance(v := getattr(model, n), tuple | list) else v for n in names}
