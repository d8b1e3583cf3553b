"""Distillation of a large denoiser into a small one, and colour parameters converted to gray."""

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
    """(model, variables) of a teacher, loaded once."""
    from aejax.loading import load

    trained = load(name)
    return trained.model, jax.device_get(trained.variables)


def teacher_output(name: str, x_tilde: Images) -> Images:
    """y [b, h, w, c] of the denoiser `name` (as `aejax.load` takes) for noisy images, without a
    gradient."""
    model, variables = _teacher(name)
    # without the barrier XLA spends minutes on folding the constant weights
    variables = jax.lax.optimization_barrier(variables)
    return jax.lax.stop_gradient(applied(model, variables, x_tilde, None, train=False).y)


@dataclasses.dataclass(frozen=True)
class Distilled(Supervised):
    """`Supervised`, with a part of the loss against the output of a larger denoiser (Hinton et al.
    2015, arXiv:1503.02531).

        loss = (1 - s) distance(x, y) + s distance(y_teacher, y)

    s = `share` for examples on which the teacher's MSE is lower than the student's, else 0 (Chen et
    al. 2017, "Learning efficient object detection models with knowledge distillation"): a teacher
    trained on white noise would only harm on camera noise. The teacher's output lacks the detail
    that cannot be recovered from x_tilde, which lowers the variance of the gradient.

    Args:
      teacher, gray_teacher: denoisers of colour and of gray images; names or paths as `aejax.load`
        takes.
      share: weight of the loss against the teacher's output, 0 to 1.
      gray: as of `Supervised` (`in_gray` converts the trained network for gray images).

    Raises:
      UserError: `share` is not between 0 and 1.
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

    def _teacher_output(self, name: str, x_tilde: Images) -> Images:
        return teacher_output(name, x_tilde)

    def _targets(self, x_tilde: Images) -> Images:
        """The teachers' outputs. The example that is gray in some batches only (see
        `Supervised.gray`) goes to the colour teacher."""
        if x_tilde.shape[-1] == 1:
            return self._teacher_output(self.gray_teacher, x_tilde)
        grays = int(self._grays(x_tilde))
        parts = []
        if grays:
            gray = self._teacher_output(self.gray_teacher, x_tilde[:grays, ..., :1])
            parts.append(jnp.repeat(gray, 3, -1))
        if grays < x_tilde.shape[0]:
            parts.append(self._teacher_output(self.teacher, x_tilde[grays:]))
        return jnp.concatenate(parts)


def in_gray(params: Variables) -> Variables:
    """Converts the parameters of a colour denoiser to those of a gray one, whose output is the mean
    of the colour model's output for three equal channels. Only the first and the last layer change,
    to a third of their size.

    Args:
      params: of a 3-channel model of `models.MODELS`.
    """
    head, tail = params["head"]["kernel"], params["tail"]["kernel"]
    pixels = tail.shape[-1]  # input channels of the head beyond these are the noise level

    def summed(w: Array, axis: int) -> Array:
        shape = (*w.shape[:axis], w.shape[axis] // 3, 3, *w.shape[axis + 1 :])
        return w.reshape(shape).sum(axis + 1)

    gray_head = jnp.concatenate([summed(head[:, :, :pixels], 2), head[:, :, pixels:]], 2)
    gray_tail = {name: summed(v, v.ndim - 1) / 3 for name, v in params["tail"].items()}
    return {**params, "head": {**params["head"], "kernel": gray_head}, "tail": gray_tail}
