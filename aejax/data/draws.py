"""The random choices of the input pipeline as a function of (seed, step): order, crops, flips."""

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
    """n raw uint64 of Philox, a counter-based generator, so that any part of the stream can be
    computed alone. Raw bits, because NumPy guarantees their values across versions."""
    key = np.array([seed % 2**64, stream], np.uint64)
    return np.random.Philox(key=key, counter=np.array(counter, np.uint64)).random_raw(n)


@dataclasses.dataclass(frozen=True)
class Draws:
    """Chooses image, crop and orientation of each example of a run.

    Examples have a position in the run: step * batch + index in the batch.

    Attributes:
      n: number of images.
      crop: side of the square crops in pixels; 0 = whole images.
      flip, rotate: random left-right flips; random quarter turns.

    >>> draws = Draws(n=5, seed=0)
    >>> sorted(draws.rows(0, 5).tolist()), sorted(draws.rows(5, 5).tolist())
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    """

    n: int
    seed: int
    crop: int = 0
    flip: bool = False
    rotate: bool = False

    def rows(self, start: int, count: int) -> np.ndarray:
        """int64 [count]: images of the positions start, start + 1, ... of the run. Every image
        occurs once per epoch, in a new order; a batch may contain the end of one epoch and the
        start of the next."""
        position = np.arange(start, start + count)
        epoch, index = np.divmod(position, self.n)
        out = np.empty(count, np.int64)
        for e in np.unique(epoch):
            out[epoch == e] = self._order(int(e))[index[epoch == e]]
        return out

    def _order(self, epoch: int) -> np.ndarray:
        return _permutation(self.n, self.seed, epoch)

    def corners(self, start: int, sizes: np.ndarray) -> np.ndarray:
        """int32 [count, 2], top and left of the crops from images of `sizes` [count, 2]."""
        positions = sizes.astype(np.int64) - self.crop + 1
        return (self._uniform(start, len(sizes))[:, :2] * positions).astype(np.int32)

    def codes(self, start: int, count: int) -> np.ndarray:
        """int32 [count]: orientation codes of `augment.orient`; without `rotate` they are 0 or
        1."""
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
    """The local batch of each step, read and cropped on the host; this is what Grain's workers run.

    Attributes:
      batch: examples per step over all processes.
      low, high: slice of the batch that this process reads.
      start, stop: steps.
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
        """The batch of step start + index: "image" uint8 [b, h, w, c], "label" and "code" int32
        [b]."""
        first = (self.start + index) * self.batch + self.low
        count = self.high - self.low
        examples = read_rows(self.reader, self.draws.rows(first, count))
        images, side = [x for x, _ in examples], self.draws.crop
        if side:
            corners = self.draws.corners(first, np.array([x.shape[:2] for x in images]))
            pairs = zip(images, corners, strict=True)
            images = [x[top : top + side, left : left + side] for x, (top, left) in pairs]
        out = {"image": np.stack(images)}
        if self.labels:
            out["label"] = np.array([label for _, label in examples], np.int32)
        if self.draws.flip or self.draws.rotate:
            out["code"] = self.draws.codes(first, count)
        return out


def read_rows(reader: Reader, rows: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Images and labels of these rows; decoded by threads, except in a worker process."""
    if isinstance(reader, Decoded) or multiprocessing.parent_process() is not None:
        return [reader.read(int(r)) for r in rows]
    return list(_threads().map(reader.read, map(int, rows)))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "aejax-decode")
