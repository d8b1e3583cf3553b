"""Which examples a step has, as a function of (seed, step): orders, crops, turns."""

import dataclasses
import functools
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from aejax.data.decoded import Decoded

_ORDER, _DRAWS = 1, 2  # independent random streams of one seed


class Reader(Protocol):
    """Source or Decoded: `read(i) -> (uint8 [h, w, c], label)`."""

    def read(self, i: int) -> tuple[np.ndarray, int]: ...


def _random(seed: int, stream: int, counter: list[int], n: int) -> np.ndarray:
    """n raw uint64 of a counter-based generator: any part of the stream without the part before.
    Raw bits, because NumPy promises their values for all its versions to come."""
    key = np.array([seed % 2**64, stream], np.uint64)
    return np.random.Philox(key=key, counter=np.array(counter, np.uint64)).random_raw(n)


@dataclasses.dataclass(frozen=True)
class Draws:
    """What the examples of a run are: which image, which corner of it, which way up.

    Args:
      n: images; crop: side of the square crops, 0 = whole images.
    """

    n: int
    seed: int
    crop: int = 0
    flip: bool = False
    rotate: bool = False

    def rows(self, start: int, count: int) -> np.ndarray:
        """int64 [count]: images of places start, start + 1, ... of the run. Every image comes once
        per epoch, in another order each; nothing is dropped where epochs meet."""
        place = np.arange(start, start + count)
        epoch, at = np.divmod(place, self.n)
        out = np.empty(count, np.int64)
        for e in np.unique(epoch):
            out[epoch == e] = self._order(int(e))[at[epoch == e]]
        return out

    def _order(self, epoch: int) -> np.ndarray:
        return _permutation(self.n, self.seed, epoch)

    def corners(self, start: int, sizes: np.ndarray) -> np.ndarray:
        """int32 [count, 2], top and left of the crops out of images of `sizes` [count, 2]."""
        room = sizes.astype(np.int64) - self.crop + 1
        return (self._uniform(start, len(sizes))[:, :2] * room).astype(np.int32)

    def codes(self, start: int, count: int) -> np.ndarray:
        """int32 [count]: orientations as `augment.orient` takes them (flips alone: 0 or 1)."""
        u = self._uniform(start, count)
        flips = (u[:, 2] * 2).astype(np.int32) * self.flip
        turns = np.array([0, 5, 3, 6], np.int32)[(u[:, 3] * 4).astype(np.int32)] * self.rotate
        return turns ^ flips

    def _uniform(self, start: int, count: int) -> np.ndarray:
        bits = _random(self.seed, _DRAWS, [start, 0, 0, 0], 4 * count)
        return (bits >> np.uint64(11)).reshape(count, 4) * 2.0**-53


@functools.lru_cache(4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(_random(seed, _ORDER, [0, epoch, 0, 0], n), kind="stable")


@dataclasses.dataclass(frozen=True)
class Batches:
    """The local batch of each step, read and cut on the host: what workers run.

    Args:
      batch: examples of a step over all processes; low, high: this process's slice of it.
    """

    reader: Reader
    draws: Draws
    batch: int
    low: int
    high: int
    labels: bool
    start: int = 0
    stop: int = 1 << 62

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Of step start + index: "image" uint8 [b, h, w, c], "label" and "code" int32 [b]."""
        first = (self.start + index) * self.batch + self.low
        count = self.high - self.low
        examples = read_rows(self.reader, self.draws.rows(first, count))
        images, side = [x for x, _ in examples], self.draws.crop
        if side:
            corners = self.draws.corners(first, np.array([x.shape[:2] for x in images]))
            cuts = zip(images, corners, strict=True)
            images = [x[t : t + side, s : s + side] for x, (t, s) in cuts]
        out = {"image": np.stack(images)}
        if self.labels:
            out["label"] = np.array([label for _, label in examples], np.int32)
        if self.draws.flip or self.draws.rotate:
            out["code"] = self.draws.codes(first, count)
        return out


def read_rows(reader: Reader, rows: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Images and labels; decoded by threads, except in a worker, which is one of many already."""
    if isinstance(reader, Decoded) or multiprocessing.parent_process() is not None:
        return [reader.read(int(r)) for r in rows]
    return list(_threads().map(reader.read, map(int, rows)))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "aejax-decode")
