"""aejax new FOLDER: creates a project with a package of the user's own parts, an experiment, a
study and a test.

The files are copies of `new_templates/`, with `my_package` replaced by the name of the package.
"""

import argparse
import keyword
import pathlib
import re
import shlex
import sys

from aejax.cli import Verb
from aejax.errors import UserError

TEMPLATES = pathlib.Path(__file__).parent / "new_templates"
NAME = "my_package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `aejax new`."""
    parser.add_argument("folder", help="folder of the project: a new or an empty one")
    parser.add_argument(
        "--package", help="name of the Python package (default: the name of the folder)"
    )


def package_name(folder: pathlib.Path, given: str | None) -> str:
    """The name of the package: `given`, or the folder's name as a Python identifier.

    Raises:
      UserError: not a valid name of a module, or the name of another module.

    >>> package_name(pathlib.Path("My-faces 2"), None)
    'my_faces_2'
    """
    name = given or re.sub(r"\W+", "_", folder.name.lower()).strip("_")
    hint = "give another by --package"
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise UserError(f'"{name}" cannot be the name of a Python package; {hint}')
    if name in sys.stdlib_module_names or name in ("aejax", "tests", "experiments", "runs"):
        raise UserError(f'a package called "{name}" would hide, or be hidden by, another; {hint}')
    return name


def new(folder: pathlib.Path, package: str) -> list[pathlib.Path]:
    """Writes the project.

    Returns:
      the files, relative to `folder`.

    Raises:
      UserError: the folder is not empty, or cannot be written.
    """
    written = []
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is there already and not empty; nothing was written")
        for template in sorted(p for p in TEMPLATES.rglob("*") if p.is_file()):
            if "__pycache__" in template.parts:
                continue
            path = pathlib.Path(str(template.relative_to(TEMPLATES)).replace(NAME, package))
            path = path.with_name(".gitignore") if path.name == "gitignore" else path
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(template.read_text().replace(NAME, package))
            written.append(path)
    except OSError as e:
        raise UserError(f"cannot write {folder}: {e.strerror or e}") from e
    return written


def run(args: argparse.Namespace) -> int:
    """Writes the project and prints the first command to run in it."""
    folder = pathlib.Path(args.folder)
    package = package_name(folder.absolute(), args.package)
    for path in new(folder, package):
        print(f"  {folder / path}")
    first = f"cd {shlex.quote(str(folder))} && aejax check --config experiments/first.py"
    print(f"\n  {first}\n\nREADME.md there has the other commands.")
    return 0


new_verb = Verb(add_arguments, run)
