"""`aejax data check SOURCE`: finds unreadable and duplicate images before training.

Every image is decoded. Two images are duplicates if their pixels are equal, and near duplicates if
their gray 32 x 32 thumbnails, flipped or not, have a correlation above `NEAR`: a photograph that
was compressed, resized, brightened or mirrored. Images of nearly one gray value are left out of
that.

The verdict is "not good", and the exit status 2, if an image cannot be used or is a duplicate, if
it has a near duplicate in the other split, or if the set has no two splits.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float

from aejax.data import decode, images
from aejax.data.folder import Files
from aejax.data.images import BadImage
from aejax.data.source import Source, canonical_split, content_hash, open_source
from aejax.errors import UserError

NEAR = 0.99
SIDE = 32  # of a thumbnail, in pixels
MAX_COMPARED = 100_000  # larger sets are not searched for near duplicates
_FLAT = 2.0  # standard deviation (of 0 to 255) below which a thumbnail is not compared
_BLOCK = 1024  # thumbnails per matrix product


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image of a data set, without its pixels."""

    split: str
    name: str
    shape: tuple[int, int]
    mode: str
    label: int
    pixels: int  # hash of shape and pixels
    thumbnail: np.ndarray | None  # float32 [SIDE * SIDE] of mean 0 and norm 1; None if flat

    def __str__(self) -> str:
        return f"{self.split} {self.name}"


Pair = tuple[Picture, Picture]


