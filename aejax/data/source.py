"""What is trained on: images by index, with labels, checked before anything is trained on them.

`open_source("KIND:REST", split)` finds the opener of a kind in SOURCES; which examples are trained
and which are tested on is decided for both at once in splits.py.
"""

import dataclasses
import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aejax.data import decode, images
from aejax.data.cache import hash_of
from aejax.data.images import BadImage
from aejax.errors import UserError
from aejax.registry import did_you_mean, lookup


@dataclasses.dataclass
class Source:
    """Images and labels by index. Cheap to pickle: what is open is opened again where it is used.

    Attributes:
      name: the spec and split it was opened by.
      names: what each image is called in errors and captions.
      sizes: int32 [n, 2], height and width of each image as read.
      channels: 1 or 3, of every image.
      class_names: of the labels; empty if the set has none (labels are -1 then).
      fingerprint: of the content; the same on every machine.
      key: changes whenever a pixel may have changed on this machine; decoded copies are kept by
        it, and none are if it is empty.
      bad: (name, reason) of each image left out.
      part: which part of the set this is, in words: "every 20th held out", "train/".
      rest: names of the pictures of the set that are in no part of this split, by where they are.
      marks: uint64 [n], equal only for equal content, or None if that is not known: by it no
        picture comes into two splits.

    >>> source = open_source("bundled:digits", "all")
    >>> x, label = source.read(3)
    >>> x.shape, x.dtype, label
    ((8, 8, 1), dtype('uint8'), 3)
    """

    name: str
    items: Sequence[Any] | np.ndarray
    names: Sequence[str]
    sizes: np.ndarray
    channels: int
    class_names: tuple[str, ...] = ()
    size: int | tuple[int, int] | None = None
    fingerprint: str = ""
    key: str = ""
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    part: str = ""
    rest: dict[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    marks: np.ndarray | None = None
    at_least: int = 0  # see images.read_image; with `size` only

    on_disk: ClassVar[bool] = True  # whether a decoded copy is worth a file
    checked: ClassVar[bool] = False  # whether every picture is known to be whole

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> dict:
        image, label = self.read(i)
        return {"image": image, "label": label}

    def read(self, i: int) -> tuple[np.ndarray, int]:
        """(uint8 [h, w, c], label) of example i.

        Raises:
          BadImage: it cannot be decoded.
        """
        return self._finish(i, self._fetch([i])[0])

    def read_chunk(self, rows: Sequence[int]) -> list[tuple[np.ndarray, int] | str]:
        """What `read` gives for each row, or the reason why it gives nothing."""
        results: list[tuple[np.ndarray, int] | str] = []
        for i, item in zip(rows, self._fetch(rows), strict=True):
            try:
                results.append(self._finish(i, item))
            except BadImage as e:
                results.append(e.reason)
        return results

    def _finish(self, i: int, item: Any) -> tuple[np.ndarray, int]:
        x, label = self._decode(i, item)
        x = decode.flatten(x, self.channels)
        x = decode.resize(x, self.size) if self.size else x
        if x.shape[:2] != tuple(self.sizes[i]):
            raise BadImage(self.names[i], f"{x.shape[:2]} is not the size its header tells")
        return x, label

    def _fetch(self, rows: Sequence[int]) -> list:
        """What is stored of these rows, quickest when fetched together."""
        return [self.items[i] for i in rows]

    def _decode(self, i: int, item: Any) -> tuple[np.ndarray, int]:
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(h, w, c) if all images have the same size, else None."""
        same = len(self) > 0 and (self.sizes == self.sizes[0]).all()
        if not same:
            return None
        h, w = map(int, self.sizes[0])
        return h, w, self.channels

    @property
    def bytes(self) -> int:
        """Of all images decoded."""
        return int(self.sizes.astype(np.int64).prod(1).sum()) * self.channels

    def subset(self, keep: np.ndarray, bad: Sequence[tuple[str, str]] = ()) -> "Source":
        """Only the examples whose index is in `keep`; `bad` joins the list of those left out."""
        return dataclasses.replace(
            self,
            items=[self.items[i] for i in keep],
            names=[self.names[i] for i in keep],
            sizes=self.sizes[keep],
            marks=None if self.marks is None else self.marks[keep],
            bad=[*self.bad, *bad],
        )


def open_source(
    spec: str,
    split: str = "train",
    *,
    data_dir: str | os.PathLike | None = None,
    channels: int = 0,
    on_bad: str = "error",
    min_size: int = 0,
    holdout: int = 0,
    size: int | tuple[int, int] | None = None,
) -> Source:
    """Opens a set of images and looks at the header of each.

    Args:
      spec: one of FORMS; the last is a source of your own (contracts.Source).
      split: of TFDS and hf, their own syntax ("train[:90%]"). Of others "train", "test" or "all";
        folders and arrays that are split already may have "val" too (see folder.py), of the rest
        every `holdout`-th image in sorted order is the test split. The photos have a fixed one.
      data_dir: where folders and the TFDS sets ("tfds" in it, or itself) are; by default the
        environment's AEJAX_DATA.
      channels: 1 gray, 3 RGB, 0 as stored (RGB as soon as one image is).
      on_bad: "error" or "skip" for images that are unreadable or smaller than `min_size`.
      size: resize on reading, see `decode.resize`.

    Raises:
      UserError: no such set, split or folder; bad images unless they are to be skipped.

    >>> source = open_source("bundled:digits", "test", holdout=10)
    >>> len(source), source.shape, source[0]["label"]
    (179, (8, 8, 1), 9)
    """
    if on_bad not in ("error", "skip"):
        raise UserError(f'data.on_bad = "{on_bad}"; it is error or skip')
    if channels not in (0, 1, 3):
        raise UserError(f"data.channels = {channels}; it is 1 (gray), 3 (RGB) or 0 (as stored)")
    data_dir = data_dir or os.environ.get("AEJAX_DATA") or None
    open_part, rest = opener(spec)
    source, bad = open_part(rest, split, Path(data_dir) if data_dir else None, holdout)
    source.name = f"{spec} {split}"
    return finished(source, bad, channels, on_bad, min_size, size)


def is_own(spec: str) -> bool:
    """Whether it names an attribute of a module: one with a dot in its name, or one there is."""
    module, colon, attribute = spec.partition(":")
    if not colon or not attribute or not all(p.isidentifier() for p in module.split(".")):
        return False
    return "." in module or importlib.util.find_spec(module) is not None


def opener(spec: str) -> tuple[Callable, str]:
    """What opens a "KIND:REST", and REST.

    Raises:
      UserError: no such kind.
    """
    kind, _, rest = spec.partition(":")
    if kind not in SOURCES and is_own(spec):
        return lookup("aejax.data.own:open_own_source", {}, "data source"), spec
    if kind not in SOURCES or not rest:
        raise UserError(
            f'data source "{spec}" is not one of {", ".join(FORMS)}'
            + (did_you_mean(kind, SOURCES) if kind not in SOURCES else "")
        )
    entry = SOURCES[kind]
    return lookup(entry, {}, "data source") if isinstance(entry, str) else entry, rest


def finished(
    source: Source,
    bad: dict[int, str],
    channels: int = 0,
    on_bad: str = "error",
    min_size: int = 0,
    size: int | tuple[int, int] | None = None,
) -> Source:
    """A source as its opener gave it, resized, without what is bad or too small; the arguments are
    those of `open_source`.

    Args:
      bad: {index: reason} of images that are known not to be readable.

    Raises:
      UserError: bad images unless they are to be skipped.
    """
    stored, source.size = source.sizes, size
    source.sizes = stored if size is None else _resized(stored, size)
    for i in np.flatnonzero((source.sizes.min(1) < min_size) & (stored.min(1) > 0)):
        h, w = source.sizes[i]
        bad[int(i)] = f"{h} x {w}, under the {min_size} needed"
    source = without(source, bad, on_bad)
    source.channels = channels or source.channels
    if source.key:
        source.key = hash_of(source.key, source.channels, size, source.bad)
    return source


def without(source: Source, reasons: dict[int, str], on_bad: str) -> Source:
    """The source without its bad images (index -> reason), or the error that names them."""
    if not reasons:
        return source
    bad = [(source.names[i], reason) for i, reason in sorted(reasons.items())]
    if on_bad == "error":
        raise UserError(
            f"{len(bad)} of {len(source)} images of {source.name} cannot be used: {_some(bad)}; "
            "remove them or set data.on_bad=skip"
        )
    if len(reasons) == len(source):
        raise UserError(f"no image of {source.name} can be used: {_some(bad)}")
    return source.subset(np.setdiff1d(np.arange(len(source)), list(reasons)), bad)


def _some(bad: Sequence[tuple[str, str]], most: int = 5) -> str:
    others = f" and {len(bad) - most} more" if len(bad) > most else ""
    return ", ".join(f"{name} ({reason})" for name, reason in bad[:most]) + others


def _resized(sizes: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    unique, back = np.unique(np.maximum(sizes, 1), axis=0, return_inverse=True)
    to = [decode.resized_shape(int(h), int(w), size) for h, w in unique]
    return np.array(to, np.int32)[back.ravel()]


def holdout_rows(n: int, split: str, holdout: int, name: str) -> np.ndarray:
    """Indices of the "train", "test" or "all" part of n images in sorted order."""
    i = np.arange(n)
    if split == "all" or (split == "train" and not holdout):
        return i
    if split not in ("train", "test"):
        raise UserError(f'{name} has no split "{split}"; it has train, test and all')
    if not 1 < holdout <= n:
        raise UserError(f"{name} has {n} images: data.holdout = {holdout} leaves no {split} split")
    held = i % holdout == holdout - 1
    return i[held] if split == "test" else i[~held]


def measured(source: Source, heads: list) -> dict[int, str]:
    """Fills in sizes and channels from headers (h, w, c) or reasons why there is none.

    Returns:
      {index: reason} of the bad ones.
    """
    good = [i for i, h in enumerate(heads) if not isinstance(h, str)]
    if good:
        shapes = np.array([heads[i] for i in good], np.int32)
        source.sizes[good], source.channels = shapes[:, :2], int(shapes[:, 2].max())
    return {i: h for i, h in enumerate(heads) if isinstance(h, str)}


def head_of(data: Path | bytes, name: str) -> tuple[int, int, int] | str:
    """(h, w, c) of a picture by its header, or the reason why it cannot be used."""
    try:
        return images.header(data, name)
    except BadImage as e:
        return e.reason
    except UserError as e:  # a link to nowhere
        return str(e)


def usual_name(split: str) -> str:
    """The usual name of a split: "train", "val" or "test" for its synonyms in any case."""
    return SPLITS.get(split.lower(), split)


def named_split(split: str, there: Sequence[str], where: str) -> tuple[str, bool]:
    """Which of the splits that a set has is meant by `split`, one of its own or a synonym.

    Args:
      there: usual names (see `usual_name`) of those that it has.
      where: the set, for the error.

    Returns:
      (that split, whether the other side has to be held out of it, as it is the only one).

    Raises:
      UserError: it has none that could be meant.
    """
    kind = usual_name(split)
    if len(there) == 1 and kind in SPLITS:
        return there[0], True
    if kind in ("val", "test") and kind not in there:  # there is only one to evaluate on
        kind = next((k for k in ("test", "val") if k in there), kind)
    if kind not in there:
        raise UserError(f'{where} has no split "{split}"; it has {", ".join(there)} and all')
    return kind, False


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, ... 21st."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def mark(data: bytes | memoryview) -> int:
    """64 bits of a content's hash, as `Source.marks` has them."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# KIND of "KIND:REST" -> opener(REST, split, data_dir, holdout) -> (Source, {index: why it is bad}),
# or its dotted name. A kind of your own is a Source with `_decode(i, item)` and one line here.
SOURCES: dict[str, str | Callable] = {
    "tfds": "aejax.data.tfds:open_tfds",
    "folder": "aejax.data.folder:open_folder",
    "bundled": "aejax.data.bundled:open_bundled",
    "arrays": "aejax.data.arrays:open_arrays",
    "hf": "aejax.data.hub:open_hub",
    "packed": "aejax.data.packed:open_packed",
    "memory": "aejax.data.arrays:open_memory",
}
FORMS = (
    "folder:PATH",
    "tfds:NAME",
    "hf:NAME",
    "arrays:FILE.npy",
    "arrays:FILE.npz",
    "packed:PATH",
    "bundled:digits",
    "bundled:photos",
    "package.module:Class",
)
