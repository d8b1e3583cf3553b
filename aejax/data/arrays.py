"""Images in arrays: "arrays:FILE.npy", "arrays:FILE.npz", or NumPy arrays passed from Python.

Images are [n, h, w] or [n, h, w, c], channels last: uint8, bool, uint16 (rounded to 8 bits) or
floats in [0, 1] (times 255, rounded). Labels are integers or text, one per image.

    FILE.npy     images, mapped into memory, not read into it
    FILE.npz     "images" ("x", "data") and optionally "labels" ("y"); or a pair for each split:
                 "x_train", "y_train", "x_test", ... or "train_images", "train_labels", ...
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from aejax.data.cache import VERSION, hash_of, remembered
from aejax.data.images import to_uint8 as from_uint16
from aejax.data.source import (
    Source,
    canonical_split,
    content_hash,
    find_split,
    holdout_rows,
    ordinal,
)
from aejax.errors import UserError

ArrayData = ArrayLike | tuple[ArrayLike, ArrayLike | None]  # images, or (images, labels)
_IMAGES, _LABELS = ("images", "image", "x", "X", "data"), ("labels", "label", "y", "Y", "targets")
_CHUNK = 64 << 20  # bytes that are hashed at a time


@dataclasses.dataclass(kw_only=True)
class Arrays(Source):
    """A source of arrays in memory.

    `items` are rows of `images` [n, h, w(, c)] and of `labels` (int32 [n] or None).
    """

    on_disk: ClassVar[bool] = False
    checked: ClassVar[bool] = True

    images: np.ndarray
    labels: np.ndarray | None = None

    def _decode(self, i, item):
        label = -1 if self.labels is None else int(self.labels[item])
        return to_uint8(self.images[item]), label


@dataclasses.dataclass(kw_only=True)
class MappedArrays(Source):
    """A source of a memory-mapped .npy file.

    `items` are rows of the file `path` and of `labels` (int32 [n] or None). Each process maps the
    file itself.
    """

    checked: ClassVar[bool] = True

    path: Path
    labels: np.ndarray | None = None

    def _fetch(self, rows):
        if "_mapped" not in self.__dict__:
            self._mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return [(self._mapped[self.items[i]], self.items[i]) for i in rows]

    def _decode(self, i, item):
        image, row = item
        return to_uint8(image), -1 if self.labels is None else int(self.labels[row])

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_mapped"}


def to_uint8(x: np.ndarray) -> np.ndarray:
    """One image [h, w(, c)] of a type that `check_images` accepts, as uint8 [h, w, c].

    >>> to_uint8(np.array([[0.0, 0.5, 1.0]])).ravel()
    array([  0, 128, 255], dtype=uint8)
    """
    x = np.asarray(x)
    x = x[..., None] if x.ndim == 2 else x
    if x.dtype == np.uint8:
        return x
    if x.dtype == bool:
        return x.astype(np.uint8) * 255
    if x.dtype.kind == "u":
        return from_uint16(x)
    return np.round(x.astype(np.float64) * 255).astype(np.uint8)


def check_images(x: np.ndarray, name: str) -> None:
    """Checks that shape and type of an array are those of images.

    Raises:
      UserError: they are not; the message says how to convert the array.
    """
    if x.ndim not in (3, 4) or not len(x) or 0 in x.shape:
        hint = "; reshape it" if x.ndim == 2 else ""
        raise UserError(f"{name}: images are [n, h, w] or [n, h, w, c], not {x.shape}{hint}")
    if x.ndim == 4 and x.shape[3] not in (1, 2, 3, 4):
        channels_first = x.shape[1] in (1, 2, 3, 4)
        hint = "; channels come last: x.transpose(0, 2, 3, 1)" if channels_first else ""
        raise UserError(f"{name}: {x.shape} has {x.shape[3]} channels, not 1 to 4{hint}")
    kind = x.dtype.newbyteorder("=")
    if not (kind in (bool, np.uint8, np.uint16) or kind.kind == "f"):
        hint = "; if its values are 0 to 255: x.astype(np.uint8)" if x.dtype.kind in "iu" else ""
        raise UserError(
            f"{name} is of {x.dtype}; images are uint8, uint16, bool or floats in [0, 1]{hint}"
        )


def hash_images(x: np.ndarray, name: str) -> list[int]:
    """A hash of each image (see `Source.hashes`); checks the range of floats on the way.

    Raises:
      UserError: floats outside [0, 1].
    """
    hashes, step = [], max(1, _CHUNK // max(1, x[0].nbytes))
    for first in range(0, len(x), step):
        part = np.ascontiguousarray(x[first : first + step])
        part = part.astype(part.dtype.newbyteorder("="), copy=False)
        if part.dtype.kind == "f" and not (part.min() >= 0 and part.max() <= 1):  # NaN too
            raise UserError(
                f"{name}: floats are images in [0, 1]; there are values from {part.min():.4g} to "
                f"{part.max():.4g}: scale them"
            )
        hashes += [content_hash(image.tobytes()) for image in part]
    return hashes


def as_labels(
    labels: ArrayLike | None, n: int, name: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Class indices, int32 [n], and the names of the classes; (None, ()) without labels.

    Raises:
      UserError: not one label per image, or labels that are neither integers nor text.
    """
    if labels is None:
        return None, ()
    labels = np.asarray(labels)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (n,):
        raise UserError(f"{name}: labels of shape {labels.shape} for {n} images; one for each")
    if labels.dtype.kind not in "iuUSb":
        raise UserError(f"{name}: labels are integers or text, not {labels.dtype}")
    classes, numbers = np.unique(labels, return_inverse=True)
    names = [c.decode() if isinstance(c, bytes) else str(c) for c in classes]
    return numbers.astype(np.int32), tuple(names)


