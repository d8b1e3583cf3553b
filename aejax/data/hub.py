"""Data sets of the Hugging Face hub ("hf:NAME", "hf:NAME:CONFIG") or on disk ("hf:FOLDER").

Needs the package `datasets`: pip install "aejax[hf]". The first image column is read and, if there
is one, the first class label column; splits have the syntax of `datasets`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from aejax.data import images
from aejax.data.cache import VERSION, hash_of, remembered
from aejax.data.source import (
    Source,
    canonical_split,
    content_hash,
    find_split,
    holdout_rows,
    ordinal,
    read_header,
    set_sizes,
)
from aejax.errors import UserError

if TYPE_CHECKING:
    import datasets


class HubImage(TypedDict):
    """An undecoded image of `datasets`."""

    bytes: bytes | None
    path: str | None


@dataclasses.dataclass(kw_only=True)
class HubSource(Source):
    """A source of a datasets.Dataset: `items` are rows of `table`, whose images are not decoded.

    `columns` are the names of the image column and of the label column, if there is one.
    """

    table: "datasets.Dataset"
    columns: tuple[str, str | None] = ("image", None)

    def _fetch(self, rows):
        image, label = self.columns
        batch = self.table[[int(self.items[i]) for i in rows]]
        labels = batch[label] if label else [-1] * len(rows)
        return list(zip(batch[image], labels, strict=True))

    def _decode(self, i, item):
        image, label = item
        x = images.read_image(_content(image), name=self.names[i])[0]
        return x, -1 if label is None else int(label)


def open_hub(spec: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {index: reason}) of a split; see `aejax.data.source.SOURCES`."""
    name = f"hf:{spec}"
    tables = _tables(spec, data_dir, name)
    if split == "all":
        kind, held, table = "all of it", False, _joined(list(tables.values()), name)
    elif split in tables and len(tables) > 1 or "[" in split or "+" in split:
        kind, held, table = split, False, _sliced(tables, split, name)
    else:
        kinds = {canonical_split(k): k for k in tables}
        kind, held = find_split(split, list(kinds), name)
        kind, table = kinds[kind], tables[kinds[kind]]
    image, label = _columns(table.features, name)
    table = table.cast_column(image, _datasets().Image(decode=False))
    files = [Path(f["filename"]) for f in table.cache_files]
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
    # `datasets` documents the fingerprint but has no public name for it.
    key = hash_of(VERSION, table._fingerprint, len(table), stats)
    with remembered(f"hub-{key}") as memory:
        if not memory:
            memory["heads"], memory["marks"] = _scan(table, image, name)
    side = "train" if canonical_split(split) == "train" else "test"
    rows = holdout_rows(len(table), side if held else "all", holdout, name)
    hashes = np.array(memory["marks"], np.uint64)[rows]
    labels = [] if label is None else [int(v) for v in np.asarray(table[label])[rows]]
    source = HubSource(
        name=name,
        items=rows,
        names=[f"{kind}[{i}]" for i in rows],
        sizes=np.zeros((len(rows), 2), np.int32),
        channels=0,
        class_names=tuple(table.features[label].names) if label else (),
        fingerprint=hash_of(hashes.tolist(), labels),
        key=hash_of(key, rows.tolist()),
        part=f"every {ordinal(holdout)} of {kind} held out" if held and holdout else kind,
        hashes=hashes,
        table=table,
        columns=(image, label),
    )
    return source, set_sizes(source, [memory["heads"][i] for i in rows])


def _datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as e:
        raise UserError(f'hf: sets need datasets ({e}); once: pip install "aejax[hf]"') from e
    datasets.disable_progress_bars()
    return datasets


def _tables(spec: str, data_dir: Path | None, name: str) -> Mapping[str, "datasets.Dataset"]:
    """{split: table} from the disk if there is such a folder, else from the hub."""
    datasets = _datasets()
    given = Path(spec).expanduser()
    tried = [p for p in (data_dir and data_dir / given, given) if p]
    saved = ("dataset_dict.json", "dataset_info.json", "state.json")
    folder = next((p for p in tried if any((p / f).is_file() for f in saved)), None)
    try:
        if folder is not None:
            whole = datasets.load_from_disk(str(folder))
        else:
            path, _, config = spec.partition(":")
            whole = datasets.load_dataset(path, config or None)
    except Exception as e:  # network, loading script, damaged files
        what = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(f"{name} cannot be loaded: {what}") from e
    return dict(whole) if isinstance(whole, Mapping) else {"train": whole}


def _joined(tables: Sequence["datasets.Dataset"], name: str) -> "datasets.Dataset":
    try:
        return tables[0] if len(tables) == 1 else _datasets().concatenate_datasets(tables)
    except ValueError as e:
        raise UserError(f"{name}: its splits have other columns each; name one of them") from e


def _sliced(tables: Mapping[str, "datasets.Dataset"], split: str, name: str) -> "datasets.Dataset":
    """The table of a split such as "train[:90%]" or "train+test"."""
    lengths = {k: len(t) for k, t in tables.items()}
    try:
        parts = _datasets().ReadInstruction.from_spec(split).to_absolute(lengths)
    except (ValueError, KeyError, AssertionError) as e:
        known = ", ".join(f"{k} ({n:,})" for k, n in lengths.items())
        raise UserError(f'{name} has no split "{split}"; it has {known}') from e
    chosen = [tables[p.splitname].select(range(p.from_ or 0, lengths[p.splitname] if p.to is None
                                               else p.to)) for p in parts]  # fmt: skip
    if not sum(map(len, chosen)):
        raise UserError(f'the split "{split}" of {name} is empty')
    return _joined(chosen, name)


def _columns(features: Mapping[str, object], name: str) -> tuple[str, str | None]:
    datasets = _datasets()
    images = [k for k, f in features.items() if isinstance(f, datasets.Image)]
    labels = [k for k, f in features.items() if isinstance(f, datasets.ClassLabel)]
    if not images:
        raise UserError(f"{name} has no column of images; it has {', '.join(features)}")
    return images[0], "label" if "label" in labels else (labels[0] if labels else None)


def _content(image: HubImage | None) -> bytes | Path:
    if image and image.get("bytes"):
        return image["bytes"]
    return Path(image["path"]) if image and image.get("path") else b""


def _scan(table: "datasets.Dataset", column: str, name: str) -> tuple[list, list[int]]:
    """Header (h, w, c), or the reason why it cannot be read, and hash of every image."""
    headers, hashes = [], []
    for first in range(0, len(table), 256):
        for image in table[first : first + 256][column]:
            data = _content(image)
            headers.append(read_header(data, name))
            if isinstance(data, Path):
                data = data.read_bytes() if data.is_file() else str(data).encode()
            hashes.append(content_hash(data))
    return headers, hashes
