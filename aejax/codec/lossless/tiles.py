"""Helpers for coding tiles in two threads, and for samples of an image."""

import collections
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from aejax.machine.allocator import release_memory

T = TypeVar("T")


def each_tile(count: int, code: Callable[[int], T]) -> Iterator[T]:
    """Yields code(0), code(1), ... in order, computed two at a time: while one tile is in the
    entropy coder, which is single-threaded, the networks of another use the other cores."""
    if count == 1:
        yield code(0)
        return
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        futures = collections.deque(pool.submit(code, n) for n in range(min(3, count)))
        for n in range(count):
            yield futures.popleft().result()
            release_memory()
            if n + 3 < count:
                futures.append(pool.submit(code, n + 3))


def crc_of(image: np.ndarray) -> int:
    """crc32 of the samples as little-endian bytes, in the order of the array."""
    crc = 0
    for rows in image:
        # pyrefly: ignore [bad-argument-type]
        crc = zlib.crc32(np.ascontiguousarray(rows, f"<u{image.dtype.itemsize}"), crc)
    return crc


def without_alpha(image: np.ndarray) -> np.ndarray:
    """A view of the colour channels of an image [h, w, 1 to 4]."""
    return image[..., :-1] if image.shape[2] in (2, 4) else image
