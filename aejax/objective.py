"""Training objectives.

An objective is `objective(model, variables, batch, key, train) -> (loss [b], Aux)`, a pure function
of its arguments. It corrupts x, runs the model and sums the weighted losses and terms. Other tasks
have their own objectives ("package.module:Class"); the trainer is the same for all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.contracts import Objective, check_result
from aejax.corrupt import Spec, chain
from aejax.errors import UserError
from aejax.losses import mixture, mse
from aejax.nets.init import at_linear_optimum
from aejax.registry import build, did_you_mean, lookup
from aejax.types import Aux, Batch, Config, Output, Variables


def rngs_of(key: PRNGKeyArray) -> dict[str, PRNGKeyArray]:
    """The rngs of a model: "bottleneck", and "params", which Flax uses for all missing streams
    ("dropout", ...). Both are functions of `key`, so that a resumed run gets the same ones."""
    return {"bottleneck": key, "params": jax.random.fold_in(key, 1)}


def run_model(
    model: nn.Module,
    variables: Variables,
    x: Float[Array, "b h w c"],
    cond: Mapping[str, Array] | None,
    key: PRNGKeyArray,
    train: bool,
) -> tuple[Output, Variables]:
    """Runs model.apply with the rngs of `rngs_of`: (output, updated collections).

    Args:
      x: the input images, corrupted if the objective does so.
      cond: conditions, {name: [b]}, or None.
      train: collections other than "params" are mutable.

    Raises:
      UserError: the model does not return an `Output`.
    """
    mutable = [name for name in variables if name != "params"] if train else []
    rngs = rngs_of(key)
    result: Any = model.apply(variables, x, cond, train=train, rngs=rngs, mutable=mutable or False)
    unchanged = {name: v for name, v in variables.items() if name != "params"}
    out, collections = result if mutable else (result, unchanged)
    check_result(isinstance(out, Output), "model", model, out, x)
    return out, dict(collections)


@dataclasses.dataclass(frozen=True)
class Autoencode:
    """loss(y, x) + weighted terms of the bottleneck, with y = f_D(bottleneck(f_E(corrupt(x)))).

    Args:
      loss: {name in losses.LOSSES: weight}.
      terms: weights of the bottleneck's terms, such as {"kl": 1.0}.
      corrupt: corruptions of x, specs of `corrupt.chain`; () = none.
      init: "pca" initialises the model to the linear optimum (PCA) of some training images; other
        values keep the random initialisation.
      tell: names of conditions that the model is given, such as ("sigma",).

    Raises:
      UserError: in a call, a weight for a term that the bottleneck does not return.
    """

    loss: Mapping[str, float]
    terms: Mapping[str, float]
    corrupt: Sequence[Spec] = ()
    init: str = "random"
    tell: Sequence[str] = ()

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        x = batch["image"]
        key_corrupt, key_model = jax.random.split(key)
        x_tilde, conditions = chain(self.corrupt)(key_corrupt, x)
        conditions |= {"label": batch["label"]} if "label" in batch else {}
        cond = {name: conditions[name] for name in self.tell} or None
        out, collections = run_model(model, variables, x_tilde, cond, key_model, train)
        loss = mixture(dict(self.loss))(x, out.y)
        for name, weight in self.terms.items():
            if name not in out.terms:
                raise UserError(
                    f"objective.terms.{name}: the bottleneck has no such term"
                    + did_you_mean(name, out.terms)
                )
            loss = loss + weight * out.terms[name]
        metrics = {"loss": loss, "mse": mse(x, out.y), **out.terms}
        pictures = {"x": x, "y": out.y}
        if self.corrupt:
            pictures["x_tilde"] = x_tilde
        return loss, Aux(metrics, collections, pictures)

    def conditions(self, batch: Batch, key: PRNGKeyArray, train: bool) -> dict[str, Array] | None:
        """The conditions that the model is given, {name: [b]} or None; their shapes are needed to
        initialise it."""
        conditions = chain(self.corrupt)(key, batch["image"])[1] | batch
        return {name: conditions[name] for name in self.tell} or None

    def initialise(
        self, model: nn.Module, variables: Variables, images: Float[Array, "n h w c"]
    ) -> Variables:
        """The initial variables, computed from some training images (see `init`)."""
        return at_linear_optimum(model, variables, images) if self.init == "pca" else variables


OBJECTIVES = {"autoencode": Autoencode}


def evaluated(
    objective: Objective,
    model: nn.Module,
    variables: Variables,
    batch: Batch,
    key: Array,
    train: bool,
) -> tuple[Float[Array, " b"], Aux]:
    """Calls an objective and checks its result: (loss [b], Aux).

    Raises:
      UserError: it returns something else.
    """
    result = objective(model, variables, batch, key, train)
    is_pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Aux)
    is_pair = is_pair and jnp.shape(result[0]) == batch["image"].shape[:1]
    check_result(is_pair, "objective", objective, result, batch["image"])
    return result


def build_objective(config: Config) -> Objective:
    """Builds the objective of a config.

    Raises:
      UserError: an unknown objective, loss, corruption or argument.
    """
    spec = config["objective"]
    kwargs = dict(spec["kwargs"])
    if spec["name"].startswith("aejax."):
        kwargs.pop("start", None)  # of 0.1; config.current makes model.start of it
    cls = lookup(spec["name"], OBJECTIVES, "objective")
    arguments: dict[str, Any] = {
        "loss": dict(spec["loss"]),
        "terms": dict(spec["terms"]),
        "corrupt": tuple(dict(c) for c in config["corrupt"]),
        "init": config["model"]["init"],
    }
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    arguments = {name: v for name, v in arguments.items() if name in fields}
    objective = build(cls, arguments | kwargs, f'objective "{spec["name"]}"')
    if "loss" in arguments:
        mixture(arguments["loss"])  # an unknown loss is an error before the start
    if "corrupt" in arguments:
        chain(arguments["corrupt"])
    return objective
