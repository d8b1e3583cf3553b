"""Maps names in configs to objects.

Short names are keys of a dict at the end of the module that defines the parts (F_E, LOSSES, ...). A
name with a colon ("my_package.models:MyEncoder") is imported, so a user's parts need no
registration. The interfaces are in contracts.py.
"""

import dataclasses
import difflib
import importlib
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aejax.errors import UserError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean "x"?' with the most similar known name, or the list of all known names.

    >>> did_you_mean("adm", ["adam", "sgd"])
    '; did you mean "adam"?'
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(known) or 'none'}"


# Renamed parts: (current prefix, older prefix in configs and weights). The first match counts; if a
# part had several older names, that of aejax 0.1 comes first.
RENAMED = (
    ("aejax.generation.spectral:SpectralDecoder", "aejax.generate.vae:SpectralDecoder"),
    ("aejax.generation.spectral:SpectralDecoder", "aejax.generation.vae:SpectralDecoder"),
    ("aejax.generation.features.classifier:", "aejax.generate.classifier:"),
    ("aejax.generation.features.classifier:", "aejax.generation.classifier:"),
    ("aejax.codec.api", "aejax.compress.codec"),
    ("aejax.codec.", "aejax.compress."),
    ("aejax.denoising.", "aejax.denoise."),
    ("aejax.generation.", "aejax.generate."),
    ("aejax.training.", "aejax.train."),
)


def current_name(name: str) -> str:
    """The current dotted name of a part, of which run folders, weights and studies may have an
    older one.

    >>> current_name("aejax.train.prune:pruned")
    'aejax.training.prune:pruned'
    """
    for new, old in RENAMED:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def first_name(name: str) -> str:
    """The dotted name of a part in aejax 0.1. Hashes of configs use it, so that they do not
    change."""
    for new, old in RENAMED:
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


def with_current_names(value: Any) -> Any:
    """A config as nested dicts and lists, with the current names of parts."""
    if isinstance(value, Mapping):
        return {k: with_current_names(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [with_current_names(v) for v in value]
    return current_name(value) if isinstance(value, str) else value


def use_current_folder() -> None:
    """Appends the current folder to `sys.path`, so that "my_package.parts:Thing" is found there.

    The command line calls it once. The folder is last, so that a file random.py in it hides no
    module.
    Run folders are not added: they may come from a stranger.
    """
    folder = os.getcwd()
    is_run = os.path.isfile("config.json") and os.path.isdir("checkpoints")
    if folder not in sys.path and not is_run:
        sys.path.append(folder)


def part_module(text: str) -> str:
    """The module that a text "package.module:name", or "package.module:Class:argument" of a data
    source, refers to; "" for any other text, which is never imported.

    >>> part_module("my_package.parts:Faces:large"), part_module("dense")
    ('my_package.parts', '')
    """
    match = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*(?::.*)?", text, re.S)
    return match[1] if match else ""


def lookup(name: str, table: Mapping[str, object], what: str) -> Any:
    """The object `name`: a member of `table`, or an imported "package.module:attribute".

    Imported parts are checked against the contract of their kind (contracts.py).

    Args:
      what: kind of the part, such as "loss".

    Raises:
      UserError: no such member, module or attribute; an error while it is imported; or a part that
        does not fit its contract.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise UserError(f'unknown {what} "{name}"{_suggestion(name, table)}')
    if not part_module(name):
        raise UserError(f'{what} "{name}" is not of the form package.module:name')
    from aejax.contracts import checked

    return checked(imported(name, what), what, name)


def _suggestion(name: str, table: Mapping[str, object]) -> str:
    """A hint with the part of `table` whose name or class name is most similar, or all names."""
    classes = {v.__name__: key for key, v in table.items() if inspect.isclass(v)}
    near = difflib.get_close_matches(name, [*table, *classes], n=1, cutoff=0.6)
    if not near:
        own = 'your own: "package.module:name"'
        return f"; known: {', '.join(sorted(table)) or 'none'}; {own}"
    key = classes.get(near[0], near[0])
    part = table[key]
    dotted = f" ({part.__module__}:{part.__name__})" if inspect.isclass(part) else ""
    return f'; did you mean "{key}"{dotted}?'


def imported(name: str, what: str) -> Any:
    """Imports "package.module:attribute".

    Raises:
      UserError: no such module or attribute, or an error while the module is imported.
    """
    module, _, attribute = current_name(name).partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and (module == e.name or module.startswith(e.name + ".")):
            raise UserError(
                f'{what} "{name}": no module "{e.name}" in {os.getcwd()} or among the '
                "installed packages; start from the folder that has it, or install it"
            ) from e
        raise UserError(
            f'{what} "{name}": {module} needs the module "{e.name}", which is not installed'
        ) from e
    except UserError:
        raise
    except Exception as e:
        where = own_line(e)
        raise UserError(
            f'{what} "{name}" cannot be imported: {where + ": " if where else ""}'
            f"{type(e).__name__}: {e}"
        ) from e
    try:
        return getattr(loaded, attribute)
    except AttributeError as e:
        known = [n for n, v in vars(loaded).items() if callable(v) and not n.startswith("_")]
        raise UserError(
            f'{what} "{name}": {module} has no "{attribute}"{did_you_mean(attribute, known)}'
        ) from e


def own_line(error: BaseException) -> str:
    """File and line of the innermost frame of an error that is in the user's code (not in Python,
    aejax or installed packages), such as "my_package/parts.py line 12"; "" if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{os.path.relpath(error.filename)} line {error.lineno}"
    ours = os.path.dirname(os.path.abspath(__file__))
    others = (ours, *map(os.path.abspath, {*sysconfig.get_paths().values()}))
    place, trace = "", error.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        installed = "site-packages" in file or file.startswith((*others, "<"))
        if not installed and os.path.isfile(file):
            place = f"{os.path.relpath(file)} line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


def parameters(target: Callable) -> list[str]:
    """Names of the arguments of a class or function that a config may set."""
    if dataclasses.is_dataclass(target):
        names = [f.name for f in dataclasses.fields(target) if f.init]
    else:
        names = list(inspect.signature(target).parameters)
    return [n for n in names if n not in ("parent", "name")]


def build(target: Callable, kwargs: Mapping[str, object], what: str) -> Any:
    """target(**kwargs), with errors for the user.

    Raises:
      UserError: an unknown argument, or a missing one.
    """
    known = parameters(target)
    for key in kwargs:
        if key not in known:
            raise UserError(f'{what} has no argument "{key}"{did_you_mean(key, known)}')
    try:
        inspect.signature(target).bind(**kwargs)
    except TypeError as e:
        raise UserError(f"{what}: {e}; give it beside its name in the config") from e
    return target(**kwargs)
