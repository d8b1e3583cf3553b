"""Who is trained on and who is tested on: never the same picture, and none lost in silence."""

import os
import shutil

import pytest

from aejax.data import folds
from aejax.data.images import write_image
from aejax.data.pipeline import make_pipeline
from aejax.data.source import ordinal
from aejax.data.splits import open_splits
from aejax.errors import UserError
from tests.data.data_helpers import picture, png
from tests.data.test_pipeline import config


def make(root, layout, seed=0):
    """A folder with `n` pictures, each of its own content, in each place of {place: n}."""
    for place, n in layout.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (root / place / f"{i:02d}.png").write_bytes(png(picture(8, 8, seed=seed)))
            seed += 1
    return root


def split(root, **data):
    c = config(source=f"folder:{root}", **{"holdout": 5, **data})
    return open_splits(c)


def places(source, root):
    """Paths of the files of a source relative to a folder."""
    return sorted(os.path.relpath(path, root) for path, _ in source.items)


@pytest.mark.parametrize(
    "layout, options, counts, line",
    [
        ({"": 10}, {}, (8, 2), "8 pictures train, 2 test: every 5th held out"),
        ({"train": 10, "val": 4}, {}, (10, 4), "10 pictures train, 4 test: train/ and val/"),
        ({"train": 10}, {}, (8, 2), "8 pictures train, 2 test: every 5th of train/ held out"),
        ({"test": 10}, {}, (8, 2), "8 pictures train, 2 test: every 5th of test/ held out"),
        ({"test": 3, "": 27}, {}, (27, 3), "27 pictures train, 3 test: what is beside test/ and "
         "test/"),
        ({"Test": 3, "cat": 9, "dog": 9}, {}, (18, 3), "what is beside Test/ and Test/"),
        ({"Train": 10, "Test": 4}, {}, (10, 4), "10 pictures train, 4 test: Train/ and Test/"),
        ({"training": 10, "testing": 4}, {}, (10, 4), "training/ and testing/"),
        ({"TRAIN": 6, "Valid": 4}, {}, (6, 4), "TRAIN/ and Valid/"),
        ({"train": 6, "validation": 4}, {"eval_split": "val"}, (6, 4), "train/ and validation/"),
        ({"train": 6, "val": 4, "test": 3}, {}, (6, 3),
         "6 pictures train, 3 test: train/ and test/; not used: 4 of val/"),
        ({"train": 6, "val": 4, "test": 3}, {"eval_split": "validation"}, (6, 4),
         "train/ and val/; not used: 3 of test/"),
        ({"train/cat": 6, "train/dog": 3, "test/cat": 2, "test/ant": 2}, {}, (9, 4),
         "train/ and test/"),
        ({"train": 6, "test": 3, "": 4}, {}, (6, 3),
         "train/ and test/; not used: 4 beside the split folders (00.png, 01.png, 02.png, ...)"),
        ({"train": 5, "test": 3, "more": 1}, {}, (5, 3),
         "not used: 1 beside the split folders (more/00.png)"),
        ({"train": 10, "": 2}, {}, (8, 2),
         "every 5th of train/ held out; not used: 2 beside the split folders (00.png, 01.png)"),
        ({"train": 6, "val": 4, "test": 3}, {"split": "val"}, (4, 3), "and test/; not used: 6"),
        ({"": 10}, {"split": "all", "eval_split": "all"}, (10, 10),
         '10 pictures, trained and tested on the same: data.split and data.eval_split are "all"'),
        ({"train": 5, "test": 5}, {"split": "all", "eval_split": "all"}, (10, 10), "the same"),
    ],
)  # fmt: skip
def test_both_splits_are_decided_together(tmp_path, layout, options, counts, line):
    root = make(tmp_path / "set", layout)
    found = split(root, **options)
    assert (len(found.train), len(found.test)) == counts
    assert line in found.line
    train, test = places(found.train, root), places(found.test, root)
    if not found.same:
        assert not set(train) & set(test)
        unused = sum(len(names) for names in found.unused.values())
        assert len(train) + len(test) + unused == sum(layout.values()), "none is lost in silence"


