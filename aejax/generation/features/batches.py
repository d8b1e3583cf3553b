"""Runs a compiled function over a large set of images, in batches of one size."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

Images = UInt8[np.ndarray, "n h w c"]
Extract = Callable[[Images], tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]]


def padded_batches(images: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, int]]:
    """Pairs (images [batch, ...], number of valid ones). The last batch is padded with copies of
    its last image, so that a compiled function sees one shape only.

    >>> [(len(x), count) for x, count in padded_batches(np.zeros((5, 2, 2, 1)), 3)]
    [(3, 3), (3, 2)]
    """
    for i in range(0, len(images), batch):
        part = images[i : i + batch]
        yield np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)]), len(part)


def in_batches(run: Callable[[np.ndarray], tuple[Array, Array]], batch: int) -> Extract:
    """An extractor from a function of `batch` images -> (features [batch, d], classes [batch])."""

    def extract(images: Images) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
        features, classes = [], []
        for x, count in padded_batches(images, batch):
            batch_features, batch_classes = run(x)
            features.append(np.asarray(batch_features, np.float64)[:count])
            classes.append(np.asarray(batch_classes)[:count])
        return np.concatenate(features), np.concatenate(classes)

    return extract
