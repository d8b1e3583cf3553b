"""A model whose products are made of few bits, by qwix (Google's, for Flax): `model.quantise`.

    c.model.quantise.weights = "int8"      # int8 | int4
    c.model.quantise.activations = "int8"  # "" leaves them in floating point

The parameters stay float32 and have the names and shapes of the model without, so that a run may
start from a float one (model.start). Trained so, the rounding is part of the forward pass and the
gradient passes through it (quantisation-aware training, Jacob et al. 2018, arXiv:1712.05877);
evaluated without training it is post-training quantisation. Convolutions need activations of the
same type as weights. In bytes 8-bit storage is `weights.packed`, whatever this says.

The scale of activations is that of the batch: results depend a little on what is in it with them.
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

# A user context is part of jit's cache key: what jax.numpy jits itself (jnp.matmul, `@`) is traced
# apart in a quantised model, whose products qwix replaces while it is traced.
_spec = jax.make_user_context("")


def quantised(model: nn.Module, spec: Config) -> nn.Module:
    """`model` with the products of `spec` (config.model.quantise) in integers; {} = as it is.

    `only`: a regex of the paths of modules ("f_D/.*"); the others stay in floating point.

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
        setattr(type(model), name, _traced_apart(getattr(type(model), name), key))
    return model


def _traced_apart(method: Callable, key: str) -> Callable:
    """`method` in the plain forms, where qwix meets lax's own products, with traces of its own."""

    @wraps(method)
    def run(*args, **kwargs):
        with _spec(key), ops.forms(all="plain"):
            return method(*args, **kwargs)

    return run
