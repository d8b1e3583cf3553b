"""Decodes every image of a source once, into a flat file that is memory-mapped."""

import collections
import dataclasses
import errno
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aejax import files
from aejax.data.cache import locked, remembered
from aejax.data.source import Source, without_bad
from aejax.errors import UserError
from aejax.machine.cache import cache_folder


@dataclasses.dataclass
class Decoded:
    """All images of a source, decoded, in one flat uint8 array.

    Attributes:
      data: the pixels of one image after the other; a memory map, or an array in memory.
      labels: int32 [n].
    """

    source: Source
    data: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        lengths = self.source.sizes.astype(np.int64).prod(1) * self.source.channels
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    def read(self, i: int) -> tuple[np.ndarray, int]:
        """(uint8 [h, w, c], label) of example i. The image is a view of `data`."""
        flat = self.data[self.starts[i] : self.starts[i + 1]]
        return flat.reshape(*self.source.sizes[i], self.source.channels), int(self.labels[i])


def decoded(source: Source, on_bad: str = "error", on_disk: bool = True) -> Decoded:
    """Decodes every image once, which also shows whether one is damaged.

    The result is stored in the cache folder; the next call maps that file.

    Args:
      on_bad: "error" or "skip" for images that cannot be decoded; `Decoded.source` is without them.
      on_disk: False keeps the result in memory.

    Raises:
      UserError: images that cannot be decoded (unless skipped), or a full disk.

    >>> from aejax.data.source import open_source
    >>> x, label = decoded(open_source("bundled:digits", "all")).read(3)
    >>> x.shape, label
    ((8, 8, 1), 3)
    """
    if not (on_disk and source.on_disk and source.key):
        images: list[np.ndarray] = []
        labels, reasons = _read_all(source, lambda x: images.append(x.ravel()))
        source = without_bad(source, reasons, on_bad)
        return Decoded(source, np.concatenate(images), labels)
    folder = cache_folder() / "decoded"
    data, index = folder / f"{source.key}.u8", folder / f"{source.key}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{source.key}.lock"):
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
        reasons = dict(zip(kept["bad"].tolist(), kept["why"].tolist(), strict=True))
    return Decoded(without_bad(source, reasons, on_bad), np.memmap(data, np.uint8, "r"), labels)


def _decode_to(data: Path, index: Path, source: Source) -> None:
    if source.bytes + (64 << 20) > shutil.disk_usage(data.parent).free:
        raise _no_room(source, data.parent)
    if len(source) > 5000 or source.bytes > 64 << 20:  # takes seconds or longer
        size = f"{source.bytes / 2**20:,.0f} MiB"
        print(f"decoding {source.name} once: {len(source):,} images, {size}, into {data.parent}",
              file=sys.stderr)  # fmt: skip
    # Not written through a memory map: there a full disk is a SIGBUS instead of an OSError.
    with files.replacing(data) as part, open(part, "wb") as f:
        labels, reasons = _read_all(source, lambda x: f.write(np.ascontiguousarray(x).data))
    with files.replacing(index) as part, open(part, "wb") as f:
        why = np.array(list(reasons.values()), np.str_)
        np.savez(f, labels=labels, bad=np.array(list(reasons), np.int64), why=why)


def _no_room(source: Source, folder: Path) -> UserError:
    return UserError(
        f"the disk of {folder} has no room for {source.bytes / 1e9:.1f} GB of decoded images; "
        "free some, set AEJAX_CACHE to a folder on another disk, or data.cache=stream"
    )


def verify(source: Source, on_bad: str = "error") -> Source:
    """Decodes every file of a source that will be streamed, to find damaged ones before training.

    The result is kept in the cache folder. Sources with `checked` (arrays, TFDS) are not decoded.

    Returns:
      the source without its damaged images.

    Raises:
      UserError: images that cannot be decoded, unless skipped.
    """
    if source.checked:
        return source
    if not source.key:
        return without_bad(source, _read_all(source, lambda x: None)[1], on_bad)
    with remembered(f"whole-{source.key}") as memory:
        if not memory:
            memory["bad"] = _read_all(source, lambda x: None)[1]
    return without_bad(source, {int(i): why for i, why in memory["bad"].items()}, on_bad)


def _read_all(source: Source, put: Callable[[np.ndarray], object]):
    """Calls `put` with every image that can be decoded, in order; threads decode ahead.

    Returns:
      int32 labels of these images, and {index: reason} of the others.
    """
    labels, reasons, index = [], {}, 0
    n = len(source)
    chunk = int(np.clip((8 << 20) * n // max(source.bytes, 1), 1, 64))  # images; about 8 MiB
    with ThreadPoolExecutor(threads := os.cpu_count() or 1) as pool:
        ahead = collections.deque()
        for first in range(0, n + 2 * threads * chunk, chunk):
            if first < n:
                ahead.append(pool.submit(source.read_chunk, range(first, min(first + chunk, n))))
            if first >= 2 * threads * chunk and ahead:
                for result in ahead.popleft().result():
                    if isinstance(result, str):
                        reasons[index] = result
                    else:
                        put(result[0])
                        labels.append(result[1])
                    index += 1
    return np.array(labels, np.int32), reasons
