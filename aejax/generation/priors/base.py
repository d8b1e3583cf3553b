"""Base class of the priors: the shape of z, and labels."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, PRNGKeyArray

from aejax.types import Label

LABEL_DROPOUT = 0.1  # fraction of the labels that training replaces by "any class"


class Prior(nn.Module):
    """Base class of priors p(z); a subclass adds `__call__` and `draw` (see `contracts.Prior`).

    Class number `classes` stands for "any class". It replaces a tenth of the labels in training, so
    that classifier-free guidance is possible (Ho and Salimans 2022, arXiv 2207.12598).

    Attributes:
      shape: of the z of one example.
      classes: number of classes; 0 = unconditional.
      exact: class attribute: the loss is -log p(z) in nats.
      discrete: class attribute: z are codes, integers below `vocabulary`.
    """

    shape: tuple[int, ...]
    classes: int = 0

    exact: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """Number of elements of one z."""
        return math.prod(self.shape)

    def flat(self, z: Array) -> Array:
        """z [b, *shape] -> [b, size]."""
        return z.reshape(z.shape[0], -1)

    def training_labels(self, label: Label, train: bool) -> Label:
        """The labels; in training with a tenth of them replaced by "any class"."""
        if not self.classes or label is None:
            return None
        if not train:
            return label
        dropped = jax.random.bernoulli(self.make_rng("bottleneck"), LABEL_DROPOUT, label.shape)
        return jnp.where(dropped, self.classes, label)

    @nn.nowrap
    def drawing_labels(self, key: PRNGKeyArray, n: int, label: Label) -> tuple[PRNGKeyArray, Label]:
        """(key for z, labels [n] or None) of n samples; labels are random if not given."""
        key, key_label = jax.random.split(key)
        if not self.classes:
            return key, None
        if label is None:
            label = jax.random.randint(key_label, (n,), 0, self.classes)
        return key, label
