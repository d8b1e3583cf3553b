"""Who is trained on and who is tested on: decided for both at once, said in one line, and checked.

splits = open_splits(config)
print(splits.line)          693 pictures train, 35 test: every 20th held out
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from aejax.config import base
from aejax.data import folds
from aejax.data.arrays import ArrayData, of_arrays
from aejax.data.source import Source, finished, open_source, without
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Splits:
    """The training and the evaluation images of a config.

    Attributes:
      how: by which rule they are apart.
      same: whether the config trains on what it tests on, by naming the same split twice.
      other: whether data.eval_source is another set.
      shared: how many pictures were left out of the training because they are in the test split.
    """

    train: Source
    test: Source
    how: str
    same: bool = False
    other: bool = False
    shared: int = 0

    @property
    def line(self) -> str:
        """Both in one line: how many, by which rule, and what is left out."""
        n, m = len(self.train), len(self.test)
        pictures = f"{n:,} picture{'s' if n != 1 else ''}"
        if self.same:
            first = f"{pictures}, trained and tested on the same: {self.how}"
        else:
            first = f"{pictures} train, {m:,} test: {self.how}"
        return "; ".join([first, *self._notes()])

    def _notes(self) -> list[str]:
        """What is in neither split, and what else one may not expect."""
        notes = []
        for where, names in self.unused.items():
            if where == "beside":
                some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                notes.append(f"not used: {len(names):,} beside the split folders ({some})")
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
        """Names of the pictures of the set that are in neither split, by where they are."""
        if self.other:
            return {k: v for k, v in self.train.rest.items() if k == "beside"}
        return {k: v for k, v in self.train.rest.items() if k in self.test.rest}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of both splits: any changed, added or removed picture changes one of them."""
        return {"train": self.train.fingerprint, "test": self.test.fingerprint}

    def __getitem__(self, training: bool) -> Source:
        return self.train if training else self.test


def open_splits(
    config: ConfigDict, data_dir: str | os.PathLike | None = None, data: ArrayData | None = None
) -> Splits:
    """Decides and opens both splits of a whole config (its `data` and the crop of its `eval`).

    Args:
      data: NumPy images, or (images, labels), in place of config.data.source; see arrays.py.

    Raises:
      UserError: a source or split that is not there or not usable; a picture in both splits.

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
        # Folds count what is left of a set after small images were skipped: the same both times.
        options = {
            "channels": channels,
            "on_bad": c.on_bad,
            "min_size": max(smallest.values()) if in_folds else smallest[training],
            "size": size[0] if size and len(size) == 1 else size,
        }
        split = c.split if training or in_folds else c.eval_split
        if data is not None and (training or in_folds or not c.eval_source):
            return _of_python(data, split, c.holdout, options)
        spec = c.source if training or in_folds else c.eval_source or c.source
        return open_source(spec, split, data_dir=data_dir, holdout=c.holdout, **options)

    train = opened(True, c.channels)
    test = train if in_folds else opened(False, c.channels or train.channels)
    if in_folds:
        whole = train
        train, test = (_without_fold(whole, c.folds, c.fold, t) for t in (True, False))
        return _apart(Splits(train, test, train.part), c.on_bad)
    other = bool(c.eval_source) and c.eval_source != c.source
    if not other and c.split == c.eval_split:
        return Splits(train, test, f'data.split and data.eval_split are "{c.split}"', same=True)
    return _apart(Splits(train, test, _how(train, test, other), other=other), c.on_bad)


def _of_python(data: ArrayData, split: str, holdout: int, options: dict) -> Source:
    return finished(of_arrays(data, split, holdout), {}, **options)


def _how(train: Source, test: Source, other: bool) -> str:
    if other:
        return " and ".join(f"{s.name} ({s.part})" if s.part else s.name for s in (train, test))
    if train.part == test.part:
        return train.part or f"{train.name} and {test.name}"
    return f"{train.part} and {test.part}"


def _apart(splits: Splits, on_bad: str) -> Splits:
    """The splits, once it is sure that no picture is in both; with on_bad = "skip" those that are
    leave the training split.

    Raises:
      UserError: some are; three are named.
    """
    train, test = splits.train, splits.test
    if train.marks is None or test.marks is None:
        return splits
    _, ours, theirs = np.intersect1d(train.marks, test.marks, return_indices=True)
    if not len(ours):
        return splits
    rows = np.flatnonzero(np.isin(train.marks, test.marks))
    if on_bad == "error":
        pairs = [
            train.names[i]
            if train.names[i] == test.names[j]
            else f"{train.names[i]} = {test.names[j]}"
            for i, j in sorted(zip(ours.tolist(), theirs.tolist(), strict=True))[:3]
        ]
        some = ", ".join(pairs) + (", ..." if len(rows) > 3 else "")
        raise UserError(
            f"{len(rows):,} of {len(train):,} pictures of {train.name} are in {test.name} too: "
            f"{some}; remove them, let data.split and data.eval_split name different parts, or "
            "leave them out of the training by data.on_bad=skip"
        )
    train = without(train, dict.fromkeys(rows.tolist(), f"is in {test.name} too"), on_bad)
    if train.key:
        train.key = f"{train.key}-{len(train)}"
    return dataclasses.replace(splits, train=train, shared=len(rows))


def _check_folds(data: ConfigDict) -> None:
    """The fold is what is tested: nothing else may seem to be.

    Raises:
      UserError: another evaluation set or a holdout was asked for as well.
    """
    default = base().data
    for name, fine in (
        ("eval_source", ("", data.source)),
        ("eval_split", ("", default.eval_split, data.split)),
        ("holdout", (0, default.holdout)),
    ):
        if data[name] not in fine:
            raise UserError(
                f"data.folds tests on a fold of {data.source} {data.split}; it does not go with "
                f"data.{name} = {data[name]}: leave that at {default[name]!r}"
            )


def _without_fold(source: Source, file: str, fold: int, training: bool) -> Source:
    """What fold `fold` trains on, or is tested on; with a key of its own."""
    keep = folds.indices(file, fold, len(source), training)
    mark = hashlib.sha256(keep.tobytes()).hexdigest()[:10]
    return dataclasses.replace(
        source.subset(keep),
        name=f"{source.name} {'without' if training else 'in'} fold {fold}",
        key=source.key and f"{source.key}-{mark}",
        fingerprint=f"{source.fingerprint}-{mark}",
        part=f"fold {fold} of {len(folds.read(file).folds)} in {file}",
    )
