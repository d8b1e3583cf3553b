"""Fine-tuning: the variables that a training starts from are those of another model."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from aejax.contracts import AdaptsStart, Objective
from aejax.errors import UserError
from aejax.loading import load
from aejax.types import Config, Shape, Variables


def started(variables: Variables, config: Config, objective: Objective, shape: Shape) -> Variables:
    """`variables` with those of config.model.start in place.

    Args:
      variables: of the model as initialised.
      config: config.model; `start_only` is searched in paths such as "f_E/Dense_0/kernel", and all
        that it is in are taken; "" takes everything.
      objective: its optional `adapt_start(trained, shape)` gives the variables of a relative (a
        gray model, say) as those of this model (one in colour).
      shape: (h, w, c) of the images.

    Raises:
      UserError: no such model; `start_only` is no regex or in no path; shapes differ.
    """
    start, pattern = config["start"], config["start_only"]
    trained = load(start)
    taken = trained.variables
    if isinstance(objective, AdaptsStart):
        taken = objective.adapt_start(trained, shape)
    target = variables
    if pattern:
        taken, target = (_chosen(tree, pattern) for tree in (taken, variables))
        if not target:
            paths = ["/".join(p[1:]) for p in flatten_dict(dict(variables))]
            raise UserError(
                f'model.start_only = "{pattern}" is in no parameter\'s path, such as {paths[0]}'
            )
    check_fit(
        taken, target, f"model.start: {start}",
        "set model.start_only to a regex of what is to be taken, such as \"^f_E/\", or give the "
        "config that model's kwargs and data.channels",
    )  # fmt: skip
    merged = flatten_dict(dict(variables)) | flatten_dict(dict(taken))
    return jax.tree.map(jnp.array, unflatten_dict(merged))


def _chosen(variables: Variables, pattern: str) -> Variables:
    """Those leaves that the regex is in the path of, without the collection's name."""
    try:
        wanted = re.compile(pattern)
    except re.error as e:
        raise UserError(f'model.start_only = "{pattern}" is not a regular expression: {e}') from e
    flat = flatten_dict(dict(variables))
    return unflatten_dict({p: v for p, v in flat.items() if wanted.search("/".join(p[1:]))})


def check_fit(have: Variables, want: Variables, what: str, remedy: str) -> None:
    """Raises UserError unless variables can take others' place; the first that differ are named."""
    wrong = misfits(have, want)
    if wrong:
        others = f" (and {len(wrong) - 2} more)" if len(wrong) > 2 else ""
        raise UserError(
            f"{what} is of another model: its {'; its '.join(wrong[:2])}{others}; {remedy}"
        )


def misfits(have: Variables, want: Variables) -> list[str]:
    """What differs between two trees of variables, in words; [] if one can take the other's place.

    >>> misfits({"a": np.zeros(3)}, {"a": np.zeros(4)})
    ['a is (3,), not (4,)']
    """
    ours, theirs = _shapes(have), _shapes(want)
    return [
        f"{path} is {ours.get(path)}, not {theirs.get(path)}"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]


def _shapes(variables: Variables) -> dict[str, tuple[int, ...]]:
    """ "params/f_E/Dense_0/kernel" -> (64, 16)."""
    leaves: Any = flatten_dict(dict(variables), sep="/")
    return {path: tuple(np.shape(leaf)) for path, leaf in leaves.items()}
