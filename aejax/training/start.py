"""Fine-tuning: a training starts from the variables of another model (config.model.start)."""

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
    """`variables`, replaced by those of config.model.start.

    Args:
      variables: of the model as initialised.
      config: config.model. Its `start_only` is a regex that is searched in paths such as
        "f_E/Dense_0/kernel"; the parameters that match are replaced; "" replaces all.
      objective: its optional `adapt_start(trained, shape)` converts the variables of a related
        model (a gray one, say) to those of this model (one in colour).
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
    """The leaves whose path, without the collection's name, matches the regex."""
    try:
        wanted = re.compile(pattern)
    except re.error as e:
        raise UserError(f'model.start_only = "{pattern}" is not a regular expression: {e}') from e
    flat = flatten_dict(dict(variables))
    return unflatten_dict({p: v for p, v in flat.items() if wanted.search("/".join(p[1:]))})


def check_fit(have: Variables, want: Variables, what: str, remedy: str) -> None:
    """Raises UserError unless `have` has the names and shapes of `want`; the first differences are
    named."""
    wrong = misfits(have, want)
    if wrong:
        others = f" (and {len(wrong) - 2} more)" if len(wrong) > 2 else ""
        raise UserError(
            f"{what} is of another model: its {'; its '.join(wrong[:2])}{others}; {remedy}"
        )


def misfits(have: Variables, want: Variables) -> list[str]:
    """How two trees of variables differ in names and shapes, in words; [] if they do not.

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
