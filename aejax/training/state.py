"""The state of a training, which goes from step to step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from aejax.errors import UserError
from aejax.types import Variables


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes: a run that is resumed from it repeats the uninterrupted one
    bit for bit.

    Attributes:
      step: how many were taken.
      params: the trained parameters, float32; opt_state: what the optimiser keeps.
      ema: the averaged parameters, or None.
      collections: every other Flax collection, such as code books.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: optax.OptState
    ema: PyTree
    collections: Variables

    @property
    def variables(self) -> Variables:
        """Those that a step trains, as Flax takes them."""
        return {"params": self.params, **self.collections}

    @property
    def best_variables(self) -> Variables:
        """Those that are evaluated and shared: the averaged parameters if there are any."""
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
