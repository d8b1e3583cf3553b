"""Where images come from: a TensorFlow Datasets set, a folder, or what the installed wheels carry.

A `Source` is a sequence of uint8 images [h, w, c] with labels, checked before anything is trained
on it. `Decoded` is the same sequence decoded once, in a flat file that is mapped into memory.
"""

import collections
import contextlib
import dataclasses
import errno
import hashlib
import importlib.util
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from aejax.data import decode
from aejax.data.decode import BadImage
from aejax.data.own import is_own, open_own
from aejax.errors import UserError
from aejax.registry import did_you_mean

_VERSION = "2"  # of what is kept: raise it when a decoded pixel, or its form, may change

# Colour photographs inside the wheels of scikit-image, scikit-learn and matplotlib.
_PHOTOS = {
    "skimage": "data/{}",
    "sklearn": "datasets/images/{}",
    "matplotlib": "mpl-data/sample_data/{}",
}
_PHOTOS_TRAIN = {
    "astronaut.png": "skimage",
    "china.jpg": "sklearn",
    "grace_hopper.jpg": "matplotlib",
    "hubble_deep_field.jpg": "skimage",
    "ihc.png": "skimage",
    "motorcycle_left.png": "skimage",
    "retina.jpg": "skimage",
    "rocket.jpg": "skimage",
}
_PHOTOS_TEST = {"chelsea.png": "skimage", "coffee.png": "skimage", "flower.jpg": "sklearn"}


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
      key: changes whenever a pixel may have changed on this machine.
      bad: (name, reason) of each image left out.
    """

    name: str
    items: Sequence
    names: Sequence[str]
    sizes: np.ndarray
    channels: int
    class_names: tuple[str, ...] = ()
    size: int | tuple[int, int] | None = None
    fingerprint: str = ""
    key: str = ""
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)

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
        found: list[tuple[np.ndarray, int] | str] = []
        for i, item in zip(rows, self._fetch(rows), strict=True):
            try:
                found.append(self._finish(i, item))
            except BadImage as e:
                found.append(e.reason)
        return found

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
        return (*map(int, self.sizes[0]), self.channels) if same else None

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
            bad=[*self.bad, *bad],
        )


@dataclasses.dataclass
class _Files(Source):
    """items: (path, label)."""

    def _decode(self, i, item):
        return decode.read_image(item[0], name=self.names[i])[0], item[1]


@dataclasses.dataclass
class _Arrays(Source):
    """items: (uint8 array [h, w, c], label)."""

    def _decode(self, i, item):
        return item


@dataclasses.dataclass
class _Tfds(Source):
    """items: record numbers. The reader is opened in the process that reads."""

    opener: Callable | None = None
    features: tuple[str, str | None] = ("image", None)

    def _fetch(self, rows):
        if "_reader" not in self.__dict__:
            self._reader = self.opener()
        return self._reader.__getitems__([int(self.items[i]) for i in rows])

    def _decode(self, i, item):
        image, label = self.features
        x = decode.read_image(item[image], name=self.names[i])[0]
        return x, int(item[label]) if label else -1

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_reader"}


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
      spec: "tfds:NAME", "folder:PATH", "bundled:digits", "bundled:photos", or a source of your
        own, "package.module:Class" (contracts.Source).
      split: of TFDS, its own syntax ("train[:90%]"). Of others "train", "test" or "all": a
        sub-folder of that name if there is one, else every `holdout`-th image in sorted order is
        the test split. The photos have a fixed one.
      data_dir: where folders and the TFDS sets ("tfds" in it, or itself) are; by default the
        environment's AEJAX_DATA.
      channels: 1 gray, 3 RGB, 0 as stored (RGB as soon as one image is).
      on_bad: "error" or "skip" for images that are unreadable or smaller than `min_size`.
      size: resize on reading, see `decode.resize`.

    Raises:
      UserError: no such set, split or folder; bad images unless they are to be skipped.
    """
    if on_bad not in ("error", "skip"):
        raise UserError(f'data.on_bad = "{on_bad}"; it is error or skip')
    if channels not in (0, 1, 3):
        raise UserError(f"data.channels = {channels}; it is 1 (gray), 3 (RGB) or 0 (as stored)")
    data_dir = data_dir or os.environ.get("AEJAX_DATA") or None
    kind, _, rest = spec.partition(":")
    if kind not in SOURCES and is_own(spec):
        kind, rest = "own", spec
    if kind not in SOURCES or not rest:
        raise UserError(
            f'data source "{spec}" is not tfds:NAME, folder:PATH, bundled:digits, bundled:photos '
            "or package.module:Class" + (did_you_mean(kind, SOURCES) if kind not in SOURCES else "")
        )
    source, found = SOURCES[kind](rest, split, Path(data_dir) if data_dir else None, holdout)
    source.name = f"{spec} {split}"
    stored, source.size = source.sizes, size
    source.sizes = stored if size is None else _resized(stored, size)
    for i in np.flatnonzero((source.sizes.min(1) < min_size) & (stored.min(1) > 0)):
        h, w = source.sizes[i]
        found[int(i)] = f"{h} x {w}, under the {min_size} needed"
    source = _without(source, found, on_bad)
    source.channels = channels or source.channels
    source.key = _hash(source.key, source.channels, size, source.bad)
    return source


