"""K-fold cross-validation: which examples each fold is tested on, stored once for all runs.

    write("folds.json", make(60_000, 5))                    by example
    write("folds.json", make(n, 5, groups=patients))        no group in two folds
    Study(..., runs=product(named("model", ...), overrides("folds.json")))

Run j of a fold trains on what is not in fold j and is measured on what is; the table shows the mean
and the spread over folds, because `data.fold` is one of the keys that are averaged over.
"""

import json
import pathlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from aejax import files
from aejax.errors import UserError


def make(n: int, k: int, groups: Sequence[Hashable] | None = None, seed: int = 0) -> dict[str, Any]:
    """Splits n examples into k folds of sizes as equal as can be.

    Args:
      groups: of each example; a group is never torn apart (whole groups are dealt out, largest
        first, each to the smallest fold).

    Returns:
      {"examples": n, "seed": seed, "folds": k sorted lists of indices}: disjoint, together all.
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
    members.sort(key=len, reverse=True)  # stable: equal ones stay shuffled
    folds: list[list[int]] = [[] for _ in range(k)]
    if groups is None:
        for i, member in enumerate(members):
            folds[i % k] += member.tolist()
    else:
        for member in members:
            min(folds, key=len).extend(member.tolist())
    return {"examples": n, "seed": seed, "folds": [sorted(fold) for fold in folds]}


def write(path: str | pathlib.Path, folds: dict[str, Any]) -> None:
    """As JSON, a line per fold."""
    lines = ",\n  ".join(json.dumps(fold) for fold in folds["folds"])
    head = f'"examples": {folds["examples"]}, "seed": {folds["seed"]}'
    files.write_atomically(path, f'{{{head}, "folds": [\n  {lines}\n]}}\n')


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """What `write` wrote.

    Raises:
      UserError: no such file, or folds that overlap or leave examples out.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text())
        everything = sorted(i for fold in found["folds"] for i in fold)
        n = found["examples"]
    except FileNotFoundError as e:
        raise UserError(f'no file of folds "{path}"; make one with aejax.data.folds') from e
    except (ValueError, KeyError, TypeError, OSError) as e:
        raise UserError(f'"{path}" holds no folds: {e}') from e
    if everything != list(range(n)):
        raise UserError(f'the folds in "{path}" overlap, or are not all of {n} examples')
    return found


def overrides(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """Overrides of one run per fold."""
    count = len(read(path)["folds"])
    return [{"data.folds": str(path), "data.fold": i} for i in range(count)]


def indices(path: str | pathlib.Path, fold: int, n: int, training: bool) -> np.ndarray:
    """int64, sorted: the examples of a set of n that fold `fold` trains on, or is tested on.

    Raises:
      UserError: the file is of another set, or has no such fold.
    """
    found = read(path)
    if found["examples"] != n:
        raise UserError(f'"{path}" has folds of {found["examples"]} examples; the set has {n}')
    if not 0 <= fold < len(found["folds"]):
        raise UserError(f'data.fold = {fold}: "{path}" has folds 0 to {len(found["folds"]) - 1}')
    tested = np.array(found["folds"][fold], np.int64)
    return np.setdiff1d(np.arange(n), tested) if training else tested
