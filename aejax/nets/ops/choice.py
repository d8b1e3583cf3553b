"""Which form an operation takes: plain, cpu_f32 or cpu_bf16, chosen when it is traced."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from functools import wraps

import jax
import jax.numpy as jnp
from jaxtyping import Array

from aejax.errors import UserError
from aejax.machine import speed
from aejax.nets import target

FORMS = ("plain", "cpu_f32", "cpu_bf16")
OPERATIONS = ("dense", "conv", "depthwise", "channel_sum")
# How much faster than float32 a CPU's bfloat16 products must be before an operation takes them:
# convolutions in float32 have Winograd's algorithm, which needs up to four times fewer products.
GAIN = {"dense": 1.3, "conv": 2.5}
# Multiplications below which a product is over before conversion to bfloat16 has paid.
FEW = 1 << 20

# A user context is part of jit's cache key: leaving `forms` retraces, rather than keeps, a form.
_overrides = jax.make_user_context(())


def _checked(override: dict[str, str]) -> dict[str, str]:
    out = {}
    for name, form in override.items():
        if name not in (*OPERATIONS, "all"):
            raise UserError(f'no operation "{name}" in ops; known: {", ".join(OPERATIONS)}, all')
        if form not in (*FORMS, "auto"):
            raise UserError(f'no form "{form}" of ops.{name}; known: {", ".join(FORMS)}, auto')
        out.update(dict.fromkeys(OPERATIONS, form) if name == "all" else {name: form})
    return out


@contextlib.contextmanager
def forms(**override: str) -> Generator[None]:
    """Within it, `forms(conv="plain")` fixes an operation's form, `forms(all=...)` every one's.

    Raises:
      UserError: unknown operation or form.
    """
    merged = {**dict(_overrides.value), **_checked(override)}
    with _overrides(tuple(sorted(merged.items()))):
        yield


def traced_with(override: Mapping[str, str], function: Callable) -> Callable:
    """`function`, traced within `forms(**override)` wherever it is compiled.

    Raises:
      UserError: unknown operation or form.
    """
    override = _checked(dict(override))

    @wraps(function)
    def run(*args, **kwargs):
        with forms(**override):
            return function(*args, **kwargs)

    return run


def float32_asked() -> bool:
    """Whether the caller asked for float32 products: exact sums of whole numbers depend on it."""
    # pyrefly: ignore [missing-attribute]
    return jax.config.jax_default_matmul_precision in ("highest", "float32", "F32_F32_F32")


def form(operation: str, x: Array | None = None, multiplications: float = float("inf")) -> str:
    """The form that `operation` takes for x here and now: "plain", "cpu_f32" or "cpu_bf16".

    Args:
      operation: one of OPERATIONS.
      x: its input, whose dtype and sharding may rule the CPU forms out.
      multiplications: of the whole operation; few are not worth a conversion to bfloat16.
    """
    asked = dict(_overrides.value).get(operation, "auto")
    if asked != "auto":
        return asked
    if target.platform() != "cpu":
        return "plain"
    if x is not None:
        # A loop over the batch is refused where the batch is sharded over an explicit mesh.
        if x.dtype not in (jnp.float32, jnp.bfloat16) or any(jax.typeof(x).sharding.spec):
            return "plain"
        if not all(isinstance(n, int) for n in x.shape):  # free sizes, in jax.export
            return "plain"
    gain = GAIN.get(operation)
    if gain and multiplications >= FEW and not float32_asked() and speed.bf16_gain() >= gain:
        return "cpu_bf16"
    return "cpu_f32"
