"""Distillation: a smaller model is trained on what a larger one makes of the same images.

c.objective.name = "aejax.small.distil:Distil"
c.objective.kwargs.teacher = "runs/large"   # or a shipped name: "gray"
c.objective.kwargs.outputs = 0.5
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.contracts import Encodes
from aejax.errors import UserError
from aejax.loading import load
from aejax.losses import mixture
from aejax.nets.applied import applied
from aejax.objective import Autoencode
from aejax.trained import Trained


@functools.lru_cache(4)
def teacher_of(name: str) -> Trained:
    """The trained model of that name; loaded once."""
    return load(name)


@dataclasses.dataclass(frozen=True)
class Distil(Autoencode):
    """(1 - outputs) loss(x, y) + outputs loss(y_teacher, y) + features d(h_teacher, h).

    The teacher sees the same x_tilde and conditions (Hinton, Vinyals and Dean, 2015,
    arXiv:1503.02531). In an evaluation the loss is the one without a teacher, so that it compares
    with other runs.

    Args:
      teacher: a run, a shipped name or a file.
      outputs: share of the loss that is measured to the teacher's y.
      features: weight of the distance between codes. Codes of one shape are compared directly, by
        their mean squared difference; others by the distances between the examples of the batch,
        each divided by their mean (Park et al., 2019, arXiv:1904.05068).

    Raises:
      UserError: no teacher of that name, or one without a code if features are wanted.
    """

    teacher: str = ""
    outputs: float = 0.5
    features: float = 0.0

    def __post_init__(self):
        if not self.teacher:
            raise UserError("objective.kwargs.teacher is missing: a run or the name of a model")
        if not 0.0 <= self.outputs <= 1.0:
            raise UserError(f"objective.kwargs.outputs = {self.outputs}: a share from 0 to 1")
        if self.features and not isinstance(teacher_of(self.teacher).model, Encodes):
            raise UserError(f'"{self.teacher}" has no code: leave objective.kwargs.features out')

    def __call__(self, model, variables, batch, key, train):
        loss, aux = super().__call__(model, variables, batch, key, train)
        if not train:
            return loss, aux
        trained = teacher_of(self.teacher)
        theirs = jax.tree.map(jnp.asarray, trained.variables)
        x_tilde = aux.pictures.get("x_tilde", batch["image"])
        cond = self.conditions(batch, jax.random.split(key)[0], train)
        target = applied(trained.model, theirs, x_tilde, cond, train=False).y
        target = jax.lax.stop_gradient(target)
        distance = mixture(dict(self.loss))
        y = aux.pictures["y"]
        to_teacher = distance(target, y)
        total = loss + self.outputs * (to_teacher - distance(batch["image"], y))
        metrics = dict(aux.metrics) | {"to_teacher": to_teacher}
        if self.features:
            h = applied(model, variables, x_tilde, cond, method="encode")
            h_teacher = applied(trained.model, theirs, x_tilde, cond, method="encode")
            apart = code_distance(jax.lax.stop_gradient(h_teacher), h)
            total, metrics["codes"] = total + self.features * apart, apart
        metrics["loss"] = total
        return total, dataclasses.replace(aux, metrics=metrics)


def code_distance(a: Float[Array, "b ..."], b: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """How far codes are from a teacher's, per example; see `Distil`."""
    if a.shape == b.shape:
        return jnp.mean(jnp.square(a - b).reshape(len(a), -1), 1)

    def between(h: Array) -> Array:  # distances between the examples over their mean, [b, b]
        flat = h.reshape(len(h), -1)
        square = jnp.sum(jnp.square(flat[:, None] - flat[None]), -1)
        distance = jnp.sqrt(square + 1e-12)
        return distance / jnp.maximum(jnp.mean(distance), 1e-12)

    return jnp.mean(jnp.square(between(a) - between(b)), 1)
