"""K-fold cross-validation: the test examples of each fold, in a file that all runs share.

    write("folds.json", make(60_000, 5))                    examples at random
    write("folds.json", make(n, 5, groups=patients))        each group within one fold
    Study(..., runs=product(named("model", ...), overrides("folds.json")))

The run of a fold trains on all other examples and is evaluated on the fold. The table of a study
has mean and standard deviation over folds, because `data.fold` is one of `Study.repeats`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Hashable, Sequence

import numpy as np

from aejax import files
from aejax.errors import UserError
from aejax.result import Overrides


@dataclasses.dataclass(frozen=True)
class Folds:
    """A division of a data set.

    Attributes:
      examples: n, the number of examples of the data set.
      seed: of the shuffle.
      folds: k disjoint sorted lists of indices, whose union is 0 to n - 1.
    """

    examples: int
    seed: int
    folds: list[list[int]]


def make(n: int, k: int, groups: Sequence[Hashable] | None = None, seed: int = 0) -> Folds:
    """Splits n examples into k folds of nearly equal size.

    Args:
      groups: the group of each example; a group stays in one fold (groups are assigned largest
        first, each to the smallest fold so far).

    Raises:
      UserError: k is not between 2 and the number of groups or examples, or not one group per
        example.

    Example:
      >>> [len(fold) for fold in make(7, 3).folds]
      [3, 2, 2]
    """
    random = np.random.default_rng(seed)
    if groups is None:
        members = [np.array([i]) for i in range(n)]
    else:
        if len(groups) != n:
            raise UserError(f"{len(groups)} groups for {n} examples; one for each is needed")
        names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        numbers = np.array([names[g] for g in groups])
        members = [np.flatnonzero(numbers == i) for i in range(len(names))]
    if not 2 <= k <= len(members):
        what = "groups" if groups is not None else "examples"
        raise UserError(f"{k} folds of {len(members)} {what}: 2 to {len(members)} are possible")
    members = [members[i] for i in random.permutation(len(members))]
    members.sort(key=len, reverse=True)  # stable: groups of equal size stay shuffled
    folds: list[list[int]] = [[] for _ in range(k)]
    if groups is None:
        for i, member in enumerate(members):
            folds[i % k] += member.tolist()
    else:
        for member in members:
            min(folds, key=len).extend(member.tolist())
    return Folds(n, seed, [sorted(fold) for fold in folds])


def write(path: str | pathlib.Path, folds: Folds) -> None:
    """Writes folds as JSON, one line per fold."""
    lines = ",\n  ".join(map(json.dumps, folds.folds))
    head = f'"examples": {folds.examples}, "seed": {folds.seed}'
    files.write_atomically(path, f'{{{head}, "folds": [\n  {lines}\n]}}\n')


def read(path: str | pathlib.Path) -> Folds:
    """Reads a file that `write` wrote.

    Raises:
      UserError: no such file, or folds that overlap or do not cover all examples.
    """
    try:
        stored = json.loads(pathlib.Path(path).read_text())
        folds = Folds(stored["examples"], stored.get("seed", 0), stored["folds"])
        indices_of_all = sorted(i for fold in folds.folds for i in fold)
    except FileNotFoundError as e:
        raise UserError(f'no file of folds "{path}"; make one with aejax.data.folds') from e
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as e:
        raise UserError(f'"{path}" holds no folds: {e}') from e
    if indices_of_all != list(range(folds.examples)):
        raise UserError(
            f'the folds in "{path}" overlap, or are not all of {folds.examples} examples'
        )
    return folds


def overrides(path: str | pathlib.Path) -> list[Overrides]:
    """The overrides of one run per fold, for `Study.runs`."""
    return [{"data.folds": str(path), "data.fold": i} for i in range(len(read(path).folds))]


def indices(path: str | pathlib.Path, fold: int, n: int, training: bool) -> np.ndarray:
    """Sorted int64 indices of the examples that the run of a fold trains on, or is tested on.

    Args:
      n: number of examples of the data set.

    Raises:
      UserError: the folds are of a set of another size, or there is no such fold.
    """
    stored = read(path)
    if stored.examples != n:
        raise UserError(f'"{path}" has folds of {stored.examples} examples; the set has {n}')
    if not 0 <= fold < len(stored.folds):
        raise UserError(f'data.fold = {fold}: "{path}" has folds 0 to {len(stored.folds) - 1}')
    tested = np.array(stored.folds[fold], np.int64)
    return np.setdiff1d(np.arange(n), tested) if training else tested
