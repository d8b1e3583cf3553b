"""Random folders of pictures: no file in two splits, and none lost in silence."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from aejax.data.splits import open_splits
from aejax.errors import UserError
from tests.data.data_helpers import picture, png
from tests.data.test_pipeline import config

FOLDERS = ("train", "Train", "training", "val", "VALID", "validation", "test", "Testing", "cat",
           "dog", "photos", "a b", "ü", ".hidden", "__MACOSX", "train2", "tests")  # fmt: skip
FILES = (
    "a.png",
    "b.PNG",
    "c.png",
    "ü.png",
    "x y.png",
    "._a.png",
    ".DS_Store",
    "notes.txt",
    "d.gif",
)
SUBFOLDERS = ("", "", "", "cat", "dog", ".hidden", "train", "test")


@st.composite
def layouts(draw):
    """(files, links) in a few folders: (folder, name, content) and (folder, name, target)."""
    tops = draw(st.lists(st.sampled_from(FOLDERS), max_size=3, unique=True))
    folder = st.tuples(st.sampled_from(["", *tops]), st.sampled_from(SUBFOLDERS)).map(
        lambda parts: "/".join(filter(None, parts))
    )
    file = st.tuples(folder, st.sampled_from(FILES), st.integers(0, 40))
    target = st.tuples(folder, st.sampled_from(("", "", "a.png"))).map("/".join)
    link = st.tuples(folder, st.sampled_from(("l.png", "loop", "test", "train", "m")), target)
    return draw(st.lists(file, min_size=4, max_size=25)), draw(st.lists(link, max_size=3))


BYTES = [png(picture(4, 4, seed=i)) for i in range(41)]


def build(root, files, links, alike):
    """Files (all different unless `alike`) and then links, where there is room for them."""
    for i, (where, name, content) in enumerate(files):
        data = BYTES[content] if alike else BYTES[content] + bytes([i])  # PNG ends before it
        with contextlib.suppress(OSError):
            (root / where).mkdir(parents=True, exist_ok=True)
            (root / where / name).write_bytes(data)
    for where, name, target in links:
        with contextlib.suppress(OSError):
            (root / where).mkdir(parents=True, exist_ok=True)
            (root / where / name).symlink_to(os.path.relpath(root / target, root / where))


def real_pictures(root):
    """The real paths of all pictures that one sees in a folder, without what is hidden."""
    seen = set()
    for here, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith((".", "__"))]
        seen |= {os.path.realpath(os.path.join(here, n)) for n in names
                 if n.lower().endswith((".png", ".gif")) and n[0] != "."}  # fmt: skip
    return {path for path in seen if os.path.isfile(path)}


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    layout=layouts(),
    alike=st.booleans(),
    holdout=st.sampled_from((0, 2, 3, 10)),
    split=st.sampled_from(("train", "train", "train", "train", "all", "val", "Training")),
    eval_split=st.sampled_from(("test", "test", "test", "val", "all", "train")),
    on_bad=st.sampled_from(("error", "skip", "skip")),
)
def test_splits_share_nothing_and_lose_nothing(layout, alike, holdout, split, eval_split, on_bad):
    with tempfile.TemporaryDirectory() as top:
        root = Path(top) / "set"
        root.mkdir()
        build(root, *layout, alike)
        c = config(source=f"folder:{root}", holdout=holdout, split=split, eval_split=eval_split,
                   on_bad=on_bad)  # fmt: skip
        try:
            splits = open_splits(c)
        except UserError as e:
            assert "\n" not in str(e)
            event("refused")
            return
        event("the same" if splits.same else "decided")
        train, test = ([path for path, _ in s.items] for s in (splits.train, splits.test))
        unused = splits.unused
        if splits.same:
            assert train == test
        else:
            real = [{os.path.realpath(p) for p in part} for part in (train, test)]
            assert not real[0] & real[1], "a file in both"
            content = [{Path(p).read_bytes() for p in part} for part in (train, test)]
            assert not content[0] & content[1], "a content in both"
        for place in unused:
            assert place in splits.line or f"{len(unused[place]):,} beside" in splits.line
        known = {os.path.realpath(p) for p in train + test}
        for place, names in unused.items():
            base = root if place == "beside" else root / place
            known |= {os.path.realpath(base / name) for name in names}
        bad = {name for s in (splits.train, splits.test) for name, _ in s.bad}
        whole = real_pictures(root)
        if (
            split in ("all", "train", "Training")
            and eval_split not in ("all", "train")
            or (split == eval_split == "all")
        ):
            for path in whole - known:
                assert any(path.endswith(name) for name in bad), f"{path} is lost"
        assert len(splits.train) and len(splits.test)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(layout=layouts())
def test_the_fingerprint_follows_every_picture(layout):
    with tempfile.TemporaryDirectory() as top:
        root = Path(top) / "set"
        root.mkdir()
        build(root, *layout, False)
        c = config(source=f"folder:{root}", holdout=2, on_bad="skip")

        def prints():
            try:
                splits = open_splits(c)
            except UserError as e:
                return str(e), ()
            return splits.fingerprints, [os.path.realpath(p) for s in (splits.train, splits.test)
                                         for p, _ in s.items]  # fmt: skip

        before, used = prints()
        assert prints()[0] == before
        for path in used[:1]:
            kept = Path(path).read_bytes()
            Path(path).write_bytes(kept + b"more")
            assert prints()[0] != before
            shutil.move(path, str(Path(top) / "away"))
            assert prints()[0] != before
            Path(path).write_bytes(kept)
            assert prints()[0] == before
