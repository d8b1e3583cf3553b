"""Files that are written: whole or not at all, never onto an input, over others only when told to.

A verb first lists what it will write and calls `check_outputs`, then does its work and writes each
file with `write_atomically` or inside `replacing`.
"""

import argparse
import contextlib
import os
import pathlib
import sys
import uuid
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from aejax.errors import UserError

Item = TypeVar("Item")
JsonObject = dict[str, Any]  # the content of a JSON file whose outermost brackets are {}
NAMED = 3  # files that an error names before it counts the others


# --- writing --------------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file whole: a reader, or the next start, never sees half of it.

    Args:
      path: its folder must exist. A link is followed; a device such as /dev/null is written to.
      content: text is written as UTF-8.

    Raises:
      OSError: it cannot be written; a file of that name is left as it was.
    """
    with replacing(path) as part:
        if isinstance(content, str):  # names of files in a text may hold what is not UTF-8
            content = content.encode("utf-8", "backslashreplace")
        part.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Generator[pathlib.Path]:
    """`with replacing(path) as part:` write `part`; it becomes `path` if no error was raised.

    `part` is a hidden file in the same folder with the same suffix, under a name that no other
    process uses.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe
        yield path
        return
    # cut: the longest names that file systems allow would not fit with an addition
    part = path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield part
        if path.exists():
            os.chmod(part, path.stat().st_mode & 0o7777)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# --- before the work ------------------------------------------------------------------------------


def add_force(parser: argparse.ArgumentParser) -> None:
    """The flag of every verb that writes files the user names."""
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def results_and(out: str | os.PathLike, *endings: str) -> list[pathlib.Path]:
    """A file of results and those beside it: [NAME.json, NAME + ending, ...].

    Raises:
      UserError: the name does not end in .json.
    """
    path = pathlib.Path(out)
    if path.suffix != ".json":
        raise UserError(f'--out "{path}": name a .json file')
    return [path, *(path.with_name(path.stem + ending) for ending in endings)]


def check_outputs(
    outputs: Sequence[str | os.PathLike],
    inputs: Sequence[str | os.PathLike] = (),
    force: bool = False,
    made_from: Sequence[str | os.PathLike] = (),
) -> None:
    """Refuses, before any work, what would destroy a file.

    Args:
      outputs: every file that will be written.
      inputs: files that are read; none may be written to, not even with force.
      force: existing files may be overwritten.
      made_from: the input of each output, in the same order, to name two that collide.

    Raises:
      UserError: an output is an input, is also the output of another input, is a folder, stands
        below a file, or exists.
    """
    read = {_identity(i) for i in inputs if os.path.exists(i)}
    read |= {os.path.realpath(i) for i in inputs}
    written: dict[str, int] = {}
    existing = []
    for n, output in enumerate(outputs):
        real = os.path.realpath(output)
        if real in read or (os.path.exists(real) and _identity(real) in read):
            raise UserError(f"{output} is an input and would be overwritten; name another with -o")
        if real in written:
            first, second = (
                f"{made_from[k]}" if k < len(made_from) else f"output {k + 1}"
                for k in (written[real], n)
            )
            raise UserError(
                f"{first} and {second} would both be written to {output}; rename one, or do them "
                "one by one with -o"
            )
        written[real] = n
        if os.path.isdir(real):
            raise UserError(f"{output} is a folder; name a file with -o")
        folder = next(p for p in pathlib.Path(real).parents if p.exists())
        if not folder.is_dir():
            raise UserError(f"{output} cannot be written: {folder} is a file")
        if os.path.isfile(real):
            existing.append(str(output))
    if existing and not force:
        others = len(existing) - NAMED
        names = ", ".join(existing[:NAMED]) + (f" and {others} more" if others > 0 else "")
        verb = "exists" if len(existing) == 1 else "exist"
        raise UserError(f"{names} {verb} already; --force overwrites, -o names another place")


def _identity(path: str | os.PathLike) -> tuple[int, int]:
    """What two names of one file have in common, hard links too."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def named_files(
    names: Iterable[str], files_in: Callable[[pathlib.Path], Iterable[pathlib.Path]]
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """(file, its place within the folder that was named, or its name), each file once.

    Args:
      names: files and folders.
      files_in: the files of a folder, such as `data.walk.images_in`.

    Raises:
      UserError: a name that is neither.
    """
    files: dict[tuple[pathlib.Path, pathlib.Path], None] = {}
    for name in names:
        path = pathlib.Path(name)
        if path.is_dir():
            files |= {(file, file.relative_to(path)): None for file in files_in(path)}
        elif path.exists():
            files[path, pathlib.Path(path.name)] = None
        else:
            raise UserError(f'no such file or folder: "{name}"')
    return list(files)


def targets(
    files: Sequence[tuple[pathlib.Path, pathlib.Path]],
    output: str | None,
    beside: Callable[[pathlib.Path], str],
    suffix: Callable[[pathlib.Path], str],
    writes: Sequence[str],
) -> list[pathlib.Path]:
    """Where the result of each input goes.

    Args:
      files: (input, its place within the folder that the user named, or its name).
      output: what -o says: a file for a single input, otherwise a folder that keeps the places.
      beside: input -> name of its result in the same folder, without -o.
      suffix: input -> suffix of its result in a folder.
      writes: suffixes that make OUT a file.

    Raises:
      UserError: one file for several inputs; a suffix that is not written.
    """
    if output is None:
        return [file.with_name(beside(file)) for file, _ in files]
    out = pathlib.Path(output)
    single = len(files) == 1
    is_folder = out.is_dir() or output.endswith(("/", os.sep))
    if not is_folder and (out.suffix or (out.exists() and not out.is_dir())):
        special = out.exists() and not out.is_file()
        if out.suffix.lower() in writes or special:
            if single:
                return [out]
            raise UserError(f'"{output}" is one file for {len(files)} images; name a folder')
        if single:
            raise UserError(
                f'"{output}": cannot write "{out.suffix}"; one of {" ".join(writes)}, or a folder '
                f"({output}/)"
            )
    return [out / place.with_name(place.stem + suffix(file)) for file, place in files]


# --- the work -------------------------------------------------------------------------------------


def each(items: Sequence[Item], what: str, name: Callable[[Item], object], do: Callable) -> int:
    """Calls do(item) for all items, with a progress bar; one that fails does not stop the others.

    Returns:
      0, or 2 if any failed; each failure is one line on stderr that names its file once.
    """
    failed = 0
    shown: Iterable[Item] = items
    if len(items) > 1 and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        shown = track(items, what, len(items), console=Console(stderr=True), transient=True)
    for item in shown:
        try:
            do(item)
        except BrokenPipeError:  # aejax ... | head
            raise
        except Exception as e:
            if len(items) == 1 and not isinstance(e, (UserError, OSError)):
                raise  # a bug: the command line says so, and shows where with --debug
            failed += 1
            print(f"aejax: {failure(name(item), e)}", file=sys.stderr)
    if failed and len(items) > 1:
        print(
            f"aejax: {len(items) - failed} of {len(items)} done, {failed} failed", file=sys.stderr
        )
    return 2 if failed else 0


def say(name: object, notes: Iterable[str]) -> None:
    """One line on stderr about each thing that a user should know of a file."""
    for note in notes:
        print(f"aejax: {name}: {note}", file=sys.stderr)


def failure(name: object, error: Exception) -> str:
    """One line about an error with one file, that names the file once."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = " ".join(text.split())
    return text if str(name) in text else f"{name}: {text}"
