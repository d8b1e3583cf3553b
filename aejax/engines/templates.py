"""The templates of launch/: plain files with {{name}} where a value goes."""

import pathlib
import re
from collections.abc import Mapping

from aejax.errors import UserError
from aejax.registry import did_you_mean

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_PACKAGE = pathlib.Path(__file__).parent


def default_places(package: pathlib.Path = _PACKAGE) -> list[pathlib.Path]:
    """Folders that may hold the templates: launch/ in the package, to which the build copies it,
    and launch/ of a checkout, also of one that is installed by `pip install -e`."""
    return [package / "launch", package.parents[1] / "launch"]


def templates_folder(
    engine: str, given: str | None = None, package: pathlib.Path = _PACKAGE
) -> pathlib.Path:
    """The folder with the templates of `engine`: in `given`, or by default in the package.

    Raises:
      UserError: there are none.
    """
    places = [pathlib.Path(given)] if given else default_places(package)
    for place in places:
        for folder in (place / engine, place):
            if folder.name == engine and (folder / "settings.toml").is_file():
                return folder
    raise UserError(f"no templates of {engine} in {places[0]}: {engine}/settings.toml is missing")


def fill(text: str, values: Mapping[str, str | int | bool]) -> str:
    """`text` with every {{name}} replaced; a line whose value is empty is left out.

    Raises:
      UserError: the text has a name that is not in `values`.

    Example:
      >>> fill("#SBATCH --time={{time}}\\n#SBATCH --gres={{gres}}", {"time": "1:00", "gres": ""})
      '#SBATCH --time=1:00\\n'
    """
    lines = []
    for line in text.splitlines():
        names = PLACEHOLDER.findall(line)
        for name in names:
            if name not in values:
                raise UserError(
                    f'no value for "{{{{{name}}}}}" in a template{did_you_mean(name, values)}'
                )
        if any(values[name] == "" for name in names):
            continue
        lines.append(PLACEHOLDER.sub(lambda m: _text(values[m[1]]), line))
    return "\n".join(lines) + "\n"


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
