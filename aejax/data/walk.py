"""Lists image files; every command and every data source uses this module.

Hidden files (".DS_Store", "._x.jpg") and folders that begin with "." or "__" are skipped. Links to
folders are followed, but each folder is entered once, so that a link to a parent does not list its
files again.
"""

import os
from pathlib import Path

from aejax.data.images import READ
from aejax.errors import UserError


def files_in(
    folder: str | os.PathLike, suffixes: tuple[str, ...] = READ, deep: bool = True
) -> list[Path]:
    """The files of a folder with one of these suffixes (in upper or lower case), sorted.

    A broken link to a file is listed, so that reading it fails with a message. A link to a folder
    is followed unless that folder has been entered already or contains `folder`.

    Args:
      deep: include sub-folders.

    Raises:
      UserError: no such folder, or a folder that cannot be read.
    """
    if not os.path.isdir(folder):
        raise UserError(f'no folder "{folder}"')
    root = os.path.realpath(folder)
    paths: list[Path] = []
    entered: set[str] = set()
    pending, links = [os.fspath(folder)], []
    while pending:
        current = pending.pop()
        entered.add(os.path.realpath(current))
        for entry in _entries(current):
            if _is(entry, "dir"):
                if deep and not entry.name.startswith("__"):
                    (links if entry.is_symlink() else pending).append(entry.path)
            elif entry.name.lower().endswith(suffixes):
                if _is(entry, "file") or entry.is_symlink():  # not a pipe or a socket
                    paths.append(Path(entry.path))
        while links and not pending:  # real folders first: their paths win over those of links
            links.sort(reverse=True)
            target = os.path.realpath(link := links.pop())
            if target not in entered and not _contains(target, root):
                pending.append(link)
    return sorted(paths)


def images_in(
    folder: str | os.PathLike, deep: bool = False, suffixes: tuple[str, ...] = READ
) -> list[Path]:
    """As `files_in`, for a folder that must have images.

    Raises:
      UserError: no such folder, or it has no file with one of the suffixes.
    """
    images = files_in(folder, suffixes, deep)
    if not images:
        what = f'images in "{folder}"; supported suffixes: {" ".join(READ)}'
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
    """Whether an entry, or the target of a link, is a "dir" or a "file"; False for a loop of
    links."""
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:
        return False


def _contains(folder: str, inner: str) -> bool:
    """Whether the real path `folder` is the real path `inner` or a parent of it."""
    return os.path.commonpath([folder, inner]) == folder
