"""Writing files: atomically, never over an input, and over other existing files only with --force.

A command first lists the files that it will write and calls `check_outputs`, then does its work and
writes each file with `write_atomically` or inside `replacing`.
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
JsonObject = dict[str, Any]  # a JSON object
NAMED = 3  # an error lists at most this many files and counts the others


# --- writing --------------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file atomically: other processes see the old or the new content, never a part of it.

    Args:
      path: its folder must exist. A link is followed; a device such as /dev/null is written to
        directly.
      content: text is written as UTF-8.

    Raises:
      OSError: the file cannot be written; an existing one is not changed.

    >>> write_atomically("settings.json", "{}")
    >>> pathlib.Path("settings.json").read_text()
    '{}'
    """
    with replacing(path) as part:
        if isinstance(content, str):  # a text may contain names of files that are not valid UTF-8
            content = content.encode("utf-8", "backslashreplace")
        part.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Generator[pathlib.Path]:
    """`with replacing(path) as part:` write to `part`, which is renamed to `path` at the end of the
    block and deleted if an error is raised.

    `part` is a hidden file in the same folder with the same suffix and a unique name.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe
        yield path
        return
    # The stem is shortened because file systems limit the length of names.
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
    """Adds the flag --force of commands that write files named by the user."""
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def results_and(out: str | os.PathLike, *endings: str) -> list[pathlib.Path]:
    """The files of a result: [NAME.json, NAME + ending, ...].

    Raises:
      UserError: the name does not end in .json.

    >>> [path.name for path in results_and("kodak.json", ".csv", "-crops.png")]
    ['kodak.json', 'kodak.csv', 'kodak-crops.png']
    """
    path = pathlib.Path(out)
    if path.suffix != ".json":
        raise UserError(f'--out "{path}": give a name that ends in .json')
    return [path, *(path.with_name(path.stem + ending) for ending in endings)]


def check_outputs(
    outputs: Sequence[str | os.PathLike],
    inputs: Sequence[str | os.PathLike] = (),
    force: bool = False,
    made_from: Sequence[str | os.PathLike] = (),
) -> None:
    """Checks, before any work, that writing the outputs destroys no files.

    Args:
      outputs: all files that will be written.
      inputs: files that are read; they are never overwritten, not even with `force`.
      force: existing files may be overwritten.
      made_from: the input of each output, in the same order, for the error about two inputs with
        the same output.

    Raises:
      UserError: an output is an input, is the output of two inputs, is a folder, has a parent that
        is a file, or exists.
    """
    read = {_identity(i) for i in inputs if os.path.exists(i)}
    read |= {os.path.realpath(i) for i in inputs}
    written: dict[str, int] = {}
    existing = []
    for n, output in enumerate(outputs):
        real = os.path.realpath(output)
        if real in read or (os.path.exists(real) and _identity(real) in read):
            raise UserError(f"{output} is an input and would be overwritten; give another -o")
        if real in written:
            first, second = (
                f"{made_from[k]}" if k < len(made_from) else f"output {k + 1}"
                for k in (written[real], n)
            )
            raise UserError(
                f"{first} and {second} would both be written to {output}; rename one, or run the "
                "command for each with another -o"
            )
        written[real] = n
        if os.path.isdir(real):
            raise UserError(f"{output} is a folder; give a file with -o")
        folder = next(p for p in pathlib.Path(real).parents if p.exists())
        if not folder.is_dir():
            raise UserError(f"{output} cannot be written: {folder} is a file")
        if os.path.isfile(real):
            existing.append(str(output))
    if existing and not force:
        others = len(existing) - NAMED
        names = ", ".join(existing[:NAMED]) + (f" and {others} more" if others > 0 else "")
        verb = "exists" if len(existing) == 1 else "exist"
        raise UserError(f"{names} {verb} already; --force overwrites, or give another -o")


def _identity(path: str | os.PathLike) -> tuple[int, int]:
    """A key that is equal for all names of a file, including hard links."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def named_files(
    names: Iterable[str], files_in: Callable[[pathlib.Path], Iterable[pathlib.Path]]
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """The files that the user named, each once: (file, its path relative to the named folder, or
    its name if the file itself was named).

    Args:
      names: files and folders.
      files_in: folder -> its files, such as `data.walk.images_in`.

    Raises:
      UserError: there is no such file or folder.
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
    """The output file of each input.

    Args:
      files: (input, relative path), from `named_files`.
      output: the value of -o: a file if there is a single input, otherwise a folder, in which the
        relative paths are kept; None to write beside the inputs.
      beside: input -> name of its output in the same folder, without -o.
      suffix: input -> suffix of its output in the folder of -o.
      writes: supported suffixes; -o with one of them is a file.

    Raises:
      UserError: one output file for several inputs, or an unsupported suffix.
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
            raise UserError(f'"{output}" is one file for {len(files)} images; give a folder')
        if single:
            raise UserError(
                f'"{output}": cannot write "{out.suffix}"; one of {" ".join(writes)}, or a folder '
                f"({output}/)"
            )
    return [out / path.with_name(path.stem + suffix(file)) for file, path in files]


# --- the work -------------------------------------------------------------------------------------


def each(items: Sequence[Item], what: str, name: Callable[[Item], object], do: Callable) -> int:
    """Calls do(item) for each item, with a progress bar. An item that fails does not stop the
    others: its error is printed as one line on stderr.

    Args:
      what: label of the progress bar, such as "compressing".
      name: item -> its file, for errors.

    Returns:
      The exit status: 0, or 2 if any item failed.
    """
    failed = 0
    tracked: Iterable[Item] = items
    if len(items) > 1 and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        tracked = track(items, what, len(items), console=Console(stderr=True), transient=True)
    for item in tracked:
        try:
            do(item)
        except BrokenPipeError:  # aejax ... | head
            raise
        except Exception as e:
            if len(items) == 1 and not isinstance(e, (UserError, OSError)):
                raise  # a bug, which the command line reports
            failed += 1
            print(f"aejax: {failure(name(item), e)}", file=sys.stderr)
    if failed and len(items) > 1:
        print(
            f"aejax: {len(items) - failed} of {len(items)} done, {failed} failed", file=sys.stderr
        )
    return 2 if failed else 0


def say(name: object, notes: Iterable[str]) -> None:
    """Prints notes about a file on stderr, a line each."""
    for note in notes:
        print(f"aejax: {name}: {note}", file=sys.stderr)


def failure(name: object, error: Exception) -> str:
    """An error with a file as one line that contains the name of the file once."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = " ".join(text.split())
    return text if str(name) in text else f"{name}: {text}"
