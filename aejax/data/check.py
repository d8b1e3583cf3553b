"""`aejax data check SOURCE`: what may be wrong with a set, before anything is trained on it.

Every picture is decoded. Two are the same if their pixels are; they are nearly the same if their
gray 32 x 32 thumbnails, as they are or flipped, are correlated by more than `NEAR`: a photograph
that was compressed, resized, brightened or mirrored. Flat pictures have no such thumbnail.

The verdict is "not good", and the exit status 2, if a picture cannot be used or is there twice, if
one is nearly the same as one of the other split, or if there are no two splits.
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
from aejax.data.source import Source, mark, open_source, usual_name
from aejax.errors import UserError

NEAR = 0.99
SIDE = 32  # of a thumbnail, in pixels
MOST = 100_000  # pictures that are compared with each other
_FLAT = 2.0  # standard deviation, of 255, below which a thumbnail says nothing
_BLOCK = 1024  # thumbnails compared with all others at once


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is known of one picture of a set."""

    split: str
    name: str
    shape: tuple[int, int]
    mode: str
    label: int
    pixels: int  # a mark of them
    thumbnail: np.ndarray | None  # float32 [SIDE * SIDE] of mean 0 and norm 1; None if flat

    def __str__(self) -> str:
        return f"{self.split} {self.name}"


Pair = tuple[Picture, Picture]


@dataclasses.dataclass
class Report:
    """What was found. `str(report)` is the text that the verb prints.

    Attributes:
      line: who is trained and who is tested on, or why there are no two splits.
      has_splits: whether there are.
      unusable: (split, name, reason).
      same, near: pairs of pictures; those of two splits come first.
      skipped: why the pictures were not compared, if they were not.
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
        """Whether nothing is wrong. What is nearly the same within one split only is no fault."""
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


def _counted(counts: collections.Counter, most: int = 6) -> str:
    shown = [f"{key} ({n:,})" for key, n in counts.most_common(most)]
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
    """Looks at every picture of a set; the arguments are those of `open_source`.

    Raises:
      UserError: no such set, or no picture in it that can be used.
    """
    options = {"data_dir": data_dir, "holdout": holdout, "min_size": min_size, "on_bad": "skip"}
    parts = {split: open_source(spec, split, **options)}
    line = ""
    try:
        parts[eval_split] = open_source(spec, eval_split, **options)
    except UserError as e:
        line = str(e)
    for where in set.intersection(*(set(s.rest) for s in parts.values())):
        if where != "beside":
            parts[usual_name(where.strip("/"))] = open_source(spec, where.strip("/"), **options)
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
        beside = parts[split].rest.get("beside", ())
        line += f"; {len(beside):,} beside the split folders are not used" if beside else ""
    same = _same(pictures)
    few = len(pictures) <= MOST
    return Report(
        name=spec,
        line=line,
        has_splits=eval_split in parts,
        pictures=pictures,
        unusable=unusable,
        class_names=parts[split].class_names,
        same=same,
        near=near_pairs(pictures) if few else [],
        skipped="" if few else f"thumbnails of more than {MOST:,} pictures",
    )


def _pictures(source: Source, split: str) -> Iterator[Picture | str]:
    """Each picture of a source, or why it cannot be decoded; by threads, in order."""

    def one(i: int) -> Picture | str:
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
        pixels = mark(repr(x.shape).encode() + x.tobytes())
        return Picture(split, source.names[i], x.shape[:2], mode, label, pixels, thumbnail(x))

    with ThreadPoolExecutor() as pool:
        for first in range(0, len(source), 256):  # few at a time: results hold no pictures
            yield from pool.map(one, range(first, min(first + 256, len(source))))


def thumbnail(x: np.ndarray) -> Float[np.ndarray, "1024"] | None:
    """The gray thumbnail of an image, uint8 [h, w, 1 or 3], less its mean and with norm 1; None if
    the image is flat."""
    from PIL import Image

    im = Image.fromarray(decode.flatten(x, 1)[..., 0])
    small = np.asarray(im.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    norm = float(np.linalg.norm(small))
    return small / norm if norm > _FLAT * SIDE else None


def _crosses(pair: Pair) -> bool:
    return pair[0].split != pair[1].split


def _same(pictures: Sequence[Picture]) -> list[Pair]:
    """Each picture that was there before, with the first of its kind."""
    first: dict[int, Picture] = {}
    pairs = []
    for picture in pictures:
        before = first.setdefault(picture.pixels, picture)
        if before is not picture:
            pairs.append((before, picture))
    return sorted(pairs, key=_crosses, reverse=True)


def near_pairs(pictures: Sequence[Picture]) -> list[Pair]:
    """Each picture with the first before it of which the thumbnail, flipped or not, is nearly the
    same, though not the pixels; and with the first such one of another split."""
    shown = [p for p in pictures if p.thumbnail is not None]
    if len(shown) < 2:
        return []
    thumbnails = [p.thumbnail for p in shown if p.thumbnail is not None]
    square = np.stack(thumbnails).reshape(-1, SIDE, SIDE)
    flat = square.reshape(len(shown), -1)
    pixels = np.array([p.pixels for p in shown], np.uint64)
    splits = np.unique([p.split for p in shown], return_inverse=True)[1]
    within, across = np.full(len(shown), -1), np.full(len(shown), -1)
    for flipped in (square, square[:, :, ::-1], square[:, ::-1]):
        form = np.ascontiguousarray(flipped).reshape(flat.shape)
        for i, j in _candidates(flipped, square):
            near = np.einsum("pk,pk->p", form[i], flat[j]) > NEAR
            near &= pixels[i] != pixels[j]
            for first, here in ((within, near), (across, near & (splits[i] != splits[j]))):
                for a, b in zip(i[here].tolist(), j[here].tolist(), strict=True):
                    first[b] = a if first[b] < 0 else min(a, first[b])
    pairs = {(int(first[b]), int(b)) for first in (within, across) for b in np.where(first >= 0)[0]}
    in_order = [(shown[a], shown[b]) for a, b in sorted(pairs)]
    return sorted(in_order, key=_crosses, reverse=True)


def _candidates(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, j) with i < j of all thumbnails a[i], b[j] that may be near, and of some that are not.

    The means of 4 x 4 pixels, times 4, are an orthogonal projection: they are no further apart than
    the thumbnails, and 16 times fewer.
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
