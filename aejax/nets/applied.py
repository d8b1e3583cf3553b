"""Calling a method of a model on its variables."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from aejax.types import Variables


def applied(
    model: nn.Module, variables: Variables, *arguments: Any, method: str | Callable, **named: Any
) -> Any:
    """What a method returns, where it changes no collection: `model.apply` without its second form.

    Args:
      method: its name, or a function of the bound module and the arguments.
    """
    return model.apply(variables, *arguments, method=method, **named)
