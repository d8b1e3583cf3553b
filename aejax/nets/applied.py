"""Calling a method of a model on its variables."""

from collections.abc import Callable
from typing import Any, Protocol

from aejax.types import Variables


class Applies(Protocol):
    """What has the `apply` of a flax.linen.Module."""

    def apply(self, variables: Any, *arguments: Any, **named: Any) -> Any: ...


def applied(
    model: Applies,
    variables: Variables,
    *arguments: object,
    method: str | Callable | None = None,
    **named: object,
) -> Any:
    """What a method returns, where it changes no collection: `model.apply` without its second form.

    Args:
      method: its name, or a function of the bound module and the arguments; default `__call__`.
    """
    return model.apply(variables, *arguments, method=method, **named)
