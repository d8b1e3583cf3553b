"""From noise to samples: solvers, guidance, rounds of unmasking. Pure functions of callables."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from aejax.errors import UserError


def guided(f: Callable, label: Any, any_class: int, guidance: float) -> Callable:
    """(z, t) -> f(z, t, label), pushed away from f(z, t, any) by the factor `guidance`.

    1 = plain, above 1 = surer of the class and less varied, 0 = without a class.
    """
    if label is None:
        return lambda z, t: f(z, t, None)
    nothing = jnp.full_like(label, any_class)
    if guidance == 1.0:
        return lambda z, t: f(z, t, label)

    def both(z, t):
        without = f(z, t, nothing)
        return without + guidance * (f(z, t, label) - without)

    return both


def ode(
    velocity: Callable, noise: Float[Array, "n *s"], steps: int, solver: str = "heun"
) -> Float[Array, "n *s"]:
    """dz/dt = velocity(z, t) from t = 0 to 1 in equal steps.

    euler: one evaluation a step; heun: two, second order, the last of which is at t = 1.

    Raises:
      UserError: no such solver, no step.
    """
    if solver not in ("euler", "heun") or steps < 1:
        raise UserError(f'solver "{solver}" with {steps} steps: euler or heun, at least 1')
    h = 1.0 / steps

    def body(z, i):
        t = i * h
        v = velocity(z, t)
        if solver == "heun":
            v = 0.5 * (v + velocity(z + h * v, t + h))
        return z + h * v, None

    return jax.lax.scan(body, noise, jnp.arange(steps, dtype=jnp.float32))[0]


def unmask(
    logits: Callable,
    key: PRNGKeyArray,
    n: int,
    length: int,
    mask: int,
    steps: int,
    choice_temperature: float,
) -> Int[Array, "n l"]:
    """Codes [n, length] from all masked, in rounds: every masked code is drawn, and only as many as
    the cosine schedule says are kept, the surest first, with Gumbel noise that cools to zero."""

    def body(carry, i):
        codes, key = carry
        key, k1, k2 = jax.random.split(key, 3)
        found = logits(codes)
        drawn = jax.random.categorical(k1, found)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(found), drawn[..., None], axis=-1)[..., 0]
        known = codes != mask
        drawn = jnp.where(known, codes, drawn)
        done = (i + 1.0) / steps
        noise = choice_temperature * (1.0 - done) * jax.random.gumbel(k2, log_p.shape)
        sure = jnp.where(known, jnp.inf, log_p + noise)
        hidden = jnp.floor(jnp.cos(jnp.pi / 2.0 * done) * length + 1e-4).astype(jnp.int32)
        rank = jnp.argsort(jnp.argsort(sure, axis=1), axis=1)
        return (jnp.where((rank < hidden) & ~known, mask, drawn), key), None

    start = (jnp.full((n, length), mask), key)
    return jax.lax.scan(body, start, jnp.arange(steps, dtype=jnp.float32))[0][0]