@pytest.mark.parametrize(
    "layout, options, reason",
    [
        ({"train": 3, "training": 3}, {}, "train/ and training/ are both a train split; rename"),
        ({"val": 3, "test": 3}, {}, 'no split "train"; it has test, val and all'),
        ({"train": 3, "car": 3, "plane": 3}, {}, "train/ beside car/, plane/: a split or a class"),
        ({"cat/train": 3, "cat/test": 2, "dog/train": 3}, {}, "cat/ holds train and test folders"),
        ({"set/Train": 3, "set/val": 2}, {}, "folder:.*set/set, or put the split folders on top"),
        ({"train": 5}, {"holdout": 0}, "train, the only split there is, .*data.holdout = 0"),
        ({"train": 5, "test": 3}, {"eval_split": "eval"}, 'no split "eval"; it has test, train'),
        (
            {"": 9},
            {"split": "all"},
            r"1 of 9 pictures of .* all are in .* test too: 04.png; remove",
        ),
        ({"train": 9, "test": 4}, {"eval_split": "all"}, "9 of 9 pictures .*00.png = train/00.png"),
        ({"train": 9, "val": 4}, {"split": "val"}, "4 of 4 pictures .*: 00.png, 01.png, 02.png, "),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, layout, options, reason):
    root = make(tmp_path / "set", layout)
    with pytest.raises(UserError, match=reason) as e:
        split(root, **options)
    assert "\n" not in str(e.value)


def test_an_empty_split_folder_is_refused(tmp_path):
    root = make(tmp_path / "set", {"train": 3})
    (root / "test").mkdir()
    with pytest.raises(UserError, match="no images in .*test; fill or remove"):
        split(root)


def test_classes_are_those_of_both_splits(tmp_path):
    layout = {"train/cat": 6, "train/dog": 3, "test/cat": 2, "test/ant": 2}
    found = split(make(tmp_path / "set", layout))
    for source in (found.train, found.test):
        assert source.class_names == ("ant", "cat", "dog")
        for i, name in enumerate(source.names):
            assert source.class_names[source.read(i)[1]] == name.split("/")[0]
    beside = split(make(tmp_path / "beside", {"cat": 6, "dog": 3, "test/cat": 2}))
    assert beside.train.class_names == beside.test.class_names == ("cat", "dog")


def test_a_file_in_both_splits_is_an_error_that_names_three(tmp_path):
    root = make(tmp_path / "set", {"train": 6, "test": 2})
    for i in range(4):  # by content, under other names
        shutil.copy(root / "train" / f"{i:02d}.png", root / "test" / f"copy{i}.png")
    with pytest.raises(UserError, match="4 of 6 .*: 00.png = copy0.png, 01.png = copy1.png, ") as e:
        split(root)
    assert "copy3" not in str(e.value) and "data.on_bad=skip" in str(e.value)
    found = split(root, on_bad="skip")
    assert places(found.train, root) == ["train/04.png", "train/05.png"] and len(found.test) == 6
    assert "left out of the training: 4 that are in the test split" in found.line
    assert found.train.key != split(make(tmp_path / "b", {"train": 6, "test": 2})).train.key


@pytest.mark.parametrize("link", ["file", "folder", "split"])
def test_a_link_into_the_other_split_is_an_error(tmp_path, link):
    root = make(tmp_path / "set", {"train/cat": 4, "test/cat": 2})
    if link == "file":
        (root / "test" / "cat" / "x.png").symlink_to(root / "train" / "cat" / "00.png")
    elif link == "folder":
        (root / "test" / "dog").symlink_to("../train/cat")
    else:
        shutil.rmtree(root / "test")
        (root / "test").symlink_to("train")
    with pytest.raises(UserError, match="of 4 pictures of .* are in .* too: cat/00.png"):
        split(root)


def test_another_evaluation_set(tmp_path):
    root = make(tmp_path / "a", {"": 10})
    make(tmp_path / "b", {"": 6}, seed=50)
    found = split(root, eval_source=f"folder:{tmp_path}/b", eval_split="all")
    assert (len(found.train), len(found.test)) == (8, 6)
    assert f"8 pictures train, 6 test: folder:{root} train (every 5th held out) and" in found.line
    found = split(root, eval_source=f"folder:{tmp_path}/b")
    assert len(found.test) == 1 and "data.eval_split=all tests on all of that set" in found.line
    shutil.copy(root / "00.png", tmp_path / "b" / "again.png")
    with pytest.raises(UserError, match="1 of 8 .* 00.png = again.png"):
        split(root, eval_source=f"folder:{tmp_path}/b", eval_split="all")
    (tmp_path / "same").symlink_to(root)  # the same folder by another name
    with pytest.raises(UserError, match="8 of 8 .* 00.png, 01.png, 02.png, "):
        split(root, eval_source=f"folder:{tmp_path}/same", eval_split="all")


def test_folds_share_nothing(tmp_path):
    root = make(tmp_path / "set", {"": 9})
    shutil.copy(root / "00.png", root / "99.png")
    halves = folds.Folds(10, 0, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    folds.write(tmp_path / "folds.json", halves)
    with pytest.raises(UserError, match="1 of 5 pictures of .* without fold 0 .* 99.png = 00.png"):
        split(root, split="all", holdout=0, folds=str(tmp_path / "folds.json"))
    (root / "99.png").write_bytes(png(picture(8, 8, seed=99)))
    found = split(root, split="all", holdout=0, folds=str(tmp_path / "folds.json"), fold=1)
    assert found.line == f"5 pictures train, 5 test: fold 1 of 2 in {tmp_path}/folds.json"


def test_tfds_splits_that_overlap(toy_tfds):
    c = config(source="tfds:toy_photos", eval_split="train[5:]", size=(8, 8))
    both = r"2 of 7 pictures .*: toy_photos\[5\] = toy_photos\[0\], .*data.split"
    with pytest.raises(UserError, match=both):
        open_splits(c, toy_tfds)
    c.data.split = "train[:5]"
    assert open_splits(c, toy_tfds).line == "5 pictures train, 2 test: train[:5] and train[5:]"
    c.data.split, c.data.eval_split = "train", "test"
    assert open_splits(c, toy_tfds).line == "7 pictures train, 3 test: train and test"


def test_bundled_sets_say_their_split():
    assert "1,618 pictures train, 179 test: every 10th held out" in open_splits(config()).line
    photos = open_splits(config(source="bundled:photos"))
    assert photos.line == "8 pictures train, 3 test: a fixed split"


def test_the_test_split_has_the_channels_of_the_training(tmp_path):
    for i in range(10):
        write_image(tmp_path / f"{i}.png", picture(8, 8, 3 if i == 9 else 1, seed=i))
    c = config(source=f"folder:{tmp_path}", holdout=5)
    train, test = (make_pipeline(c, training=t) for t in (True, False))
    assert train.example_shape == test.example_shape == (8, 8, 1)


def test_what_changes_the_fingerprint(tmp_path):
    root = make(tmp_path / "set", {"train": 5, "test": 5})
    (root / "train" / "raw.bmp").write_bytes(b"")
    write_image(root / "train" / "raw.bmp", picture(100, 100))
    before = split(root).fingerprints
    assert before == split(root).fingerprints and before["train"] != before["test"]
    data = bytearray((root / "train" / "raw.bmp").read_bytes())
    data[len(data) // 2] ^= 255  # neither its length nor its ends change
    (root / "train" / "raw.bmp").write_bytes(data)
    changed = split(root).fingerprints
    assert changed["train"] != before["train"] and changed["test"] == before["test"]
    make(root, {"test/more": 1}, seed=50)
    added = split(root).fingerprints
    assert added["test"] != before["test"] and added["train"] == changed["train"]
    shutil.rmtree(root / "test" / "more")
    assert split(root).fingerprints == changed
    (root / "test" / "00.png").unlink()
    assert split(root).fingerprints["test"] not in (before["test"], added["test"])


def test_ordinals():
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 20, 21, 22, 112)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "20th", "21st", "22nd", "112th")
    ]


def test_real_photos_keep_their_split(real_data):
    c = config(source="folder:train/photos", holdout=20)
    found = open_splits(c, real_data)
    assert found.line == "659 pictures train, 34 test: every 20th held out"
    everything = sorted([*found.train.names, *found.test.names])
    assert list(found.test.names) == everything[19::20]
