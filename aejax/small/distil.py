"""Knowledge distillation: the outputs of a larger model (the teacher) are targets of a smaller one.

    c.objective.name = "aejax.small.distil:Distil"
    c.objective.kwargs.teacher = "runs/large"   # or a shipped name: "gray"
    c.objective.kwargs.outputs = 0.5

See `Distil`.
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
    """The trained model `name`, see `aejax.load`; loaded once per process."""
    return load(name)


@dataclasses.dataclass(frozen=True)
class Distil(Autoencode):
    """Distillation of outputs and codes (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531):

        (1 - outputs) loss(x, y) + outputs loss(y_teacher, y) + features d(h_teacher, h)

    The teacher gets the same x_tilde and conditions. In evaluation the loss is loss(x, y), so that
    it is comparable with other runs.

    Attributes:
      teacher: a run folder, a shipped name or a file of weights.
      outputs: weight of the loss to the output of the teacher, 0 to 1.
      features: weight of the distance between codes, see `code_distance`; 0 = none.

    Raises:
      UserError: no such teacher, or `features` with a teacher that has no `encode`.
    """

    teacher: str = ""
    outputs: float = 0.5
    features: float = 0.0

    def __post_init__(self):
        if not self.teacher:
            raise UserError(
                "objective.kwargs.teacher is missing: a run folder or the name of a model"
            )
        if not 0.0 <= self.outputs <= 1.0:
            raise UserError(f"objective.kwargs.outputs = {self.outputs}: a weight from 0 to 1")
        if self.features and not isinstance(teacher_of(self.teacher).model, Encodes):
            raise UserError(f'"{self.teacher}" has no code: leave objective.kwargs.features out')

    def __call__(self, model, variables, batch, key, train):
        loss, aux = super().__call__(model, variables, batch, key, train)
        if not train:
            return loss, aux
        teacher = teacher_of(self.teacher)
        teacher_variables = jax.tree.map(jnp.asarray, teacher.variables)
        x_tilde = aux.pictures.get("x_tilde", batch["image"])
        cond = self.conditions(batch, jax.random.split(key)[0], train)
        target = applied(teacher.model, teacher_variables, x_tilde, cond, train=False).y
        target = jax.lax.stop_gradient(target)
        distance = mixture(dict(self.loss))
        y = aux.pictures["y"]
        to_teacher = distance(target, y)
        total = loss + self.outputs * (to_teacher - distance(batch["image"], y))
        metrics = dict(aux.metrics) | {"to_teacher": to_teacher}
        if self.features:
            h = applied(model, variables, x_tilde, cond, method="encode")
            h_teacher = applied(teacher.model, teacher_variables, x_tilde, cond, method="encode")
            codes = code_distance(jax.lax.stop_gradient(h_teacher), h)
            total, metrics["codes"] = total + self.features * codes, codes
        metrics["loss"] = total
        return total, dataclasses.replace(aux, metrics=metrics)


def code_distance(a: Float[Array, "b ..."], b: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """The distance between the codes of two models, per example.

    Codes of the same shape: mean squared difference. Others: mean squared difference of the
    distances between the examples of the batch, each divided by their mean (Park et al., 2019,
    arXiv:1904.05068).

    >>> code_distance(jnp.zeros((2, 3)), jnp.ones((2, 3))).tolist()
    [1.0, 1.0]
    """
    if a.shape == b.shape:
        return jnp.mean(jnp.square(a - b).reshape(len(a), -1), 1)

    def normalised_distances(h: Array) -> Array:  # [b, b]
        flat = h.reshape(len(h), -1)
        square = jnp.sum(jnp.square(flat[:, None] - flat[None]), -1)
        distance = jnp.sqrt(square + 1e-12)
        return distance / jnp.maximum(jnp.mean(distance), 1e-12)

    return jnp.mean(jnp.square(normalised_distances(a) - normalised_distances(b)), 1)
