"""Settings of an engine: --set takes precedence over the user's launch.toml, and that over the
defaults in settings.toml."""

import os
import pathlib
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from aejax.engines.engine import ENGINES
from aejax.errors import UserError
from aejax.registry import did_you_mean

Value = str | int | bool
Settings = dict[str, Any]  # name -> a Value of the same type as the default
# The characters of a setting that are safe in quotes, in comments of SLURM and in YAML.
SAFE = re.compile(r"[\w@%+=:,./~\[\]&|*-]*")
SHELL = ("program", "setup")  # settings that are shell code, with any characters


def defaults_file() -> pathlib.Path:
    """The file of the user's defaults: aejax/launch.toml in XDG_CONFIG_HOME or ~/.config."""
    config = os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config"
    return pathlib.Path(config) / "aejax" / "launch.toml"


def user_defaults(engine: str, settings: Settings) -> Settings:
    """The table [ENGINE] of the user's launch.toml; {} if there is none.

    Args:
      settings: the defaults, for the names and types.

    Raises:
      UserError: the file cannot be read, or has an unknown name or a value of another type.
    """
    file = defaults_file()
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"{file} cannot be read: {e}") from e
    for name, table in tables.items():
        if name not in ENGINES or not isinstance(table, dict):
            raise UserError(f"{file}: there is no engine [{name}]{did_you_mean(name, ENGINES)}")
    own = tables.get(engine, {})
    for name, value in own.items():
        if name not in settings:
            raise UserError(
                f'{file}: {engine} has no setting "{name}"{did_you_mean(name, settings)}'
            )
        if type(value) is not type(settings[name]):
            kind = {bool: "true or false", int: "a whole number"}.get(type(settings[name]), "text")
            raise UserError(f"{file}: {name} of {engine} must be {kind}, not {value!r}")
    return own


def load_settings(folder: pathlib.Path, texts: Sequence[str]) -> Settings:
    """The settings of the engine whose templates are in `folder`.

    Args:
      texts: "name=value" of the command line.

    Raises:
      UserError: there is no such setting, or its value has another type or unsafe characters.
    """
    settings = tomllib.loads((folder / "settings.toml").read_text())
    settings |= user_defaults(folder.name, settings)
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f'--set "{text}" is not of the form name=value')
        if name not in settings:
            hint = did_you_mean(name, settings)
            raise UserError(f'{folder.name} has no setting "{name}"{hint}')
        settings[name] = _parse(name, value, settings[name])
    for name, value in settings.items():
        if "\n" in str(value) or (name not in SHELL and not SAFE.fullmatch(str(value))):
            raise UserError(f"{name}={value!r} has characters that are not allowed in a template")
    return settings


def _parse(name: str, text: str, default: Value) -> Value:
    """`text` as a value of the type of `default`."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise UserError(f"--set {name} must be true or false, not {text!r}")
        return text == "true"
    if isinstance(default, int):
        if not re.fullmatch(r"\d+", text):
            raise UserError(f"--set {name} must be a whole number, not {text!r}")
        return int(text)
    return text
