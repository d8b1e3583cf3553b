"""Tiles of an image, two at a time; planes of an image."""

import collections
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from aejax.machine.allocator import release_memory

T = TypeVar("T")


def each_tile(count: int, one: Callable[[int], T]) -> Iterator[T]:
    """one(0), one(1), ... in order, two tiles at a time: while one waits for the coder, which is
    one thread's work, the other's networks have the other cores."""
    if count == 1:
        yield one(0)
        return
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        ahead = collections.deque(pool.submit(one, n) for n in range(min(3, count)))
        for n in range(count):
            yield ahead.popleft().result()
            release_memory()
            if n + 3 < count:
                ahead.append(pool.submit(one, n + 3))


def crc_of(image: np.ndarray) -> int:
    """crc32 of the samples, little-endian, in the order of the array."""
    crc = 0
    for rows in image:
        # pyrefly: ignore [bad-argument-type]
        crc = zlib.crc32(np.ascontiguousarray(rows, f"<u{image.dtype.itemsize}"), crc)
    return crc


def colours_of(image: np.ndarray) -> np.ndarray:
    """[h, w, c] without alpha."""
    return image[..., :-1] if image.shape[2] in (2, 4) else image
