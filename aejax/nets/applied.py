"""`Module.apply` with one return type, for the type checker."""

from collections.abc import Callable
from typing import Any, Protocol

from aejax.types import Variables


class Applies(Protocol):
    """Anything with the `apply` of a flax.linen.Module."""

    def apply(self, variables: Any, *arguments: Any, **named: Any) -> Any: ...


def applied(
    model: Applies,
    variables: Variables,
    *arguments: object,
    method: str | Callable | None = None,
    **named: object,
) -> Any:
    """The result of a method of a model that changes no variable collection.

    `model.apply` returns (result, variables) if it is given `mutable`; this never does.

    Args:
      arguments, named: of the method.
      method: its name, or a function of the bound module and the arguments; default `__call__`.
    """
    return model.apply(variables, *arguments, method=method, **named)
