"""Names in configs -> objects. Each family's dict stands at the bottom of the module that defines
its members; a name with a colon ("my_package.models:MyEncoder") is imported instead, so that a
user's own parts need no registration at all."""

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aejax.errors import UserError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' (did you mean "x"?)' for the nearest known name, else the list of all names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(known) or 'none'}"


# Packages that were renamed: (today's prefix, the prefix in configs and weights of 0.1).
RENAMED = (
    ("aejax.codec.api", "aejax.compress.codec"),
    ("aejax.codec.", "aejax.compress."),
    ("aejax.denoising.", "aejax.denoise."),
    ("aejax.generation.", "aejax.generate."),
    ("aejax.training.", "aejax.train."),
)


def current_name(name: str) -> str:
    """Today's dotted name of a part: workdirs, weights and studies may hold an older one."""
    for new, old in RENAMED:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def first_name(name: str) -> str:
    """The dotted name that a part had in aejax 0.1; hashes are taken of it, so that they stay."""
    for new, old in RENAMED:
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


def with_current_names(value: Any) -> Any:
    """A config as nested dicts and lists, with today's names of parts."""
    if isinstance(value, Mapping):
        return {k: with_current_names(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [with_current_names(v) for v in value]
    return current_name(value) if isinstance(value, str) else value


def lookup(name: str, table: Mapping[str, Any], what: str) -> Any:
    """The member of `table` called `name`, or the attribute "package.module:attr" names.

    Raises:
      UserError: no such member, module or attribute.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise UserError(f'unknown {what} "{name}"{did_you_mean(name, table)}')
    module, _, attribute = current_name(name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as e:
        raise UserError(f'{what} "{name}": no module "{e.name}"; is it installed?') from e
    except AttributeError as e:
        known = [n for n in dir(importlib.import_module(module)) if not n.startswith("_")]
        raise UserError(f'{what} "{name}": no such name{did_you_mean(attribute, known)}') from e


def parameters(target: Callable) -> list[str]:
    """The keyword arguments that `target` (class or function) takes from a config."""
    if dataclasses.is_dataclass(target):
        names = [f.name for f in dataclasses.fields(target) if f.init]
    else:
        names = list(inspect.signature(target).parameters)
    return [n for n in names if n not in ("parent", "name")]


def build(target: Callable, kwargs: Mapping[str, Any], what: str) -> Any:
    """target(**kwargs); an argument it does not have is the user's error.

    Raises:
      UserError: unknown argument.
    """
    known = parameters(target)
    for key in kwargs:
        if key not in known:
            raise UserError(f'{what} has no argument "{key}"{did_you_mean(key, known)}')
    return target(**kwargs)
