"""The walker of folders: every verb and every source lists the files of a folder by it.

Hidden files (".DS_Store", "._x.jpg") and folders that begin with "." or "__" are never pictures.
Links to folders are followed, but each folder is entered once, so that a link to a parent does not
multiply what it holds.
"""

import os
from pathlib import Path

from aejax.data.images import READ
from aejax.errors import UserError


def files_in(
    folder: str | os.PathLike, suffixes: tuple[str, ...] = READ, deep: bool = True
) -> list[Path]:
    """The files of a folder with one of these suffixes in any case, sorted; maybe none.

    A link to a file is listed, even if that file is gone, so that its reader can say so. A link to
    a folder is followed unless that folder, or one that holds `folder`, is listed already.

    Args:
      deep: of its sub-folders too.

    Raises:
      UserError: no such folder, or one that cannot be read.
    """
    if not os.path.isdir(folder):
        raise UserError(f'no folder "{folder}"')
    root = os.path.realpath(folder)
    paths: list[Path] = []
    entered: set[str] = set()
    pending, links = [os.fspath(folder)], []
    while pending:
        here = pending.pop()
        entered.add(os.path.realpath(here))
        for entry in _entries(here):
            if _is(entry, "dir"):
                if deep and not entry.name.startswith("__"):
                    (links if entry.is_symlink() else pending).append(entry.path)
            elif entry.name.lower().endswith(suffixes):
                if _is(entry, "file") or entry.is_symlink():  # not a pipe or a socket
                    paths.append(Path(entry.path))
        while links and not pending:  # all real folders first: their names win over links' names
            links.sort(reverse=True)
            target = os.path.realpath(link := links.pop())
            if target not in entered and not _holds(target, root):
                pending.append(link)
    return sorted(paths)


def images_in(
    folder: str | os.PathLike, deep: bool = False, suffixes: tuple[str, ...] = READ
) -> list[Path]:
    """The image files of a folder by their suffixes, sorted; `deep`: of its sub-folders too.

    Raises:
      UserError: no such folder, or no such file in it.
    """
    images = files_in(folder, suffixes, deep)
    if not images:
        what = f'images in "{folder}"; read are {" ".join(READ)}'
        raise UserError(f"no {what if suffixes is READ else ' '.join(suffixes) + f' in {folder}'}")
    return images


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not e.name.startswith(".")]
    except OSError as e:
        raise UserError(
            f'cannot read the folder "{folder}": {(e.strerror or str(e)).lower()}'
        ) from e


def _is(entry: os.DirEntry, kind: str) -> bool:
    """Whether an entry, or what it links to, is a "dir" or a "file"; a loop of links is neither."""
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:
        return False


def _holds(folder: str, inner: str) -> bool:
    """Whether a real path is that of `inner`, or of a folder above it."""
    return os.path.commonpath([folder, inner]) == folder
