"""Folders of pictures ("folder:PATH"), split by folder names or else by every n-th file.

Folders called train (training), val (valid, validation) and test (testing), in any case, are its
splits; the folders below them, or those of a set without splits, are classes:

    train/ and test/ or val/    as they are
    all three                   data.eval_split chooses; the third is not used
    one of them alone           every data.holdout-th of its files is the test split
    test/ (or val/), and other files beside it: those are the training split
    none of them                every data.holdout-th file is the test split

Other files beside train/ are in no split; `Source.rest` names them.
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
    head_of,
    holdout_rows,
    mark,
    measured,
    named_split,
    ordinal,
    usual_name,
)
from aejax.data.walk import files_in
from aejax.errors import UserError


@dataclasses.dataclass
class Files(Source):
    """items: (path, label)."""

    def _decode(self, i, item):
        x, _ = images.read_image(item[0], name=self.names[i], at_least=self.at_least)
        return x, item[1]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The pictures of a folder, by what its names say of them.

    Attributes:
      splits: "train", "val" or "test" -> (name of that folder, its files relative to it).
      beside: files relative to the root that are in no split folder.
    """

    root: Path
    splits: dict[str, tuple[str, list[str]]]
    beside: list[str]

    @property
    def trains_beside(self) -> bool:
        """Whether the files beside the split folders are the training split."""
        return bool(self.beside and self.splits) and "train" not in self.splits


def read_layout(root: Path) -> Layout:
    """Lists a folder and its splits.

    Raises:
      UserError: no pictures, or names of which it is not clear what they mean.
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
        raise UserError(f"no images in {root}; read are {' '.join(images.READ)}")
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
    """Its pictures relative to it, as text in sorted order."""
    return sorted(p.relative_to(folder).as_posix() for p in files_in(folder))


def _refuse_deeper_splits(root: Path, names: Sequence[str]) -> None:
    """Splits below a class or below one more folder would be mixed.

    Raises:
      UserError: there are some.
    """
    kinds: dict[str, set[str]] = {}
    for folder in {n.rpartition("/")[0] for n in names}:
        while folder:
            above, _, last = folder.rpartition("/")
            if last.lower() in SPLITS:
                kinds.setdefault(above, set()).add(SPLITS[last.lower()])
            folder = above
    mixed = sorted(above for above, there in kinds.items() if "train" in there and len(there) > 1)
    if mixed:
        others = f" and {len(mixed) - 1} more" if len(mixed) > 1 else ""
        raise UserError(
            f"{root}: {mixed[0]}/{others} holds train and test folders, which would be mixed; "
            f"take folder:{root / mixed[0]}, or put the split folders on top"
        )


def choose(layout: Layout, split: str, holdout: int) -> tuple[list[str], str, list[str]]:
    """Which files a split has. Both splits follow from the layout alone, so that no file is in two.

    Args:
      split: "train", "val", "test" or another name of these, or "all" of them.

    Returns:
      (files relative to the root, the part in words, the keys of `Source.rest` that it has).

    Raises:
      UserError: there is no such split.
    """
    splits, beside, root = layout.splits, layout.beside, layout.root
    if not splits:
        kept = holdout_rows(len(beside), split, holdout, str(root))
        held = split != "all" and holdout
        words = f"every {ordinal(holdout)} held out" if held else "all of it"
        return [beside[i] for i in kept], words, []
    there = {kind: [f"{name}/{n}" for n in names] for kind, (name, names) in splits.items()}
    places = {kind: f"{name}/" for kind, (name, _) in splits.items()}
    words = dict(places)
    if layout.trains_beside:
        words["train"] = f"what is beside {' and '.join(places.values())}"
        there["train"], places["train"] = beside, "beside"
    if split == "all":
        return sum(there.values(), []), "all of it", list(places.values())
    kind, held = named_split(split, list(there), str(root))
    if not held:
        return there[kind], words[kind], [places[kind]]
    side = "train" if usual_name(split) == "train" else "test"
    where = f"{root / splits[kind][0]}, the only split there is,"
    kept = holdout_rows(len(there[kind]), side, holdout, where)
    how = f"every {ordinal(holdout)} of {words[kind]} held out" if holdout else words[kind]
    return [there[kind][i] for i in kept], how, [places[kind]]


def open_folder(path: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {index: reason}) of a split of a folder; see `aejax.data.source.SOURCES`."""
    given = Path(path).expanduser()
    tried = [p for p in (data_dir and data_dir / given, given) if p]  # an absolute path stays so
    root = next((p for p in tried if p.is_dir()), None)
    if root is None:
        where = " or ".join(dict.fromkeys(str(p.absolute()) for p in tried))
        raise UserError(f'no folder "{path}": looked for {where}')
    layout = read_layout(root)
    chosen, words, parts = choose(layout, split, holdout)
    folders = {name for name, _ in layout.splits.values()}

    def inside(name: str) -> str:  # its split folder
        first, _, below = name.partition("/")
        return below if first in folders else name

    everything = layout.beside if layout.trains_beside or not layout.splits else []
    everything = everything + [n for _, names in layout.splits.values() for n in names]
    firsts = {n.split("/")[0] if "/" in n else "" for n in everything}
    classes = [] if "" in firsts else sorted(firsts)
    one = len(parts) == 1 and parts != ["beside"]
    named = [inside(n) if one else n for n in chosen]
    source, bad = open_files(
        [root / n for n in chosen], named, classes, [inside(n).split("/")[0] for n in chosen]
    )
    source.part = words
    rest = {f"{name}/": names for name, names in layout.splits.values()}
    rest |= {"beside": layout.beside} if layout.splits and layout.beside else {}
    source.rest = {where: names for where, names in rest.items() if where not in parts}
    return source, bad


def open_files(
    paths: list[Path],
    names: list[str],
    classes: Sequence[str] = (),
    class_of: Sequence[str] | None = None,
) -> tuple[Source, dict[int, str]]:
    """A source of files, and {index: reason} of those whose header is bad.

    Args:
      class_of: of each file, if there are classes; -1 is the label of what is not one of them.
    """
    labels = {c: i for i, c in enumerate(classes)}
    of = [labels.get(c, -1) for c in class_of] if class_of else [-1] * len(paths)
    key = hash_of(VERSION, [(str(p.absolute()), *_stat(p)) for p in paths])
    with remembered(f"files-{key}") as memory:
        if not memory:
            with ThreadPoolExecutor() as pool:
                memory["marks"] = list(pool.map(_mark, paths))
                memory["heads"] = list(pool.map(head_of, paths, names))
    source = Files(
        name="",
        items=list(zip(paths, of, strict=True)),
        names=names,
        sizes=np.zeros((len(paths), 2), np.int32),
        channels=0,
        class_names=tuple(classes),
        fingerprint=hash_of(names, memory["marks"]),
        key=key,
        marks=np.array(memory["marks"], np.uint64),
    )
    return source, measured(source, memory["heads"])


def _stat(path: Path) -> tuple[int, int]:
    try:
        return (s := path.stat()).st_size, s.st_mtime_ns
    except OSError:
        return 0, 0


def _mark(path: Path) -> int:
    """Of all of a file: whatever changes in it, the fingerprint changes."""
    try:
        with open(path, "rb") as f:
            return int.from_bytes(hashlib.file_digest(f, "sha256").digest()[:8])
    except OSError as e:
        return mark(f"{path}: {e.errno}".encode())
