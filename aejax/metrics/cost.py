"""Counts the multiply-accumulates (MACs) of a function in its jaxpr."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from aejax.nets import ops


def macs(function: Callable, *arguments: PyTree) -> float:
    """MACs of the convolutions and matrix products of `function(*arguments)`; nothing is computed.

    Args:
      arguments: arrays or `jax.ShapeDtypeStruct`.

    >>> from aejax.metrics.cost import macs
    >>> macs(lambda a, b: a @ b, np.zeros((2, 3)), np.zeros((3, 4)))
    24.0
    """
    with ops.forms(all="plain"):
        return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        name, out = eqn.primitive.name, eqn.outvars[0].aval
        if name == "dot_general":
            contract = eqn.params["dimension_numbers"][0][0]
            total += math.prod(out.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in contract)
        elif name == "conv_general_dilated":
            kernel, numbers = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
            per_output = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
            total += math.prod(out.shape) * per_output
        else:
            times = eqn.params.get("length", 1) if name == "scan" else 1
            for value in eqn.params.values():
                for inner in value if isinstance(value, (tuple, list)) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        total += times * _count(inner)
    return total
