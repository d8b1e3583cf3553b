"""Data sources: images and labels by index, checked when they are opened.

`open_source("KIND:ADDRESS", split)` calls the opener of that kind in SOURCES. splits.py opens the
training and the test split together.
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
    """Images and labels by index. It pickles without open files; each process opens its own.

    Attributes:
      name: the spec and split that it was opened with.
      items: what a subclass needs to find each image.
      names: of the images, in errors and captions.
      sizes: int32 [n, 2], height and width in pixels of each image as `read` returns it.
      channels: 1 or 3, the same for all images.
      class_names: empty if the set has no labels, which are -1 then.
      size: resize on reading, see `decode.resize`.
      fingerprint: hash of the content; the same on every machine.
      key: name of the decoded copy in the cache; changes whenever pixels may have changed on this
        machine. "" = keep no copy.
      bad: (name, reason) of each image that was left out.
      part: how the split was chosen, for the user: "every 20th held out", "train/".
      outside: names of the images of the set that are not in this split, by folder or split.
      hashes: uint64 [n], hashes of the contents, by which images in two splits are found; None if
        unknown.
      at_least: see `images.read_image`; used with `size` only.

    Subclasses define `_decode`, and `_fetch` if several items are read faster together.

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
    outside: dict[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    hashes: np.ndarray | None = None
    at_least: int = 0

    on_disk: ClassVar[bool] = True  # whether a decoded copy is stored in the cache folder
    checked: ClassVar[bool] = False  # whether all images are known to be undamaged

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
        """(image, label) of each row as `read` returns it, or the reason why it cannot be
        decoded."""
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
            raise BadImage(self.names[i], f"{x.shape[:2]} is not the size in its header")
        return x, label

    def _fetch(self, rows: Sequence[int]) -> list:
        """The stored (encoded) data of these rows."""
        return [self.items[i] for i in rows]

    def _decode(self, i: int, item: Any) -> tuple[np.ndarray, int]:
        """(uint8 [h, w, 1..4], label) of the fetched `item` of row i."""
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
        """Size of all images together, decoded."""
        return int(self.sizes.astype(np.int64).prod(1).sum()) * self.channels

    def subset(self, keep: np.ndarray, bad: Sequence[tuple[str, str]] = ()) -> "Source":
        """The examples with the indices `keep`. `bad` is appended to the list of left out
        images."""
        return dataclasses.replace(
            self,
            items=[self.items[i] for i in keep],
            names=[self.names[i] for i in keep],
            sizes=self.sizes[keep],
            hashes=None if self.hashes is None else self.hashes[keep],
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
    """Opens a data source and reads the header of every image.

    Args:
      spec: one of FORMS; the last is a source of your own (contracts.Source).
      split: "tfds" and "hf" take their own syntax ("train[:90%]"), others "train", "test", "all",
        and "val" where folders or arrays are split already (see folder.py). Without given splits
        every `holdout`-th image in sorted order is the test split; "bundled:photos" has fixed ones.
      data_dir: root of relative paths and, or in its folder "tfds", of TFDS sets; default: the
        environment variable AEJAX_DATA.
      channels: 1 = gray, 3 = RGB, 0 = as stored (RGB if any image is).
      on_bad: "error" or "skip" for images that are unreadable or smaller than `min_size`.
      size: resize on reading, see `decode.resize`.

    Raises:
      UserError: no such set, split or folder; bad images unless they are skipped.

    >>> source = open_source("bundled:digits", "test", holdout=10)
    >>> len(source), source.shape, source[0]["label"]
    (179, (8, 8, 1), 9)
    """
    if on_bad not in ("error", "skip"):
        raise UserError(f'data.on_bad = "{on_bad}"; it is error or skip')
    if channels not in (0, 1, 3):
        raise UserError(f"data.channels = {channels}; it is 1 (gray), 3 (RGB) or 0 (as stored)")
    data_dir = data_dir or os.environ.get("AEJAX_DATA") or None
    open_split, address = opener(spec)
    source, bad = open_split(address, split, Path(data_dir) if data_dir else None, holdout)
    source.name = f"{spec} {split}"
    return prepared(source, bad, channels, on_bad, min_size, size)


def is_own(spec: str) -> bool:
    """Whether a spec is "module:attribute" of a source of the user's own: the module has a dot in
    its name, or it can be found."""
    module, colon, attribute = spec.partition(":")
    if not colon or not attribute or not all(p.isidentifier() for p in module.split(".")):
        return False
    return "." in module or importlib.util.find_spec(module) is not None


def opener(spec: str) -> tuple[Callable, str]:
    """(opener, ADDRESS) of a spec "KIND:ADDRESS"; see SOURCES.

    Raises:
      UserError: unknown kind.
    """
    kind, _, address = spec.partition(":")
    if kind not in SOURCES and is_own(spec):
        return lookup("aejax.data.own:open_own_source", {}, "data source"), spec
    if kind not in SOURCES or not address:
        raise UserError(
            f'data source "{spec}" is not one of {", ".join(FORMS)}'
            + (did_you_mean(kind, SOURCES) if kind not in SOURCES else "")
        )
    entry = SOURCES[kind]
    return lookup(entry, {}, "data source") if isinstance(entry, str) else entry, address


def prepared(
    source: Source,
    bad: dict[int, str],
    channels: int = 0,
    on_bad: str = "error",
    min_size: int = 0,
    size: int | tuple[int, int] | None = None,
) -> Source:
    """Applies the arguments of `open_source` to the result of an opener: sets size and channels,
    and leaves out bad and too small images.

    Args:
      bad: {index: reason} of images whose header cannot be read.

    Raises:
      UserError: bad images unless they are skipped.
    """
    stored, source.size = source.sizes, size
    source.sizes = stored if size is None else _resized(stored, size)
    for i in np.flatnonzero((source.sizes.min(1) < min_size) & (stored.min(1) > 0)):
        h, w = source.sizes[i]
        bad[int(i)] = f"{h} x {w}, under the {min_size} needed"
    source = without_bad(source, bad, on_bad)
    source.channels = channels or source.channels
    if source.key:
        source.key = hash_of(source.key, source.channels, size, source.bad)
    return source


def without_bad(source: Source, reasons: dict[int, str], on_bad: str) -> Source:
    """The source without bad images ({index: reason}), or with on_bad="error" an error that names
    them."""
    if not reasons:
        return source
    bad = [(source.names[i], reason) for i, reason in sorted(reasons.items())]
    if on_bad == "error":
        raise UserError(
            f"{len(bad)} of {len(source)} images of {source.name} cannot be used: {_listed(bad)}; "
            "remove them or set data.on_bad=skip"
        )
    if len(reasons) == len(source):
        raise UserError(f"no image of {source.name} can be used: {_listed(bad)}")
    return source.subset(np.setdiff1d(np.arange(len(source)), list(reasons)), bad)


def _listed(bad: Sequence[tuple[str, str]], limit: int = 5) -> str:
    others = f" and {len(bad) - limit} more" if len(bad) > limit else ""
    return ", ".join(f"{name} ({reason})" for name, reason in bad[:limit]) + others


def _resized(sizes: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    unique, inverse = np.unique(np.maximum(sizes, 1), axis=0, return_inverse=True)
    to = [decode.resized_shape(int(h), int(w), size) for h, w in unique]
    return np.array(to, np.int32)[inverse.ravel()]


def holdout_rows(n: int, split: str, holdout: int, name: str) -> np.ndarray:
    """Indices of the "train", "test" or "all" split of n images; every `holdout`-th is a test
    image."""
    i = np.arange(n)
    if split == "all" or (split == "train" and not holdout):
        return i
    if split not in ("train", "test"):
        raise UserError(f'{name} has no split "{split}"; it has train, test and all')
    if not 1 < holdout <= n:
        raise UserError(f"{name} has {n} images: data.holdout = {holdout} leaves no {split} split")
    held = i % holdout == holdout - 1
    return i[held] if split == "test" else i[~held]


def set_sizes(source: Source, headers: list) -> dict[int, str]:
    """Sets sizes and channels of a source from headers: (h, w, c), or the reason of a bad image.

    Returns:
      {index: reason} of the bad images.
    """
    good = [i for i, h in enumerate(headers) if not isinstance(h, str)]
    if good:
        shapes = np.array([headers[i] for i in good], np.int32)
        source.sizes[good], source.channels = shapes[:, :2], int(shapes[:, 2].max())
    return {i: h for i, h in enumerate(headers) if isinstance(h, str)}


def read_header(data: Path | bytes, name: str) -> tuple[int, int, int] | str:
    """(h, w, c) of an image file from its header, or the reason why it cannot be used."""
    try:
        return images.header(data, name)
    except BadImage as e:
        return e.reason
    except UserError as e:  # a broken link
        return str(e)


def canonical_split(split: str) -> str:
    """The usual name of a split: "train", "val" or "test" for their synonyms, in any case.

    >>> canonical_split("Validation")
    'val'
    """
    return SPLITS.get(split.lower(), split)


def find_split(split: str, available: Sequence[str], name: str) -> tuple[str, bool]:
    """The split of a set that `split` refers to.

    Args:
      split: a name of a split or a synonym.
      available: canonical names (see `canonical_split`) of the splits that the set has.
      name: of the set, for the error.

    Returns:
      (canonical name, whether it is the only split, so that a test split must be held out of it).

    Raises:
      UserError: no such split.
    """
    kind = canonical_split(split)
    if len(available) == 1 and kind in SPLITS:
        return available[0], True
    if kind in ("val", "test") and kind not in available:  # take the one of both that exists
        kind = next((k for k in ("test", "val") if k in available), kind)
    if kind not in available:
        raise UserError(f'{name} has no split "{split}"; it has {", ".join(available)} and all')
    return kind, False


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, ... 21st."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def content_hash(data: bytes | memoryview) -> int:
    """The first 64 bits of the SHA-256 of some data, as in `Source.hashes`."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# KIND of "KIND:ADDRESS" -> a function (ADDRESS, split, data_dir, holdout) -> (Source, {index:
# reason of a bad image}), or its dotted name. A new kind is a subclass of Source and a line here.
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
