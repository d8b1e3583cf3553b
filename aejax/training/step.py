"""The only train step of the package: (state, batch, key) -> (state, metrics), pure."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from aejax.contracts import Objective
from aejax.nets import target
from aejax.objective import evaluated
from aejax.training.optim import frozen
from aejax.training.sharding import Sharding
from aejax.training.state import TrainState
from aejax.types import Batch

Images = Callable[[PyTree, PyTree, jax.Array, bool], Batch]


# Above 60 lines: its inner functions share the arguments and are compiled into one program.
def make_train_step(
    objective: Objective,
    model: nn.Module,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    sharding: Sharding,
    images: Images,
    *,
    accumulate: int = 1,
    ema: float = 0.0,
    trained_pattern: str = "",
) -> Callable:
    """train_step(state, batch, resident, key) -> (state, metrics).

    Args:
      schedule: the learning rate of `tx`, for the log.
      images: (resident, batch, key, training) -> {"image": [b, h, w, c] in [0, 1], ...}; it
        gathers, crops and flips on the device.
      accumulate: number of micro-batches of a step; their gradients are averaged.
      ema: decay of the averaged parameters, with a warm-up in the first steps; 0 = none.
      trained_pattern: regex of the parameters that are trained, the same as in `tx`.

    A step without a finite gradient changes nothing in the state but the step number; the metric
    "skipped" counts such steps.
    """

    def loss_fn(params, collections, batch, key):
        params = frozen(params, trained_pattern)
        variables = {"params": params, **collections}
        loss, aux = evaluated(objective, model, variables, batch, key, True)
        metrics = {name: jnp.mean(v) for name, v in aux.metrics.items()} | {"loss": jnp.mean(loss)}
        return jnp.mean(loss), (metrics, aux.collections)

    def local_gradient(params, collections, batch, resident, key):
        """Gradient, metrics and collections of a device's share, averaged over micro-batches."""
        total = None
        for i in range(accumulate):  # unrolled: a scan is slow for convolutions on CPUs
            part = jax.tree.map(lambda v, i=i: jnp.split(v, accumulate)[i], batch)
            key_images, key_loss = jax.random.split(jax.random.fold_in(key, i))
            part = images(resident, part, key_images, True)
            (_, (metrics, collections)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                params, collections, part, key_loss
            )
            share = (grads, metrics)
            total = share if total is None else jax.tree.map(jnp.add, total, share)
        grads, metrics = jax.tree.map(lambda v: v / accumulate, total)
        return grads, metrics, collections

    gradient = sharding.averaged(local_gradient)

    def train_step(state: TrainState, batch, resident, key):
        key = jax.random.fold_in(key, state.step)
        grads, metrics, collections = gradient(
            state.params, state.collections, batch, resident, key
        )
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])

        def updated():
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            average = state.ema
            if average is not None:
                step = state.step.astype(jnp.float32)
                decay = jnp.minimum(ema, (1 + step) / (10 + step))
                average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
            return params, opt_state, average, collections

        def unchanged():
            return state.params, state.opt_state, state.ema, state.collections

        kept = jax.lax.cond(finite, updated, unchanged)
        metrics |= {"grad_norm": norm, "skipped": 1.0 - finite, "lr": schedule(state.step)}
        return TrainState(state.step + 1, *kept), metrics

    return train_step


def make_dispatch(train_step: Callable, steps: int) -> Callable:
    """`steps` train steps in one program; batch leaves are [steps, b, ...].

    Metrics are means over the steps; "skipped" is a sum. On CPUs the loop is unrolled if a step
    contains XLA's weight gradient of a convolution, which is many times slower inside a loop.
    """

    def dispatch(state, batch, resident, key):
        def body(state, batch):
            return train_step(state, batch, resident, key)

        if steps == 1:
            return body(state, jax.tree.map(lambda v: v[0], batch))
        first = jax.tree.map(lambda v: v[0], batch)
        slow = target.platform() == "cpu" and has_lax_weight_gradient(
            jax.make_jaxpr(body)(state, first)
        )
        state, metrics = jax.lax.scan(body, state, batch, unroll=steps if slow else 1)
        skipped = metrics["skipped"].sum()
        return state, {name: v.mean() for name, v in metrics.items()} | {"skipped": skipped}

    return dispatch


def has_lax_weight_gradient(jaxpr: Any) -> bool:
    """Whether a convolution contracts over the batch, as the weight gradient of lax does."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "conv_general_dilated":
            if eqn.params["dimension_numbers"].lhs_spec[0] != 0:
                return True
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    if has_lax_weight_gradient(inner):
                        return True
    return False
