"""Folders of image files ("folder:PATH"), split by the names of folders or by every n-th file.

Folders named train (training), val (valid, validation) and test (testing), in upper or lower case,
are splits. The folders below them, or the top folders of a set without splits, are classes:

    train/ and test/ or val/     these are the splits
    train/, val/ and test/       data.eval_split chooses one to test on; the third is not used
    only one of them             every data.holdout-th of its files is the test split
    test/ or val/ + other files  the other files are the training split
    none of them                 every data.holdout-th file is the test split

Other files next to train/ belong to no split; `Source.outside` lists them.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aejax.data import images
from aejax.data.cache import VERSION, hash_of, remembered
from aejax.data.source import (
    SPLITS,
    Source,
    canonical_split,
    content_hash,
    find_split,
    holdout_rows,
    ordinal,
    read_header,
    set_sizes,
)
from aejax.data.walk import files_in
from aejax.errors import UserError


@dataclasses.dataclass
class Files(Source):
    """A source of image files; `items` are (path, label)."""

    def _decode(self, i, item):
        x, _ = images.read_image(item[0], name=self.names[i], at_least=self.at_least)
        return x, item[1]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The image files of a folder, divided by split folder.

    Attributes:
      splits: "train", "val" or "test" -> (name of the folder, its files relative to it).
      beside: files that are in no split folder, relative to the root.
    """

    root: Path
    splits: dict[str, tuple[str, list[str]]]
    beside: list[str]

    @property
    def trains_beside(self) -> bool:
        """Whether the files outside the split folders are the training split."""
        return bool(self.beside and self.splits) and "train" not in self.splits


def read_layout(root: Path) -> Layout:
    """Lists the image files of a folder and its split folders.

    Raises:
      UserError: no images, or ambiguous folder names.
    """
    splits: dict[str, tuple[str, list[str]]] = {}
    for name in sorted(os.listdir(root)):
        kind = SPLITS.get(name.lower())
        if kind is None or not (root / name).is_dir():
            continue
        if kind in splits:
            raise UserError(
                f"{root}: {splits[kind][0]}/ and {name}/ are both a {kind} split; rename one"
            )
        splits[kind] = name, _names(root / name)
        if not splits[kind][1]:
            raise UserError(f"no images in {root / name}; fill or remove that folder")
    folders = {name for name, _ in splits.values()}
    beside = [n for n in _names(root) if n.split("/")[0] not in folders]
    if not splits and not beside:
        raise UserError(f"no images in {root}; supported suffixes: {' '.join(images.READ)}")
    if not splits:
        _refuse_deeper_splits(root, beside)
    others = sorted({n.split("/")[0] for n in beside if "/" in n})
    if set(splits) == {"train"} and others:
        name = splits["train"][0]
        raise UserError(
            f"{root} has {name}/ beside {', '.join(o + '/' for o in others[:3])}: a split or a "
            f"class? Move the others away or name {root / name} if it is the training split; "
            "rename it if it is a class"
        )
    return Layout(root, splits, beside)


def _names(folder: Path) -> list[str]:
    """The image files of a folder, relative to it, sorted as text."""
    return sorted(p.relative_to(folder).as_posix() for p in files_in(folder))


def _refuse_deeper_splits(root: Path, names: Sequence[str]) -> None:
    """Refuses train and test folders below the top level, which would be mixed.

    Raises:
      UserError: there are such folders.
    """
    kinds: dict[str, set[str]] = {}
    for folder in {n.rpartition("/")[0] for n in names}:
        while folder:
            parent, _, name = folder.rpartition("/")
            if name.lower() in SPLITS:
                kinds.setdefault(parent, set()).add(SPLITS[name.lower()])
            folder = parent
    mixed = sorted(p for p, splits in kinds.items() if "train" in splits and len(splits) > 1)
    if mixed:
        others = f" and {len(mixed) - 1} more" if len(mixed) > 1 else ""
        raise UserError(
            f"{root}: {mixed[0]}/{others} holds train and test folders, which would be mixed; "
            f"take folder:{root / mixed[0]}, or put the split folders on top"
        )


