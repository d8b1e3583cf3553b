"""Multiply-accumulates of a model, counted from what it computes rather than from a formula."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from aejax.nets import ops


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


def macs_per_pixel(model: Any, channels: int, side: int = 256) -> float:
    """Multiply-accumulates of convolutions and dense layers per pixel of a square image."""
    x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    cond = {"sigma": jax.ShapeDtypeStruct((1,), jnp.float32)}
    with ops.forms(all="plain"):
        variables = jax.eval_shape(lambda x, c: model.init(jax.random.key(0), x, c), x, cond)
        jaxpr = jax.make_jaxpr(lambda v, x, c: model.apply(v, x, c).y)(variables, x, cond)
    return _count(jaxpr.jaxpr) / side**2
