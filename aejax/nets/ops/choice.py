"""The choice of the form of an operation, plain, cpu_f32 or cpu_bf16, when it is traced."""

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
# Smallest ratio of the speeds of bfloat16 and float32 products at which an operation uses bfloat16.
# Float32 convolutions use Winograd's algorithm, with up to four times fewer products.
MIN_GAIN = {"dense": 1.3, "conv": 2.5}
# Smallest number of multiplications for which converting the operands to bfloat16 pays off.
MIN_MULTIPLICATIONS = 1 << 20

# A user context is part of jit's cache key, so functions are traced again for other forms.
_overrides = jax.make_user_context(())


def _checked(override: dict[str, str]) -> dict[str, str]:
    """{operation: form}, with "all" replaced by every operation."""
    by_operation = {}
    for name, form in override.items():
        if name not in (*OPERATIONS, "all"):
            raise UserError(f'no operation "{name}" in ops; known: {", ".join(OPERATIONS)}, all')
        if form not in (*FORMS, "auto"):
            raise UserError(f'no form "{form}" of ops.{name}; known: {", ".join(FORMS)}, auto')
        by_operation.update(dict.fromkeys(OPERATIONS, form) if name == "all" else {name: form})
    return by_operation


@contextlib.contextmanager
def forms(**override: str) -> Generator[None]:
    """A context in which operations have the given forms.

    Args:
      override: form by operation, such as conv="plain"; all="plain" = every operation; "auto" = the
        automatic choice.

    Raises:
      UserError: unknown operation or form.

    >>> with forms(conv="plain"):
    ...     print(form("conv"))
    plain
    """
    merged = {**dict(_overrides.value), **_checked(override)}
    with _overrides(tuple(sorted(merged.items()))):
        yield


def traced_with(override: Mapping[str, str], function: Callable) -> Callable:
    """`function`, traced within `forms(**override)`.

    Raises:
      UserError: unknown operation or form.
    """
    override = _checked(dict(override))

    @wraps(function)
    def run(*args, **kwargs):
        with forms(**override):
            return function(*args, **kwargs)

    return run


def float32_requested() -> bool:
    """Whether `jax.default_matmul_precision` requests float32 products, which exact sums of
    integers need."""
    # pyrefly: ignore [missing-attribute]
    return jax.config.jax_default_matmul_precision in ("highest", "float32", "F32_F32_F32")


def form(operation: str, x: Array | None = None, multiplications: float = float("inf")) -> str:
    """The form that an operation takes in the function being traced.

    Args:
      operation: one of OPERATIONS.
      x: its input. Other dtypes than float32 and bfloat16, sharded batches and symbolic sizes have
        the plain form.
      multiplications: of the whole operation; see MIN_MULTIPLICATIONS.

    Returns:
      "plain", "cpu_f32" or "cpu_bf16".
    """
    override = dict(_overrides.value).get(operation, "auto")
    if override != "auto":
        return override
    if target.platform() != "cpu":
        return "plain"
    if x is not None:
        # JAX refuses a loop over a batch that is sharded over an explicit mesh.
        if x.dtype not in (jnp.float32, jnp.bfloat16) or any(jax.typeof(x).sharding.spec):
            return "plain"
        if not all(isinstance(n, int) for n in x.shape):  # symbolic sizes of jax.export
            return "plain"
    min_gain = MIN_GAIN.get(operation)
    if min_gain is None or multiplications < MIN_MULTIPLICATIONS or float32_requested():
        return "cpu_f32"
    return "cpu_bf16" if speed.bf16_gain() >= min_gain else "cpu_f32"
