"""Optimisers and learning rate schedules from optax: theta <- theta - alpha * grad L."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from aejax import contracts
from aejax.errors import UserError
from aejax.registry import build, lookup
from aejax.types import Config
from aejax.units import Clock

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


def _matrices(params: PyTree) -> PyTree:
    """Mask for weight decay: kernels, not biases and scales."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def build_schedule(config: Config, steps: int, clock: Clock) -> optax.Schedule:
    """The learning rate at each of `steps` steps: warm-up from 0, then `config.schedule`.

    Raises:
      UserError: an unknown schedule or argument, a rate that is not positive, a warm-up longer
        than the run.
    """
    if not config["lr"] > 0:
        raise UserError(f"optim.lr = {config['lr']}: the learning rate is above 0")
    warmup = clock.steps(config["warmup"], "optim.warmup")
    if warmup >= steps:
        raise UserError(f"optim.warmup = {warmup} steps is not shorter than the run, {steps} steps")
    schedule = _named_schedule(config, steps - warmup)
    if not warmup:
        return schedule
    return optax.join_schedules(
        [optax.linear_schedule(0.0, config["lr"], warmup), schedule], [warmup]
    )


def _named_schedule(config: Config, steps: int) -> optax.Schedule:
    """The schedule after the warm-up; one by "module:name" follows contracts.Schedule."""
    name, lr, end = config["schedule"], config["lr"], config["final_lr"]
    kwargs = dict(config["schedule_kwargs"])
    make = _lookup(name, SCHEDULES, "schedule", kwargs)
    if name in SCHEDULES:
        return make(lr, steps, end)
    takes = inspect.signature(make).parameters
    start = "peak_value" if "peak_value" in takes else "init_value"
    offered = {"lr": lr, "steps": steps, "end": end, "value": lr, start: lr, "end_value": lr * end}
    offered |= {"transition_steps": steps, "decay_steps": steps}
    schedule = _made(make, offered, kwargs, "schedule", name)
    if not callable(schedule):
        raise UserError(f'schedule "{name}" returns {schedule!r}; {contracts.words("schedule")}')
    return schedule


def _lookup(name: str, table: Mapping[str, object], what: str, kwargs: Config) -> Callable:
    """The member of `table`, or the function that "module:name" names.

    A name of optax's gets a hint; kwargs for a member of the table are refused."""
    if name in table and kwargs:
        raise UserError(
            f'{what} "{name}" takes no kwargs ({", ".join(kwargs)}): they are for one by '
            f'"module:name", such as "optax:{name}"'
        )
    if name not in table and ":" not in name and hasattr(optax, name):
        raise UserError(f'unknown {what} "{name}"; optax\'s is "optax:{name}"')
    return lookup(name, table, what)


def _made(make: Callable, offered: dict, kwargs: dict, what: str, name: str) -> Any:
    """make(...) with the arguments of `offered` that it takes; `kwargs` override them."""
    takes = inspect.signature(make).parameters
    offered = {k: v for k, v in offered.items() if k in takes}
    group = {"optimiser": "optim.kwargs", "schedule": "optim.schedule_kwargs"}[what]
    return build(make, offered | kwargs, f'{what} "{name}" ({group})')


def _named_optimiser(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimiser without clipping; one by "module:name" follows contracts.Optimiser."""
    name, kwargs = config["name"], dict(config["kwargs"])
    make = _lookup(name, OPTIMISERS, "optimiser", kwargs)
    if name in OPTIMISERS:
        return make(config, schedule)
    offered = {key: config[key] for key in ("b1", "b2", "weight_decay")}
    first = next(iter(inspect.signature(make).parameters))
    tx = _made(make, {first: schedule} | offered, kwargs, "optimiser", name)
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise UserError(
            f'optimiser "{name}" returns {type(tx).__name__}; {contracts.words("optimiser")}'
        )
    return tx


def build_optimiser(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clipping by the global norm, then the named optimiser, for the parameters that are trained.

    Raises:
      UserError: an unknown optimiser or argument.
    """
    tx = _named_optimiser(config, schedule)
    if config["clip"]:
        tx = optax.chain(optax.clip_by_global_norm(config["clip"]), tx)
    if config["only"]:  # the others' gradients are zero (`frozen`) and pass as they are
        tx = optax.masked(tx, lambda params: trained(params, config["only"]))
    return tx


def trained(params: PyTree, pattern: str) -> PyTree:
    """A tree of booleans: whether the regex matches in a parameter's path, such as "f_E/a/bias".

    Raises:
      UserError: not a regex, or it matches in no path.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as e:
        raise UserError(f'optim.only = "{pattern}" is not a regular expression: {e}') from e
    path = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    is_trained = jax.tree_util.tree_map_with_path(
        lambda p, _: wanted.search(path(p)) is not None, params
    )
    if not any(jax.tree.leaves(is_trained)):
        first = path(jax.tree_util.tree_leaves_with_path(params)[0][0])
        raise UserError(f'optim.only = "{pattern}" is in no parameter\'s path, such as {first}')
    return is_trained


def frozen(params: PyTree, pattern: str) -> PyTree:
    """`params`, with stop_gradient on those that are not trained: they need no backward pass."""
    if not pattern:
        return params
    return jax.tree.map(
        lambda p, move: p if move else jax.lax.stop_gradient(p), params, trained(params, pattern)
    )
