"""A lossless model small enough for tests: random weights, made by NumPy alone, so that every
machine has the same ones. They predict little, but what they do is exact."""

import functools

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from aejax.codec.lossless.freeze import frozen_params
from aejax.codec.lossless.nets import Lossless
from aejax.codec.lossless.runtime import Runtime, Weights

FIELDS = {"width": 16, "blocks": [True], "hidden": 24, "head": 8}


@functools.cache
def shapes():
    """Shapes of all parameters."""
    import jax
    import jax.numpy as jnp

    model = Lossless(**FIELDS | {"blocks": (True,)}, levels=1)
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    return made["params"]


@functools.cache
def weights(seed: int = 0) -> Weights:
    """Ready to code."""
    rng, out = np.random.default_rng(seed), {}
    for path, leaf in sorted(flatten_dict(shapes(), sep="/").items()):
        shape = leaf.shape
        value = rng.normal(size=shape)
        if path.endswith("kernel"):
            value /= np.sqrt(np.prod(shape[:-1]))
            value *= 0.1 if "outs_" in path else 1.0
        else:
            value *= 0.1
        out[path] = value.astype(np.float32)
    return Weights(frozen_params(unflatten_dict(out, sep="/")), FIELDS)


@functools.cache
def runtime(jit: bool = True) -> Runtime:
    """Compiled."""
    return Runtime(weights(), jit)