def _without(source: Source, found: dict[int, str], on_bad: str) -> Source:
    """The source without the images `found` bad (index -> reason), or the error that says so."""
    if not found:
        return source
    bad = [(source.names[i], reason) for i, reason in sorted(found.items())]
    if on_bad == "error":
        raise UserError(
            f"{len(bad)} of {len(source)} images of {source.name} cannot be used: {_some(bad)}; "
            "remove them or set data.on_bad=skip"
        )
    if len(found) == len(source):
        raise UserError(f"no image of {source.name} can be used: {_some(bad)}")
    return source.subset(np.setdiff1d(np.arange(len(source)), list(found)), bad)


def _some(bad: Sequence[tuple[str, str]], most: int = 5) -> str:
    more = f" and {len(bad) - most} more" if len(bad) > most else ""
    return ", ".join(f"{name} ({reason})" for name, reason in bad[:most]) + more


def _resized(sizes: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    unique, back = np.unique(np.maximum(sizes, 1), axis=0, return_inverse=True)
    to = [decode.resized_shape(int(h), int(w), size) for h, w in unique]
    return np.array(to, np.int32)[back.ravel()]


def _hash(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:20]


def _holdout(n: int, split: str, holdout: int, name: str) -> np.ndarray:
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


# --- folders --------------------------------------------------------------------------------------


def _open_folder(path: str, split: str, data_dir: Path | None, holdout: int):
    given = Path(path).expanduser()
    tried = [p for p in (data_dir and data_dir / given, given) if p]  # an absolute path stays so
    root = next((p for p in tried if p.is_dir()), None)
    if root is None:
        where = " or ".join(dict.fromkeys(str(p.absolute()) for p in tried))
        raise UserError(f'no folder "{path}": looked for {where}')
    if (root / split).is_dir():
        root, split = root / split, "all"
    names = []
    for folder, inside, files in os.walk(root, followlinks=True):
        inside[:] = [d for d in inside if not d.startswith((".", "__"))]
        files = [f for f in files if f.lower().endswith(decode.SUFFIXES) and f[0] != "."]
        names += [os.path.relpath(os.path.join(folder, f), root) for f in files]
    names = sorted(n.replace(os.sep, "/") for n in names)
    if not names:
        raise UserError(f"no images in {root}; read are {' '.join(decode.SUFFIXES)}")
    firsts = {n.split("/")[0] if "/" in n else "" for n in names}
    classes = [] if "" in firsts else sorted(firsts)
    kept = [names[i] for i in _holdout(len(names), split, holdout, str(root))]
    return _open_files([root / n for n in kept], kept, classes)


def _open_files(paths: list[Path], names: list[str], classes: Sequence[str] = ()):
    """A source of files; if there are classes, the first part of a name is one."""
    labels = {c: i for i, c in enumerate(classes)}
    key = _hash(_VERSION, [(str(p.absolute()), *_stat(p)) for p in paths])
    with _remembered(f"scan-{key}") as memory:
        if not memory:
            with ThreadPoolExecutor() as pool:
                memory["marks"] = _hash(names, list(pool.map(_mark, paths)))
                memory["heads"] = list(pool.map(_head, paths, names))
    source = _Files(
        name="",
        items=[(p, labels.get(n.split("/")[0], -1)) for p, n in zip(paths, names, strict=True)],
        names=names,
        sizes=np.zeros((len(paths), 2), np.int32),
        channels=0,
        class_names=tuple(classes),
        fingerprint=memory["marks"],
        key=key,
    )
    return source, _measured(source, memory["heads"])


def _measured(source: Source, heads: list) -> dict[int, str]:
    """Fills in sizes and channels from headers (h, w, c); returns {index: reason} of bad ones."""
    good = [i for i, h in enumerate(heads) if not isinstance(h, str)]
    if good:
        found = np.array([heads[i] for i in good], np.int32)
        source.sizes[good], source.channels = found[:, :2], int(found[:, 2].max())
    return {i: h for i, h in enumerate(heads) if isinstance(h, str)}


def _head(data: Path | bytes, name: str) -> tuple[int, int, int] | str:
    try:
        return decode.header(data, name)
    except BadImage as e:
        return e.reason
    except UserError as e:  # a link to nowhere
        return str(e)


def _stat(path: Path) -> tuple[int, int]:
    try:
        return (s := path.stat()).st_size, s.st_mtime_ns
    except OSError:
        return 0, 0


def _mark(path: Path) -> str:
    """Tells a file's content from another's by its length and both its ends."""
    try:
        with open(path, "rb") as f:
            ends, length = f.read(4096), f.seek(0, os.SEEK_END)
            f.seek(-min(4096, length), os.SEEK_END)
            return hashlib.sha256(ends + f.read() + str(length).encode()).hexdigest()[:16]
    except OSError as e:
        return str(e.errno)


# --- bundled --------------------------------------------------------------------------------------


def _open_bundled(name: str, split: str, data_dir: Path | None, holdout: int):
    if name == "photos":
        parts = {"train": _PHOTOS_TRAIN, "test": _PHOTOS_TEST}
        parts["all"] = dict(sorted((parts["train"] | parts["test"]).items()))
        if split not in parts:
            raise UserError(f'bundled:photos has no split "{split}"; it has train, test and all')
        paths = [_wheel(package, file) for file, package in parts[split].items()]
        paths = [p for p in paths if p.is_file()]
        if not paths:
            raise UserError("bundled:photos: the installed scikit-image carries no photographs")
        return _open_files(paths, [p.name for p in paths])
    if name != "digits":
        raise UserError(f'no bundled set "{name}"{did_you_mean(name, ("digits", "photos"))}')
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    rows = _holdout(len(images), split, holdout or 5, "bundled:digits")
    source = _Arrays(
        name="bundled:digits",
        items=[(images[i], int(data.target[i])) for i in rows],
        names=[str(i) for i in rows],
        sizes=np.full((len(rows), 2), 8, np.int32),
        channels=1,
        class_names=tuple("0123456789"),
        fingerprint=hashlib.sha256(images[rows].tobytes()).hexdigest()[:20],
    )
    source.key = source.fingerprint
    return source, {}


def _wheel(package: str, file: str) -> Path:
    """A data file of an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    folder = Path(spec.submodule_search_locations[0]) if spec else Path("/nonexistent")
    return folder / _PHOTOS[package].format(file)


# --- TensorFlow Datasets --------------------------------------------------------------------------


def tfds_root(data_dir: Path | None) -> Path | None:
    """The folder that holds TFDS sets; None for TFDS's own default."""
    return data_dir and (data_dir / "tfds" if (data_dir / "tfds").is_dir() else data_dir)


@dataclasses.dataclass(frozen=True)
class _TfdsOpener:
    name: str
    split: str
    root: str | None
    image: str

    def __call__(self):
        tfds = _tfds()
        skip = {self.image: tfds.decode.SkipDecoding()}  # the bytes: decoded as all others are
        return tfds.data_source(
            self.name, split=self.split, data_dir=self.root, decoders=skip, download=False
        )


def _tfds():
    import tensorflow_datasets as tfds

    absl = logging.getLogger("absl")  # array_record warns of harmless group sizes, TFDS of OpenCV
    if _talk not in absl.filters:
        absl.addFilter(_talk)
    return tfds


def _talk(record: logging.LogRecord) -> bool:
    return not any(s in str(record.msg) for s in ("group size", "OpenCV is not installed"))


def _open_tfds(name: str, split: str, data_dir: Path | None, holdout: int):
    tfds, root = _tfds(), tfds_root(data_dir)
    where = str(root or "~/tensorflow_datasets")
    build = (
        f"python -c \"import tensorflow_datasets as tfds; tfds.data_source('{name}', "
        f"data_dir='{where}')\""
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a banner that TensorFlow is missing
            builder = tfds.builder(name, data_dir=root and str(root))
    except tfds.core.registered.DatasetNotFoundError:
        near = did_you_mean(name, tfds.list_builders(with_community_datasets=False))
        near = near if near.startswith("; did") else ""
        raise UserError(f'TensorFlow Datasets has no set "{name}"{near}') from None
    except (AssertionError, ValueError, ImportError) as e:
        raise UserError(f"tfds:{name}: {str(e).splitlines()[0]}") from e
    if not builder.info.splits:
        raise UserError(f"tfds:{name} is not prepared in {where}; once: {build}")
    image, label = _tfds_features(tfds, builder.info.features, name)
    opener = _TfdsOpener(name, split, root and str(root), image)
    try:
        n = len(reader := opener())
    except NotImplementedError as e:
        raise UserError(
            f"tfds:{name} in {where} is prepared as {builder.info.file_format.name.lower()}, not "
            f"as array_record; move it away and prepare it again, once: {build}"
        ) from e
    except (ValueError, AssertionError, KeyError) as e:
        splits = ", ".join(f"{k} ({v.num_examples})" for k, v in builder.info.splits.items())
        raise UserError(f'tfds:{name} has no split "{split}"; it has {splits}') from e
    if n == 0:
        raise UserError(f'the split "{split}" of tfds:{name} is empty')
    info = [(k, v.num_examples, v.num_bytes) for k, v in builder.info.splits.items()]
    fingerprint = _hash(builder.info.full_name, split, info)
    files = sorted(Path(builder.data_dir).glob("*"))
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    h, w, c = builder.info.features[image].shape
    source = _Tfds(
        name=f"tfds:{name}",
        items=np.arange(n),
        names=_Numbered(name, n),
        sizes=np.zeros((n, 2), np.int32),
        channels=1 if c == 1 else 3,
        class_names=tuple(builder.info.features[label].names) if label else (),
        fingerprint=fingerprint,
        key=_hash(_VERSION, fingerprint, stats),
        opener=opener,
        features=(image, label),
    )
    if h and w:
        source.sizes[:] = h, w
        return source, {}
    with _remembered(f"scan-{source.key}") as memory:
        if not memory:
            memory["heads"] = [_head(reader[i][image], source.names[i]) for i in range(n)]
    return source, _measured(source, memory["heads"])


def _tfds_features(tfds, features, name: str) -> tuple[str, str | None]:
    """The names of the image and (or None) the label among a set's features."""
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    images = [k for k in images if features[k].np_dtype in (np.uint8, np.uint16)]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not images:
        raise UserError(f"tfds:{name} has no images; its features are {', '.join(features)}")
    first = "image" if "image" in images else images[0]
    return first, "label" if "label" in labels else (labels[0] if labels else None)


@dataclasses.dataclass(frozen=True)
class _Numbered(Sequence):
    """The names NAME[0], NAME[1], ... without a list of them."""

    name: str
    n: int

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return f"{self.name}[{range(self.n)[i]}]"


# --- decoded once ---------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where decoded copies are kept: AEJAX_CACHE, else aejax in the user's cache folder. All in it
    may be deleted at any time that no run is using it."""
    if os.environ.get("AEJAX_CACHE"):
        return Path(os.environ["AEJAX_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aejax"


@contextlib.contextmanager
def _remembered(name: str) -> Iterator[dict]:
    """A dict kept in the cache folder; a folder that cannot be written only forgets."""
    path = cache_dir() / f"{name}.json"
    try:
        memory = json.loads(path.read_text())
    except (OSError, ValueError):
        memory = {}
    known = bool(memory)
    yield memory
    if not known:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(memory))
            os.replace(part, path)


@dataclasses.dataclass
class Decoded:
    """A source's images in one flat uint8 array (a memory map, or memory): read by slicing."""

    source: Source
    data: np.ndarray
    labels: np.ndarray  # int32 [n]

    def __post_init__(self):
        lengths = self.source.sizes.astype(np.int64).prod(1) * self.source.channels
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    def read(self, i: int) -> tuple[np.ndarray, int]:
        """(uint8 [h, w, c], label): a view, nothing is copied."""
        flat = self.data[self.starts[i] : self.starts[i + 1]]
        return flat.reshape(*self.source.sizes[i], self.source.channels), int(self.labels[i])


def decoded(source: Source, on_bad: str = "error", on_disk: bool = True) -> Decoded:
    """Decodes every image once, so that each is known to be whole. On disk the result is kept and
    the next call only maps it. `Decoded.source` lacks the images that are skipped.

    Raises:
      UserError: images that cannot be decoded (unless skipped), or a full disk.
    """
    if not on_disk or isinstance(source, _Arrays):
        images: list[np.ndarray] = []
        labels, found = _read_all(source, lambda x: images.append(x.ravel()))
        source = _without(source, found, on_bad)
        return Decoded(source, np.concatenate(images), labels)
    folder = cache_dir() / "decoded"
    data, index = folder / f"{source.key}.u8", folder / f"{source.key}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{source.key}.lock"):
            if not (index.exists() and data.exists()):
                _decode_to(data, index, source)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(source, folder) from e
        raise UserError(
            f"cannot write {folder} ({e.strerror or e}); set AEJAX_CACHE to a folder that can be "
            "written, or data.cache=stream"
        ) from e
    with np.load(index) as kept:
        labels = kept["labels"]
        found = dict(zip(kept["bad"].tolist(), kept["why"].tolist(), strict=True))
    return Decoded(_without(source, found, on_bad), np.memmap(data, np.uint8, "r"), labels)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Of two processes of one machine one decodes and the other waits for it."""
    try:
        import fcntl
    except ImportError:  # not a Unix: both decode, the last one's file stays
        yield
        return
    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _decode_to(data: Path, index: Path, source: Source) -> None:
    if source.bytes + (64 << 20) > shutil.disk_usage(data.parent).free:
        raise _no_room(source, data.parent)
    if len(source) > 5000 or source.bytes > 64 << 20:  # some seconds, or many
        size = f"{source.bytes / 2**20:,.0f} MiB"
        print(f"decoding {source.name} once: {len(source):,} images, {size}, into {data.parent}",
              file=sys.stderr)  # fmt: skip
    part = data.with_suffix(f".{os.getpid()}")
    try:
        with open(part, "wb") as f:  # written, not mapped: a full disk is an error then, no SIGBUS
            labels, found = _read_all(source, lambda x: f.write(np.ascontiguousarray(x).data))
        os.replace(part, data)
        with open(part, "wb") as f:
            why = np.array(list(found.values()), np.str_)
            np.savez(f, labels=labels, bad=np.array(list(found), np.int64), why=why)
        os.replace(part, index)
    finally:
        part.unlink(missing_ok=True)


def _no_room(source: Source, folder: Path) -> UserError:
    return UserError(
        f"the disk of {folder} has no room for {source.bytes / 1e9:.1f} GB of decoded images; "
        "free some, set AEJAX_CACHE to a folder on another disk, or data.cache=stream"
    )


def verify(source: Source, on_bad: str = "error") -> Source:
    """Decodes every file of a source that will be streamed once, and remembers what it found.
    TFDS sets, which their builder wrote, are taken as they are. Returns what is whole.

    Raises:
      UserError: images that cannot be decoded, unless skipped.
    """
    if not isinstance(source, _Files):
        return source
    with _remembered(f"whole-{source.key}") as memory:
        if not memory:
            memory["bad"] = _read_all(source, lambda x: None)[1]
    return _without(source, {int(i): why for i, why in memory["bad"].items()}, on_bad)


def _read_all(source: Source, put: Callable[[np.ndarray], object]):
    """Puts every image that can be decoded, in order, decoded by threads a few ahead.

    Returns:
      int32 labels of these, and {index: reason} of the others.
    """
    labels, found, done = [], {}, 0
    n = len(source)
    chunk = int(np.clip((8 << 20) * n // max(source.bytes, 1), 1, 64))  # images, of some 8 MiB
    with ThreadPoolExecutor(threads := os.cpu_count() or 1) as pool:
        ahead = collections.deque()
        for first in range(0, n + 2 * threads * chunk, chunk):
            if first < n:
                ahead.append(pool.submit(source.read_chunk, range(first, min(first + chunk, n))))
            if first >= 2 * threads * chunk and ahead:
                for result in ahead.popleft().result():
                    if isinstance(result, str):
                        found[done] = result
                    else:
                        put(result[0])
                        labels.append(result[1])
                    done += 1
    return np.array(labels, np.int32), found


def _open_own(spec: str, split: str, data_dir: Path | None, holdout: int):
    items, about = open_own(spec, split)
    names = [str(i) for i in range(len(items))]
    return _Arrays(name=spec, items=items, names=names, key=about["fingerprint"], **about), {}


# KIND of "KIND:REST" -> opener(REST, split, data_dir, holdout) -> (Source, {index: why it is bad}).
# "own" is not written: "package.module:Class" is of that kind.
SOURCES = {
    "tfds": _open_tfds,
    "folder": _open_folder,
    "bundled": _open_bundled,
    "own": _open_own,
}