def files_of_split(layout: Layout, split: str, holdout: int) -> tuple[list[str], str, list[str]]:
    """The files of a split. They follow from the layout alone, so no file is in two splits.

    Args:
      split: "train", "val", "test" or a synonym of these, or "all".

    Returns:
      (files relative to the root, `Source.part`, the split folders that these files are from: keys
      that `Source.outside` does not have).

    Raises:
      UserError: no such split.
    """
    splits, beside, root = layout.splits, layout.beside, layout.root
    if not splits:
        kept = holdout_rows(len(beside), split, holdout, str(root))
        held = split != "all" and holdout
        words = f"every {ordinal(holdout)} held out" if held else "all of it"
        return [beside[i] for i in kept], words, []
    files = {kind: [f"{name}/{n}" for n in names] for kind, (name, names) in splits.items()}
    places = {kind: f"{name}/" for kind, (name, _) in splits.items()}
    words = dict(places)
    if layout.trains_beside:
        words["train"] = f"what is beside {' and '.join(places.values())}"
        files["train"], places["train"] = beside, "beside"
    if split == "all":
        return sum(files.values(), []), "all of it", list(places.values())
    kind, held = find_split(split, list(files), str(root))
    if not held:
        return files[kind], words[kind], [places[kind]]
    side = "train" if canonical_split(split) == "train" else "test"
    where = f"{root / splits[kind][0]}, the only split there is,"
    kept = holdout_rows(len(files[kind]), side, holdout, where)
    how = f"every {ordinal(holdout)} of {words[kind]} held out" if holdout else words[kind]
    return [files[kind][i] for i in kept], how, [places[kind]]


def open_folder(path: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {index: reason}) of a split of a folder; see `aejax.data.source.SOURCES`."""
    given = Path(path).expanduser()
    tried = [
        p for p in (data_dir and data_dir / given, given) if p
    ]  # an absolute `given` replaces it
    root = next((p for p in tried if p.is_dir()), None)
    if root is None:
        where = " or ".join(dict.fromkeys(str(p.absolute()) for p in tried))
        raise UserError(f'no folder "{path}": looked for {where}')
    layout = read_layout(root)
    chosen, words, parts = files_of_split(layout, split, holdout)
    folders = {name for name, _ in layout.splits.values()}

    def without_split(name: str) -> str:
        first, _, below = name.partition("/")
        return below if first in folders else name

    all_names = layout.beside if layout.trains_beside or not layout.splits else []
    all_names = all_names + [n for _, names in layout.splits.values() for n in names]
    top_folders = {n.split("/")[0] if "/" in n else "" for n in all_names}
    classes = [] if "" in top_folders else sorted(top_folders)
    is_one_split = len(parts) == 1 and parts != ["beside"]
    source, bad = open_files(
        [root / n for n in chosen],
        [without_split(n) if is_one_split else n for n in chosen],
        classes,
        [without_split(n).split("/")[0] for n in chosen],
    )
    source.part = words
    outside = {f"{name}/": names for name, names in layout.splits.values()}
    outside |= {"beside": layout.beside} if layout.splits and layout.beside else {}
    source.outside = {where: names for where, names in outside.items() if where not in parts}
    return source, bad


def open_files(
    paths: list[Path],
    names: list[str],
    classes: Sequence[str] = (),
    class_of: Sequence[str] | None = None,
) -> tuple[Source, dict[int, str]]:
    """A source of image files, and {index: reason} of those whose header cannot be read.

    Args:
      names: of the images, in errors and captions.
      class_of: name of the class of each file; the label is -1 if `classes` lacks it.
    """
    indices = {c: i for i, c in enumerate(classes)}
    labels = [indices.get(c, -1) for c in class_of] if class_of else [-1] * len(paths)
    key = hash_of(VERSION, [(str(p.absolute()), *_stat(p)) for p in paths])
    with remembered(f"files-{key}") as memory:
        if not memory:
            with ThreadPoolExecutor() as pool:
                memory["marks"] = list(pool.map(_file_hash, paths))
                memory["heads"] = list(pool.map(read_header, paths, names))
    source = Files(
        name="",
        items=list(zip(paths, labels, strict=True)),
        names=names,
        sizes=np.zeros((len(paths), 2), np.int32),
        channels=0,
        class_names=tuple(classes),
        fingerprint=hash_of(names, memory["marks"]),
        key=key,
        hashes=np.array(memory["marks"], np.uint64),
    )
    return source, set_sizes(source, memory["heads"])


def _stat(path: Path) -> tuple[int, int]:
    try:
        return (s := path.stat()).st_size, s.st_mtime_ns
    except OSError:
        return 0, 0


def _file_hash(path: Path) -> int:
    """Hash of the whole content of a file; of its path and the error if it cannot be read."""
    try:
        with open(path, "rb") as f:
            return int.from_bytes(hashlib.file_digest(f, "sha256").digest()[:8])
    except OSError as e:
        return content_hash(f"{path}: {e.errno}".encode())
