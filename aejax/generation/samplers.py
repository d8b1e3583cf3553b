"""Sampling: an ODE solver, classifier-free guidance, iterative unmasking. Pure functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from aejax.errors import UserError
from aejax.types import Label


def guided(
    f: Callable[[Array, Array, Label], Array], label: Label, any_class: int, guidance: float
) -> Callable[[Array, Array], Array]:
    """Classifier-free guidance: (z, t) -> f(any) + guidance * (f(label) - f(any)) (Ho and Salimans
    2022, arXiv 2207.12598).

    Args:
      f: (z, t, label) -> an array (velocity, logits).
      label: [n], or None for a model without labels.
      any_class: the label that stands for "any class".
      guidance: 1 = none, above 1 = closer to the class and less varied, 0 = without a class.
    """
    if label is None:
        return lambda z, t: f(z, t, None)
    any_label = jnp.full_like(label, any_class)
    if guidance == 1.0:
        return lambda z, t: f(z, t, label)

    def guided_f(z, t):
        unconditional = f(z, t, any_label)
        return unconditional + guidance * (f(z, t, label) - unconditional)

    return guided_f


def ode(
    velocity: Callable[[Array, Array], Array],
    noise: Float[Array, " n *s"],
    steps: int,
    solver: str = "heun",
) -> Float[Array, " n *s"]:
    """The solution at t = 1 of dz/dt = velocity(z, t) from `noise` at t = 0, in equal steps.

    Args:
      steps: number of steps.
      solver: "euler" (one evaluation per step) or "heun" (two, second order).

    Raises:
      UserError: another solver, or steps < 1.

    >>> z = aejax.generation.samplers.ode(lambda z, t: z, np.ones((1, 1), np.float32), steps=50)
    >>> round(float(z[0, 0]), 2)  # e
    2.72
    """
    if solver not in ("euler", "heun") or steps < 1:
        raise UserError(f'solver "{solver}" with {steps} steps: use euler or heun, 1 step or more')
    h = 1.0 / steps

    def body(z, i):
        t = i * h
        v = velocity(z, t)
        if solver == "heun":
            v = 0.5 * (v + velocity(z + h * v, t + h))
        return z + h * v, None

    return jax.lax.scan(body, noise, jnp.arange(steps, dtype=jnp.float32))[0]


def unmask(
    logits: Callable[[Int[Array, "n l"]], Float[Array, "n l v"]],
    key: PRNGKeyArray,
    n: int,
    length: int,
    mask: int,
    steps: int,
    choice_temperature: float,
) -> Int[Array, "n l"]:
    """Samples codes [n, length] by iterative unmasking (MaskGIT, Chang et al. 2022, arXiv
    2202.04200).

    All codes are masked at first. Each step samples every masked code and keeps those with the
    highest log p plus Gumbel noise, as many as the cosine schedule says. The noise decreases
    linearly to zero.

    Args:
      logits: codes -> [n, length, vocabulary].
      mask: the code that stands for "masked".
      steps: number of steps.
      choice_temperature: scale of the Gumbel noise at the start.
    """

    def body(carry, i):
        codes, key = carry
        key, k1, k2 = jax.random.split(key, 3)
        predicted = logits(codes)
        sampled = jax.random.categorical(k1, predicted)
        log_p = jax.nn.log_softmax(predicted)
        log_p = jnp.take_along_axis(log_p, sampled[..., None], axis=-1)[..., 0]
        known = codes != mask
        sampled = jnp.where(known, codes, sampled)
        progress = (i + 1.0) / steps
        noise = choice_temperature * (1.0 - progress) * jax.random.gumbel(k2, log_p.shape)
        confidence = jnp.where(known, jnp.inf, log_p + noise)
        hidden = jnp.floor(jnp.cos(jnp.pi / 2.0 * progress) * length + 1e-4).astype(jnp.int32)
        rank = jnp.argsort(jnp.argsort(confidence, axis=1), axis=1)
        return (jnp.where((rank < hidden) & ~known, mask, sampled), key), None

    start = (jnp.full((n, length), mask), key)
    return jax.lax.scan(body, start, jnp.arange(steps, dtype=jnp.float32))[0][0]
