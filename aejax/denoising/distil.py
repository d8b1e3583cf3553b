"""A small denoiser learns from a large one (`Distilled`); one network for both uses (`in_gray`)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.denoising.objective import Images, Supervised
from aejax.errors import UserError
from aejax.losses import mixture
from aejax.nets.applied import applied
from aejax.objective import run_model
from aejax.types import Aux, Batch, Variables


@functools.cache
def _teacher(name: str):
    """The model and the variables of a teacher, loaded once."""
    from aejax.loading import load

    trained = load(name)
    return trained.model, jax.device_get(trained.variables)


def taught(name: str, x_tilde: Images) -> Images:
    """What the denoiser `name` makes of noisy images, without a gradient."""
    model, variables = _teacher(name)
    variables = jax.lax.optimization_barrier(variables)  # or XLA folds its transforms for minutes
    return jax.lax.stop_gradient(applied(model, variables, x_tilde, None, train=False).y)


@dataclasses.dataclass(frozen=True)
class Distilled(Supervised):
    """`Supervised`, with a part of the target taken from a larger denoiser (Hinton et al. 2015,
    arXiv:1503.02531), example by example only where the teacher is nearer to the clean picture than
    the student (Chen et al. 2017, "Learning efficient object detection models with knowledge
    distillation"): a teacher of white noise has nothing to say about a camera's.

    What the teacher gives is smoother than the clean picture: what cannot be known from the noisy
    one is gone from it, and with it most of the gradient's variance.

    Args:
      teacher: of colour images; gray_teacher: of gray ones. Names or paths as `aejax.load` takes.
      share: of the loss that is to the teacher's output; the rest is to the clean picture.
      gray: as of `Supervised` (`in_gray` makes a gray network of the one for both).
    """

    teacher: str = "colour"
    gray_teacher: str = "gray"
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise UserError(f"objective.kwargs.share = {self.share} is not between 0 and 1")

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        if not train:
            return super().__call__(model, variables, batch, key, train)
        noise_key, inner = jax.random.split(key)
        x, x_tilde, _ = self._pair(noise_key, batch["image"])
        target = self._targets(x_tilde)
        out, collections = run_model(model, variables, x_tilde, None, inner, train)

        def mse(y: Images) -> Float[Array, " b"]:
            return jnp.mean((y - x) ** 2, (1, 2, 3))

        distance = mixture(dict(self.loss))
        is_better = jax.lax.stop_gradient(mse(target) < mse(out.y))
        share = self.share * is_better
        loss = (1 - share) * distance(x, out.y) + share * distance(target, out.y)
        loss = self._balanced(loss, jnp.sqrt(mse(x_tilde)))
        pictures = {"x": x, "x_tilde": x_tilde, "y": out.y}
        return loss, Aux({"loss": loss, "mse": mse(out.y)}, collections, pictures)

    def _taught(self, name: str, x_tilde: Images) -> Images:
        return taught(name, x_tilde)

    def _targets(self, x_tilde: Images) -> Images:
        """The teachers' outputs; one that is gray by chance is the colour teacher's."""
        grays = int(self._grays(x_tilde))
        if x_tilde.shape[-1] == 1:
            return self._taught(self.gray_teacher, x_tilde)
        parts = []
        if grays:
            parts.append(_spread(self._taught(self.gray_teacher, x_tilde[:grays, ..., :1])[..., 0]))
        if grays < x_tilde.shape[0]:
            parts.append(self._taught(self.teacher, x_tilde[grays:]))
        return jnp.concatenate(parts)


def _spread(x: Float[Array, "b h w"]) -> Images:
    """Gray images as three equal channels."""
    return jnp.repeat(x[..., None], 3, -1)


def in_gray(params: Variables) -> Variables:
    """Parameters of a colour model as those of a gray one that computes the same as the colour
    model does of three equal channels, averaged: a third of the first and of the last layer.

    Args:
      params: of a denoiser of `models` with 3 channels.
    """
    head, tail = params["head"]["kernel"], params["tail"]["kernel"]
    pixels = tail.shape[-1]  # what follows them in the head's input is the noise level

    def summed(w: Array, axis: int) -> Array:
        shape = (*w.shape[:axis], w.shape[axis] // 3, 3, *w.shape[axis + 1 :])
        return w.reshape(shape).sum(axis + 1)

    seen = jnp.concatenate([summed(head[:, :, :pixels], 2), head[:, :, pixels:]], 2)
    made = {name: summed(v, v.ndim - 1) / 3 for name, v in params["tail"].items()}
    return {**params, "head": {**params["head"], "kernel": seen}, "tail": made}