@dataclasses.dataclass
class Report:
    """The result of `check`. `str(report)` is the text that the command prints.

    Attributes:
      line: sizes of the splits and the rule that separates them, or why there are no two splits.
      has_splits: whether the set has two splits.
      unusable: (split, name, reason) of each image that cannot be decoded.
      same, near: pairs of duplicates and near duplicates; pairs across splits come first.
      skipped: why near duplicates were not searched for; "" if they were.
    """

    name: str
    line: str
    has_splits: bool
    pictures: list[Picture]
    unusable: list[tuple[str, str, str]]
    class_names: Sequence[str]
    same: list[Pair]
    near: list[Pair]
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether the verdict is "good". Near duplicates within one split do not count."""
        return self.has_splits and not (
            self.unusable or self.same or self.skipped or any(map(_crosses, self.near))
        )

    def __str__(self) -> str:
        sizes = collections.Counter("{} x {}".format(*p.shape) for p in self.pictures)
        modes = collections.Counter(p.mode for p in self.pictures)
        rows = [
            ("splits", self.line),
            ("sizes", _counted(sizes)),
            ("modes", _counted(modes)),
        ]
        if self.class_names:
            labels = collections.Counter(p.label for p in self.pictures)
            named = {c: labels[i] for i, c in enumerate(self.class_names)}
            rows.append(("classes", _counted(collections.Counter(named), 20)))
        bad = [f"{split} {name} ({reason})" for split, name, reason in self.unusable]
        rows += _listed("cannot be used", bad)
        for what, pairs in (("the same", self.same), ("nearly the same", self.near)):
            rows += _listed(what, [f"{a} = {b}" for a, b in pairs], sum(map(_crosses, pairs)))
        if self.skipped:
            rows.append(("not compared", self.skipped))
        rows.append(("verdict", "good" if self.ok else f"not good: {self._faults()}"))
        return "\n".join([f"{self.name}: {len(self.pictures):,} pictures"]
                         + [f"  {title:<16} {text}" for title, text in rows])  # fmt: skip

    def _faults(self) -> str:
        across = sum(map(_crosses, self.near))
        faults = [
            "no two splits" * (not self.has_splits),
            f"{len(self.unusable):,} cannot be used" * bool(self.unusable),
            f"{len(self.same):,} twice" * bool(self.same),
            f"{across:,} nearly the same in two splits" * bool(across),
            "not all compared" * bool(self.skipped),
        ]
        return ", ".join(filter(None, faults))


def _counted(counts: collections.Counter, limit: int = 6) -> str:
    shown = [f"{key} ({n:,})" for key, n in counts.most_common(limit)]
    others = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {others:,} others" if others else "")


def _listed(title: str, entries: list[str], across: int | None = None) -> list[tuple[str, str]]:
    count = f"{len(entries):,}"
    if across is not None and entries:
        count += f" pair{'s' * (len(entries) > 1)}, {across:,} in two splits"
    shown = [("", f"  {entry}") for entry in entries[:10]]
    if len(entries) > 10:
        shown.append(("", f"  and {len(entries) - 10:,} more"))
    return [(title, count), *shown]


def check(
    spec: str,
    split: str = "train",
    eval_split: str = "test",
    *,
    data_dir: str | os.PathLike | None = None,
    holdout: int = 10,
    min_size: int = 0,
) -> Report:
    """Decodes and compares all images of a set. The arguments are those of `open_source`.

    Raises:
      UserError: no such set, or no image in it can be used.

    >>> report = check("bundled:digits")
    >>> report.ok, len(report.pictures)
    (True, 1797)
    """
    options = {"data_dir": data_dir, "holdout": holdout, "min_size": min_size, "on_bad": "skip"}
    parts = {split: open_source(spec, split, **options)}
    line = ""
    try:
        parts[eval_split] = open_source(spec, eval_split, **options)
    except UserError as e:
        line = str(e)
    for where in set.intersection(*(set(s.outside) for s in parts.values())):
        if where != "beside":
            parts[canonical_split(where.strip("/"))] = open_source(
                spec, where.strip("/"), **options
            )
    pictures: list[Picture] = []
    unusable = []
    for part, source in parts.items():
        unusable += [(part, name, reason) for name, reason in source.bad]
        for i, picture in enumerate(_pictures(source, part)):
            if isinstance(picture, str):
                unusable.append((part, source.names[i], picture))
            else:
                pictures.append(picture)
    if not line:
        counts = [f"{len(s):,} {part}" for part, s in parts.items()]
        how = dict.fromkeys(s.part for s in parts.values())
        line = f"{', '.join(counts)}: {' and '.join(how)}"
        beside = parts[split].outside.get("beside", ())
        line += f"; {len(beside):,} beside the split folders are not used" if beside else ""
    same = _same(pictures)
    is_compared = len(pictures) <= MAX_COMPARED
    return Report(
        name=spec,
        line=line,
        has_splits=eval_split in parts,
        pictures=pictures,
        unusable=unusable,
        class_names=parts[split].class_names,
        same=same,
        near=near_pairs(pictures) if is_compared else [],
        skipped="" if is_compared else f"thumbnails of more than {MAX_COMPARED:,} pictures",
    )


def _pictures(source: Source, split: str) -> Iterator[Picture | str]:
    """Each image of a source in order, or the reason why it cannot be decoded; uses threads."""

    def decode_one(i: int) -> Picture | str:
        try:
            if isinstance(source, Files):
                x, meta = images.read_image(source.items[i][0], name=source.names[i])
                x, mode, label = decode.flatten(x), meta.mode, source.items[i][1]
            else:
                x, label = source.read(i)
                mode = "gray" if x.shape[2] == 1 else "RGB"
        except BadImage as e:
            return e.reason
        except UserError as e:
            return str(e)
        pixels = content_hash(repr(x.shape).encode() + x.tobytes())
        return Picture(split, source.names[i], x.shape[:2], mode, label, pixels, thumbnail(x))

    with ThreadPoolExecutor() as pool:
        for first in range(0, len(source), 256):  # bounds the number of pending results
            yield from pool.map(decode_one, range(first, min(first + 256, len(source))))


def thumbnail(x: np.ndarray) -> Float[np.ndarray, "1024"] | None:
    """The gray thumbnail of an image uint8 [h, w, 1 or 3], with mean 0 and norm 1; None if its
    standard deviation is below `_FLAT`."""
    from PIL import Image

    im = Image.fromarray(decode.flatten(x, 1)[..., 0])
    small = np.asarray(im.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    norm = float(np.linalg.norm(small))
    return small / norm if norm > _FLAT * SIDE else None


def _crosses(pair: Pair) -> bool:
    return pair[0].split != pair[1].split


def _same(pictures: Sequence[Picture]) -> list[Pair]:
    """(first, duplicate) for every image whose pixels occurred before."""
    first: dict[int, Picture] = {}
    pairs = []
    for picture in pictures:
        before = first.setdefault(picture.pixels, picture)
        if before is not picture:
            pairs.append((before, picture))
    return sorted(pairs, key=_crosses, reverse=True)


def near_pairs(pictures: Sequence[Picture]) -> list[Pair]:
    """Near duplicates that are not duplicates: each image with the first earlier image whose
    thumbnail matches, and with the first such image of another split."""
    compared = [p for p in pictures if p.thumbnail is not None]
    if len(compared) < 2:
        return []
    thumbnails = [p.thumbnail for p in compared if p.thumbnail is not None]
    square = np.stack(thumbnails).reshape(-1, SIDE, SIDE)
    flat = square.reshape(len(compared), -1)
    pixels = np.array([p.pixels for p in compared], np.uint64)
    splits = np.unique([p.split for p in compared], return_inverse=True)[1]
    within, across = np.full(len(compared), -1), np.full(len(compared), -1)
    for flipped in (square, square[:, :, ::-1], square[:, ::-1]):
        form = np.ascontiguousarray(flipped).reshape(flat.shape)
        for i, j in _candidates(flipped, square):
            near = np.einsum("pk,pk->p", form[i], flat[j]) > NEAR
            near &= pixels[i] != pixels[j]
            for first, matches in ((within, near), (across, near & (splits[i] != splits[j]))):
                for a, b in zip(i[matches].tolist(), j[matches].tolist(), strict=True):
                    first[b] = a if first[b] < 0 else min(a, first[b])
    pairs = {(int(first[b]), int(b)) for first in (within, across) for b in np.where(first >= 0)[0]}
    in_order = [(compared[a], compared[b]) for a, b in sorted(pairs)]
    return sorted(in_order, key=_crosses, reverse=True)


def _candidates(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs (i, j), i < j, that include all near duplicates a[i], b[j] and some others.

    The means of 4 x 4 pixels, times 4, are an orthogonal projection of the thumbnails to a 16th of
    their size, so their distance is a lower bound.
    """
    n = len(a)
    p, q = (x.reshape(n, 8, 4, 8, 4).mean((2, 4)).reshape(n, 64) * 4 for x in (a, b))
    one = np.ones((n, 1), np.float32)
    p = np.hstack([2 * p, -one, -np.square(p).sum(1, keepdims=True)])
    q = np.hstack([q, np.square(q).sum(1, keepdims=True), one])  # p @ q: minus squared distances
    for start in range(0, n, _BLOCK):
        near = p[start : start + _BLOCK] @ q[start:].T > 2 * NEAR - 2 - 1e-5
        i, j = np.nonzero(np.triu(near, 1))
        for first in range(0, len(i), 1 << 17):
            part = slice(first, first + (1 << 17))
            yield i[part] + start, j[part] + start