def images_and_labels(data: ArrayData) -> tuple[np.ndarray, ArrayLike | None]:
    """(images, labels or None) of `data`, which is images or (images, labels).

    Raises:
      UserError: it is neither.
    """
    value: Any = data  # a tuple or list whose first element has 3 or 4 axes is (images, labels)
    if isinstance(value, tuple | list) and len(value) == 2 and np.ndim(value[0]) in (3, 4):
        return np.asarray(value[0]), value[1]
    if np.ndim(value) in (3, 4):
        return np.asarray(value), None
    raise UserError("data is an array of images [n, h, w, c], or (images, labels)")


def from_arrays(
    data: ArrayData,
    split: str = "train",
    holdout: int = 10,
    name: str = "arrays in memory",
    path: Path | None = None,
) -> "Arrays | MappedArrays":
    """A source of NumPy arrays. Every `holdout`-th image belongs to the test split.

    Args:
      data: images [n, h, w(, c)], or (images, labels [n]).
      path: the .npy file that the images are mapped from, if they are.

    Raises:
      UserError: shapes, types or values that the module does not take.

    >>> source = from_arrays((images, np.arange(8) % 2), "train", holdout=4)
    >>> len(source), source.shape, source.class_names
    (6, (8, 8, 1), ('0', '1'))
    """
    images, labels = images_and_labels(data)
    check_images(images, name)
    numbers, classes = as_labels(labels, len(images), name)
    if path is None:
        hashes = hash_images(images, name)
    else:
        stat = path.stat()
        key = hash_of(VERSION, str(path.absolute()), stat.st_size, stat.st_mtime_ns)
        with remembered(f"arrays-{key}") as memory:
            memory["marks"] = memory.get("marks") or hash_images(images, name)
            hashes = memory["marks"]
    rows = holdout_rows(len(images), split, holdout, name)
    hashes = np.array(hashes, np.uint64)[rows]
    c = images.shape[3] if images.ndim == 4 else 1
    digest = hashlib.sha256(hashes.tobytes())
    digest.update(b"" if numbers is None else numbers[rows].tobytes())
    fingerprint = hash_of(digest.hexdigest(), images.shape[1:], classes)
    common: dict[str, Any] = {
        "name": name,
        "items": rows,
        "names": [str(i) for i in rows],
        "sizes": np.tile(np.array(images.shape[1:3], np.int32), (len(rows), 1)),
        "channels": 1 if c < 3 else 3,
        "class_names": classes,
        "fingerprint": fingerprint,
        "key": hash_of(VERSION, fingerprint, str(images.dtype)),
        "part": f"every {ordinal(holdout)} held out" if holdout and split != "all" else "all of it",
        "hashes": hashes,
        "labels": numbers,
    }
    if path is None:
        return Arrays(**common, images=images)
    return MappedArrays(**common, path=path)


