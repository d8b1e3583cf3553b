"""Data sets in the wheels of dependencies, for first tries: "bundled:digits", "bundled:photos".

The digits are scikit-learn's 1,797 gray images of 8x8; the photos are colour photographs of many
sizes. Nothing is downloaded.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from aejax.data.arrays import Arrays
from aejax.data.folder import open_files
from aejax.data.source import content_hash, holdout_rows, ordinal
from aejax.errors import UserError
from aejax.registry import did_you_mean

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


def open_bundled(name: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {index: reason of a bad image}) of a split; see `aejax.data.source.SOURCES`.

    Raises:
      UserError: no such set or split.
    """
    if name == "photos":
        parts = {"train": _PHOTOS_TRAIN, "test": _PHOTOS_TEST}
        parts["all"] = dict(sorted((parts["train"] | parts["test"]).items()))
        if split not in parts:
            raise UserError(f'bundled:photos has no split "{split}"; it has train, test and all')
        paths = [_path_in_wheel(package, file) for file, package in parts[split].items()]
        paths = [p for p in paths if p.is_file()]
        if not paths:
            raise UserError("bundled:photos: the installed scikit-image carries no photographs")
        source, bad = open_files(paths, [p.name for p in paths])
        source.part = "all of it" if split == "all" else "a fixed split"
        return source, bad
    if name != "digits":
        raise UserError(f'no bundled set "{name}"{did_you_mean(name, ("digits", "photos"))}')
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    holdout = holdout or 5
    rows = holdout_rows(len(images), split, holdout, "bundled:digits")
    source = Arrays(
        name="bundled:digits",
        items=rows,
        names=[str(i) for i in rows],
        sizes=np.full((len(rows), 2), 8, np.int32),
        channels=1,
        class_names=tuple("0123456789"),
        fingerprint=hashlib.sha256(images[rows].tobytes()).hexdigest()[:20],
        part="all of it" if split == "all" else f"every {ordinal(holdout)} held out",
        hashes=np.array([content_hash(x.tobytes()) for x in images[rows]], np.uint64),
        images=images,
        labels=data.target.astype(np.int32),
    )
    source.key = source.fingerprint
    return source, {}


def _path_in_wheel(package: str, file: str) -> Path:
    """A data file of an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0] if folders else "/nonexistent") / _PHOTOS[package].format(file)
