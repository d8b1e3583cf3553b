"""What all priors share: the shape of z, and the labels."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, PRNGKeyArray

from aejax.types import Label

FORGOTTEN = 0.1  # share of the labels that training replaces by "any class"


class Prior(nn.Module):
    """Base class of priors p(z); a subclass adds `__call__` and `draw` (see `contracts.Prior`).

    Class number `classes` stands for "any class". It replaces a tenth of the labels in training,
    which is what guidance needs (Ho and Salimans 2022, arXiv 2207.12598).

    Attributes:
      shape: of one example's z.
      classes: number of labels; 0 = z is modelled without labels.
      exact (of the class): the loss is -log p(z) in nats.
      discrete (of the class): z are codes, integers below `vocabulary`.
    """

    shape: tuple[int, ...]
    classes: int = 0

    exact: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """Numbers or codes in one z."""
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
        forget = jax.random.bernoulli(self.make_rng("bottleneck"), FORGOTTEN, label.shape)
        return jnp.where(forget, self.classes, label)

    @nn.nowrap
    def drawing_labels(self, key: PRNGKeyArray, n: int, label: Label) -> tuple[PRNGKeyArray, Label]:
        """How `draw` begins: (the key for z, the labels of the n samples: random if not given)."""
        key, key_label = jax.random.split(key)
        if not self.classes:
            return key, None
        if label is None:
            label = jax.random.randint(key_label, (n,), 0, self.classes)
        return key, label
