"""What a run carries from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from aejax.errors import UserError
from aejax.types import Variables


@flax.struct.dataclass
class TrainState:
    """The whole of it: saving this and nothing else resumes a run exactly."""

    step: Int[Array, ""]
    params: Any
    opt_state: optax.OptState
    ema: Any  # averaged parameters, or None
    collections: dict[str, Any]  # every other Flax collection, such as code books

    @property
    def variables(self) -> Variables:
        """What a step trains."""
        return {"params": self.params, **self.collections}

    @property
    def best_variables(self) -> Variables:
        """What is evaluated and shipped: the averaged parameters where there are any."""
        return {"params": self.params if self.ema is None else self.ema, **self.collections}


def create(variables: Variables, tx: optax.GradientTransformation, ema: float) -> TrainState:
    """The state before the first step.

    Raises:
      UserError: the model has no parameters.
    """
    if "params" not in variables:
        raise UserError("the model has no parameters: there is nothing to train")
    collections = {name: v for name, v in variables.items() if name != "params"}
    params = jax.tree.map(jnp.asarray, variables["params"])
    average = jax.tree.map(jnp.array, params) if ema else None
    return TrainState(jnp.int32(0), params, tx.init(params), average, collections)
