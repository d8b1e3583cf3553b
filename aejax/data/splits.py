"""Opens the training and the test split together, and checks that no image is in both.

    splits = open_splits(config)
    print(splits.line)          # 693 pictures train, 35 test: every 20th held out

Every training prints this line at its start.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from aejax.config import base
from aejax.data import folds
from aejax.data.arrays import ArrayData, from_arrays
from aejax.data.source import Source, open_source, prepared, without_bad
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Splits:
    """The training and the evaluation images of a config.

    Attributes:
      how: the rule that separates them, for the user.
      same: whether data.split and data.eval_split are the same split.
      other: whether data.eval_source is another data set.
      shared: number of images left out of the training split because the test split has them.
    """

    train: Source
    test: Source
    how: str
    same: bool = False
    other: bool = False
    shared: int = 0

    @property
    def line(self) -> str:
        """Sizes of the splits, the rule that separates them and what is left out, in one line."""
        n, m = len(self.train), len(self.test)
        pictures = f"{n:,} picture{'s' if n != 1 else ''}"
        if self.same:
            first = f"{pictures}, trained and tested on the same: {self.how}"
        else:
            first = f"{pictures} train, {m:,} test: {self.how}"
        return "; ".join([first, *self._notes()])

    def _notes(self) -> list[str]:
        """What is left out of the splits, and other surprises."""
        notes = []
        for where, names in self.unused.items():
            if where == "beside":
                examples = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                notes.append(f"not used: {len(names):,} beside the split folders ({examples})")
            else:
                notes.append(f"not used: {len(names):,} of {where}")
        if self.shared:
            notes.append(f"left out of the training: {self.shared:,} that are in the test split")
        bad = len(self.train.bad) - self.shared + (0 if self.same else len(self.test.bad))
        if bad:
            notes.append(f"left out: {bad:,} that cannot be used")
        if self.other and "held out" in self.test.part:
            notes.append("data.eval_split=all tests on all of that set")
        return notes

    @property
    def unused(self) -> dict[str, Sequence[str]]:
        """Names of the images of the set that are in neither split, by folder or split."""
        if self.other:
            return {k: v for k, v in self.train.outside.items() if k == "beside"}
        return {k: v for k, v in self.train.outside.items() if k in self.test.outside}

    @property
    def fingerprints(self) -> dict[str, str]:
        """{"train": ..., "test": ...}; any changed, added or removed image changes one of them."""
        return {"train": self.train.fingerprint, "test": self.test.fingerprint}

    def __getitem__(self, training: bool) -> Source:
        return self.train if training else self.test


def open_splits(
    config: ConfigDict, data_dir: str | os.PathLike | None = None, data: ArrayData | None = None
) -> Splits:
    """Opens both splits of a config (its `data`, and `eval.crop`).

    Args:
      config: the whole config of a run.
      data: NumPy images, or (images, labels), instead of config.data.source; see arrays.py.

    Raises:
      UserError: a source or split that does not exist or cannot be used; an image in both splits.

    >>> splits = open_splits(config)
    >>> len(splits.train), len(splits.test)
    (1618, 179)
    """
    c = config.data
    size = tuple(c.size) if c.size else None
    if size and (len(size) > 2 or not all(isinstance(v, int) and v > 0 for v in size)):
        raise UserError(f"data.size = {size}; it is (height, width), (short side,) or ()")
    in_folds = bool(c.get("folds"))  # a run of an older version has no such key
    if in_folds:
        _check_folds(c)
    smallest = {True: c.crop, False: config.eval.get("crop", 0)}

    def opened(training: bool, channels: int) -> Source:
        # The indices of folds refer to the set without its small images: skip the same ones twice.
        options = {
            "channels": channels,
            "on_bad": c.on_bad,
            "min_size": max(smallest.values()) if in_folds else smallest[training],
            "size": size[0] if size and len(size) == 1 else size,
        }
        split = c.split if training or in_folds else c.eval_split
        if data is not None and (training or in_folds or not c.eval_source):
            return prepared(from_arrays(data, split, c.holdout), {}, **options)
        spec = c.source if training or in_folds else c.eval_source or c.source
        return open_source(spec, split, data_dir=data_dir, holdout=c.holdout, **options)

    train = opened(True, c.channels)
    test = train if in_folds else opened(False, c.channels or train.channels)
    if in_folds:
        whole = train
        train, test = (_of_fold(whole, c.folds, c.fold, t) for t in (True, False))
        return _disjoint(Splits(train, test, train.part), c.on_bad)
    other = bool(c.eval_source) and c.eval_source != c.source
    if not other and c.split == c.eval_split:
        return Splits(train, test, f'data.split and data.eval_split are "{c.split}"', same=True)
    return _disjoint(Splits(train, test, _rule(train, test, other), other=other), c.on_bad)


def _rule(train: Source, test: Source, other: bool) -> str:
    if other:
        return " and ".join(f"{s.name} ({s.part})" if s.part else s.name for s in (train, test))
    if train.part == test.part:
        return train.part or f"{train.name} and {test.name}"
    return f"{train.part} and {test.part}"


def _disjoint(splits: Splits, on_bad: str) -> Splits:
    """Checks that no image is in both splits. With on_bad="skip" such images are left out of the
    training split.

    Raises:
      UserError: images in both splits; the message names three.
    """
    train, test = splits.train, splits.test
    if train.hashes is None or test.hashes is None:
        return splits
    _, in_train, in_test = np.intersect1d(train.hashes, test.hashes, return_indices=True)
    if not len(in_train):
        return splits
    rows = np.flatnonzero(np.isin(train.hashes, test.hashes))
    if on_bad == "error":
        pairs = [
            train.names[i]
            if train.names[i] == test.names[j]
            else f"{train.names[i]} = {test.names[j]}"
            for i, j in sorted(zip(in_train.tolist(), in_test.tolist(), strict=True))[:3]
        ]
        examples = ", ".join(pairs) + (", ..." if len(rows) > 3 else "")
        raise UserError(
            f"{len(rows):,} of {len(train):,} pictures of {train.name} are in {test.name} too: "
            f"{examples}; remove them, let data.split and data.eval_split name different parts, or "
            "leave them out of the training by data.on_bad=skip"
        )
    train = without_bad(train, dict.fromkeys(rows.tolist(), f"is in {test.name} too"), on_bad)
    if train.key:
        train.key = f"{train.key}-{len(train)}"
    return dataclasses.replace(splits, train=train, shared=len(rows))


def _check_folds(data: ConfigDict) -> None:
    """Refuses other ways to choose the test split beside data.folds.

    Raises:
      UserError: data.eval_source, data.eval_split or data.holdout is set too.
    """
    default = base().data
    for name, allowed in (
        ("eval_source", ("", data.source)),
        ("eval_split", ("", default.eval_split, data.split)),
        ("holdout", (0, default.holdout)),
    ):
        if data[name] not in allowed:
            raise UserError(
                f"data.folds tests on a fold of {data.source} {data.split}; it does not go with "
                f"data.{name} = {data[name]}: leave that at {default[name]!r}"
            )


def _of_fold(source: Source, file: str, fold: int, training: bool) -> Source:
    """The examples that the run of a fold trains on, or is tested on."""
    keep = folds.indices(file, fold, len(source), training)
    digest = hashlib.sha256(keep.tobytes()).hexdigest()[:10]
    return dataclasses.replace(
        source.subset(keep),
        name=f"{source.name} {'without' if training else 'in'} fold {fold}",
        key=source.key and f"{source.key}-{digest}",
        fingerprint=f"{source.fingerprint}-{digest}",
        part=f"fold {fold} of {len(folds.read(file).folds)} in {file}",
    )
