"""Quantised matrix products and convolutions, by Google's qwix: `config.model.quantise`.

    c.model.quantise.weights = "int8"      # int8 | int4
    c.model.quantise.activations = "int8"  # "" leaves them in floating point

The parameters stay float32 and keep their names and shapes, so a run can start from the weights of
a floating-point one (model.start). In training the forward pass rounds and the gradient passes
straight through (quantisation-aware training, Jacob et al. 2018, arXiv:1712.05877); without
training it is post-training quantisation. Convolutions need activations of the same type as
weights. How weights are
stored is another matter: see `weights.stored_as`.

Activations are scaled per batch, so the result for an image depends slightly on the others.
"""

from collections.abc import Callable
from functools import wraps

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax.contracts import Decodes, Encodes
from aejax.errors import UserError
from aejax.nets import ops
from aejax.registry import did_you_mean
from aejax.types import Config

TYPES = {"int8": jnp.int8, "int4": jnp.int4}
KEYS = ("weights", "activations", "only")

# A user context is part of jit's cache key. qwix replaces products while a model is traced; without
# the context, functions that jax.numpy jits (jnp.matmul) would reuse the traces of float models.
_spec = jax.make_user_context("")


def quantised(model: nn.Module, spec: Config) -> nn.Module:
    """`model` with integer products; unchanged if `spec` is empty.

    Args:
      spec: config.model.quantise: "weights" and "activations" as in the docstring of the module,
        and "only", a regex of the paths of the modules that are quantised ("f_D/.*").

    Raises:
      UserError: an unknown key or type, or qwix is not installed.
    """
    spec = dict(spec)
    if not spec:
        return model
    for key in spec:
        if key not in KEYS:
            raise UserError(f"model.quantise has no key {key!r}{did_you_mean(key, KEYS)}")
    weights, activations = spec.get("weights", "int8"), spec.get("activations", "")
    for key, value in (("weights", weights), ("activations", activations or "int8")):
        if value not in TYPES:
            raise UserError(f'model.quantise.{key} = "{value}": {" or ".join(TYPES)}')
    try:
        import qwix
    except ImportError as e:
        raise UserError('model.quantise needs qwix: pip install "aejax[small]"') from e
    rule = qwix.QtRule(
        module_path=spec.get("only") or ".*",
        weight_qtype=TYPES[weights],
        act_qtype=TYPES[activations] if activations else None,
    )
    methods = ["__call__"]
    methods += ["encode"] if isinstance(model, Encodes) else []
    methods += ["decode"] if isinstance(model, Decodes) else []
    model = qwix.quantize_model(model, qwix.QtProvider([rule]), methods=methods)
    key = repr(sorted(spec.items()))
    for name in methods:
        setattr(type(model), name, _in_context(getattr(type(model), name), key))
    return model


def _in_context(method: Callable, key: str) -> Callable:
    """`method` with its own jit cache entries, and with the plain forms of nets.ops, because qwix
    replaces the products of `lax` only."""

    @wraps(method)
    def run(*args, **kwargs):
        with _spec(key), ops.forms(all="plain"):
            return method(*args, **kwargs)

    return run
