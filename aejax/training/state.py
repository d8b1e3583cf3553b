"""The training state that each step takes and returns."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from aejax.errors import UserError
from aejax.types import Variables


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes. A run resumed from it equals the uninterrupted run bit for
    bit.

    Attributes:
      step: number of steps taken.
      params: the trained parameters, float32; opt_state: what the optimiser keeps.
      ema: the averaged parameters, or None.
      collections: all other Flax collections, such as codebooks.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: optax.OptState
    ema: PyTree
    collections: Variables

    @property
    def variables(self) -> Variables:
        """The trained parameters and the collections, as Flax's `apply` takes them."""
        return {"params": self.params, **self.collections}

    @property
    def best_variables(self) -> Variables:
        """The variables to evaluate and to share: with the averaged parameters if there are any."""
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
