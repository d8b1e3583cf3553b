"""theta <- theta - alpha * grad L, in optax's words."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax

from aejax.config import Clock
from aejax.errors import UserError
from aejax.registry import lookup

OPTIMISERS = {
    "gd": lambda c, lr: optax.sgd(lr),
    "sgd": lambda c, lr: optax.sgd(lr),
    "momentum": lambda c, lr: optax.sgd(lr, momentum=c["b1"], nesterov=True),
    "adam": lambda c, lr: optax.adam(lr, b1=c["b1"], b2=c["b2"]),
    "adamw": lambda c, lr: optax.adamw(
        lr, b1=c["b1"], b2=c["b2"], weight_decay=c["weight_decay"], mask=_matrices
    ),
    "lion": lambda c, lr: optax.lion(
        lr, b1=c["b1"], b2=c["b2"], weight_decay=c["weight_decay"], mask=_matrices
    ),
    "muon": lambda c, lr: optax.contrib.muon(lr, weight_decay=c["weight_decay"]),
}

SCHEDULES = {
    "constant": lambda lr, steps, end: optax.constant_schedule(lr),
    "cosine": lambda lr, steps, end: optax.cosine_decay_schedule(lr, steps, alpha=end),
    "linear": lambda lr, steps, end: optax.linear_schedule(lr, lr * end, steps),
    # warm-up, stable, decay: the last fifth falls to the final rate
    "wsd": lambda lr, steps, end: optax.join_schedules(
        [
            optax.constant_schedule(lr),
            optax.linear_schedule(lr, lr * end, max(1, steps - steps * 4 // 5)),
        ],
        [steps * 4 // 5],
    ),
}


def _matrices(params: Any) -> Any:
    """Weight decay is for kernels, not for biases and scales."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def build_schedule(config: Mapping[str, Any], steps: int, clock: Clock) -> optax.Schedule:
    """Learning rate of each of `steps` steps: warm-up from 0, then `config.schedule`.

    Raises:
      UserError: an unknown schedule, a rate that is not positive, a warm-up longer than the run.
    """
    if not config["lr"] > 0:
        raise UserError(f"optim.lr = {config['lr']}: the learning rate is above 0")
    warmup = clock.steps(config["warmup"], "optim.warmup")
    if warmup >= steps:
        raise UserError(f"optim.warmup = {warmup} steps is not shorter than the run, {steps} steps")
    make = lookup(config["schedule"], SCHEDULES, "schedule")
    schedule = make(config["lr"], steps - warmup, config["final_lr"])
    if not warmup:
        return schedule
    return optax.join_schedules(
        [optax.linear_schedule(0.0, config["lr"], warmup), schedule], [warmup]
    )


def build_optimiser(
    config: Mapping[str, Any], schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Clipping by the global norm, then the named optimiser, of the parameters that are trained."""
    tx = lookup(config["name"], OPTIMISERS, "optimiser")(config, schedule)
    if config["clip"]:
        tx = optax.chain(optax.clip_by_global_norm(config["clip"]), tx)
    if config["only"]:  # the others' gradients are zero (`held`) and pass as they are
        tx = optax.masked(tx, lambda params: trained(params, config["only"]))
    return tx


def trained(params: Any, only: str) -> Any:
    """A tree of whether each parameter is trained: whether the regex is in its path, "f_E/a/bias".

    Raises:
      UserError: not a regex, or none is.
    """
    try:
        wanted = re.compile(only)
    except re.error as e:
        raise UserError(f'optim.only = "{only}" is not a regular expression: {e}') from e
    path = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    found = jax.tree_util.tree_map_with_path(
        lambda p, _: wanted.search(path(p)) is not None, params
    )
    if not any(jax.tree.leaves(found)):
        first = path(jax.tree_util.tree_leaves_with_path(params)[0][0])
        raise UserError(f'optim.only = "{only}" is in no parameter\'s path, such as {first}')
    return found


def held(params: Any, only: str) -> Any:
    """`params`, those that are not trained as constants: nothing is computed for them backward."""
    if not only:
        return params
    return jax.tree.map(
        lambda p, move: p if move else jax.lax.stop_gradient(p), params, trained(params, only)
    )