MEMORY = "memory:arrays"  # data.source of a run that was trained on arrays from Python


def open_memory(name: str, split: str, data_dir: Path | None, holdout: int):
    """Opener of `MEMORY`: the arrays are gone with the process that had them.

    Raises:
      UserError: always.
    """
    raise UserError(
        "this run was trained on arrays from Python: give them again, train(..., data=(images, "
        "labels)), or name another set (eval --source)"
    )


def open_arrays(file: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {}) of a split of a file; see `aejax.data.source.SOURCES`."""
    given = Path(file).expanduser()
    tried = [p for p in (data_dir and data_dir / given, given) if p]
    path = next((p for p in tried if p.is_file()), None)
    if path is None:
        where = " or ".join(dict.fromkeys(str(p.absolute()) for p in tried))
        raise UserError(f'no file "{file}": looked for {where}')
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f'"{file}" is not a .npy or .npz file')
    name = f"arrays:{file}"
    try:
        if path.suffix == ".npy":
            images = np.load(path, mmap_mode="r", allow_pickle=False)
            return from_arrays(images, split, holdout, name, path), {}
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (ValueError, OSError, EOFError) as e:
        what = "it holds Python objects; save plain arrays" if "object" in str(e).lower() else e
        raise UserError(f"{name} cannot be read: {what}") from e
    return _of_npz(arrays, split, holdout, name), {}


def _of_npz(arrays: Mapping[str, np.ndarray], split: str, holdout: int, name: str) -> Source:
    candidates = {kind: _find(arrays, kind) for kind in ("train", "val", "test")}
    parts = {kind: part for kind, part in candidates.items() if part}
    if not parts:
        whole = _find(arrays, "")
        if whole is None and len(arrays) == 1:
            whole = next(iter(arrays.values())), None
        if whole is None:
            raise UserError(
                f"{name} has {', '.join(arrays) or 'no arrays'}; expected are images and labels, "
                "or x_train, y_train, x_test, y_test"
            )
        return from_arrays(whole, split, holdout, name)
    kind, chosen = "", list(parts)
    if split != "all":
        kind, held = find_split(split, list(parts), name)
        if held:
            side = "train" if canonical_split(split) == "train" else "test"
            return from_arrays(parts[kind], side, holdout, name)
        chosen = [kind]
    labelled = all(labels is not None for _, labels in parts.values())
    try:
        images = np.concatenate([parts[k][0] for k in chosen])
        labels = np.concatenate([np.asarray(p[1]) for p in parts.values()]) if labelled else None
    except ValueError as e:
        raise UserError(f"{name}: its splits cannot be joined: {e}") from e
    classes = as_labels(labels, sum(len(x) for x, _ in parts.values()), name)[1]
    chosen_labels = np.concatenate([np.asarray(parts[k][1]) for k in chosen]) if labelled else None
    source = from_arrays((images, chosen_labels), "all", 0, name)
    if labelled:  # number the classes of all splits, not of the chosen ones
        numbers = np.array([classes.index(c) for c in source.class_names], np.int32)
        source.labels, source.class_names = numbers[source.labels], classes
    source.part = "all of it" if split == "all" else kind
    source.outside = {k: [f"{k}[{i}]" for i in range(len(x))] for k, (x, _) in parts.items()
                   if k not in chosen}  # fmt: skip
    source.names = [f"{kind}[{i}]" for i in range(len(source))] if split != "all" else source.names
    return source


def _find(
    arrays: Mapping[str, np.ndarray], split: str
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """(images, labels or None) of a split by the names of the arrays; "" = arrays without a split
    in their name. None if there are no images."""

    def spellings(name):
        return (f"{name}_{split}", f"{split}_{name}") if split else (name,)

    def get(names):
        return next((arrays[f] for n in names for f in spellings(n) if f in arrays), None)

    images = get(_IMAGES)
    return None if images is None else (images, get(_LABELS))
