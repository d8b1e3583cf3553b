"""Data sets of TensorFlow Datasets ("tfds:NAME"), read without TensorFlow.

They must be prepared as array_record; the error for a missing set has the command.
"""

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aejax.data import images
from aejax.data.cache import VERSION, hash_of, remembered
from aejax.data.source import Source, content_hash, read_header, set_sizes
from aejax.errors import UserError
from aejax.registry import did_you_mean


@dataclasses.dataclass(kw_only=True)
class Tfds(Source):
    """A source of a TFDS set: `items` are record numbers. Each process opens its own reader.

    `features` are the names of the image and of the label (or None).
    """

    checked: ClassVar[bool] = True

    opener: Callable
    features: tuple[str, str | None] = ("image", None)

    def _fetch(self, rows):
        if "_reader" not in self.__dict__:
            self._reader = self.opener()
        return self._reader.__getitems__([int(self.items[i]) for i in rows])

    def _decode(self, i, item):
        image, label = self.features
        x = images.read_image(item[image], name=self.names[i])[0]
        return x, int(item[label]) if label else -1

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_reader"}


def tfds_root(data_dir: Path | None) -> Path | None:
    """The folder of the TFDS sets; None = the default of TFDS."""
    return data_dir and (data_dir / "tfds" if (data_dir / "tfds").is_dir() else data_dir)


@dataclasses.dataclass(frozen=True)
class _TfdsOpener:
    name: str
    split: str
    root: str | None
    image: str

    def __call__(self) -> Any:
        """A sequence of records, each {feature: value}."""
        tfds = _tfds()
        skip: Any = {self.image: tfds.decode.SkipDecoding()}  # images.py decodes the bytes
        return tfds.data_source(
            self.name, split=self.split, data_dir=self.root, decoders=skip, download=False
        )


def _tfds():
    import tensorflow_datasets as tfds

    absl = logging.getLogger("absl")
    if _is_relevant not in absl.filters:
        absl.addFilter(_is_relevant)
    return tfds


def _is_relevant(record: logging.LogRecord) -> bool:
    """False for warnings of array_record about its group size and of TFDS about OpenCV."""
    return not any(s in str(record.msg) for s in ("group size", "OpenCV is not installed"))


def open_tfds(name: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {index: reason}) of a split in TFDS's syntax; see `aejax.data.source.SOURCES`."""
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
    opener = _TfdsOpener(name, split, str(root) if root else None, image)
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
    fingerprint = hash_of(builder.info.full_name, split, info)
    files = sorted(Path(builder.data_dir).glob("*"))
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    h, w, c = builder.info.features[image].shape
    source = Tfds(
        name=f"tfds:{name}",
        items=np.arange(n),
        names=_Numbered(name, n),
        sizes=np.zeros((n, 2), np.int32),
        channels=1 if c == 1 else 3,
        class_names=tuple(builder.info.features[label].names) if label else (),
        fingerprint=fingerprint,
        key=hash_of(VERSION, fingerprint, stats),
        part=split,
        hashes=_record_hashes(tfds, builder.info, split),
        opener=opener,
        features=(image, label),
    )
    if h and w:
        source.sizes[:] = h, w
        return source, {}
    with remembered(f"scan-{source.key}") as memory:
        if not memory:
            memory["heads"] = [read_header(reader[i][image], source.names[i]) for i in range(n)]
    return source, set_sizes(source, memory["heads"])


def _record_hashes(tfds, info, split: str) -> np.ndarray:
    """uint64 [n], equal only for the same record of the same set. The content is not hashed, so
    duplicates between the splits of a published set are not found."""
    hashes = []
    for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(info.splits):
        first = np.uint64(content_hash(f"{info.full_name}/{part.splitname}".encode()))
        with np.errstate(over="ignore"):
            hashes.append(
                first
                + np.arange(info.splits[part.splitname].num_examples, dtype=np.uint64)[
                    part.from_ : part.to
                ]
            )
    return np.concatenate(hashes)


def _tfds_features(tfds, features, name: str) -> tuple[str, str | None]:
    """The names of the image and (or None) the label among a set's features."""
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    images = [k for k in images if features[k].np_dtype in (np.uint8, np.uint16)]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not images:
        raise UserError(f"tfds:{name} has no images; its features are {', '.join(features)}")
    image = "image" if "image" in images else images[0]
    return image, "label" if "label" in labels else (labels[0] if labels else None)


@dataclasses.dataclass(frozen=True)
class _Numbered(Sequence):
    """The sequence NAME[0], NAME[1], ..., computed on access."""

    name: str
    n: int

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return f"{self.name}[{range(self.n)[i]}]"
