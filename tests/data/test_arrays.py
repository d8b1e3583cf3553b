import pickle
import sys

import numpy as np
import pytest

from aejax.data.arrays import from_arrays
from aejax.data.decoded import decoded
from aejax.data.pipeline import Pipeline, make_pipeline
from aejax.data.source import open_source
from aejax.data.splits import open_splits
from aejax.errors import UserError
from tests.data.data_helpers import picture, png
from tests.data.test_pipeline import config

X = np.stack([picture(6, 8, 3, seed=i) for i in range(20)])
Y = np.arange(20) % 3


@pytest.mark.parametrize("kind", ["npy", "npz", "memory"])
def test_the_same_images_from_a_file_or_from_python(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("AEJAX_DATA", str(tmp_path))
    data = None
    if kind == "npy":
        np.save(tmp_path / "x.npy", X)
    elif kind == "npz":
        np.savez(tmp_path / "x.npz", images=X, labels=Y)
    else:
        data = (X, Y)
    c = config(source="bundled:digits" if data else f"arrays:x.{kind}", holdout=5, batch=4)
    splits = open_splits(c, data=data)
    assert splits.line == "16 pictures train, 4 test: every 5th held out"
    for training, rows in ((True, np.flatnonzero(np.arange(20) % 5 != 4)), (False, [4, 9, 14, 19])):
        source = splits[training]
        assert source.class_names == (() if kind == "npy" else ("0", "1", "2"))
        pipeline = make_pipeline(c, training=training, splits=splits)
        for reader in (
            source,
            decoded(source),
            pipeline.reader,
            pickle.loads(pickle.dumps(source)),
        ):
            for i, row in enumerate(rows):
                x, label = reader.read(i)
                np.testing.assert_array_equal(x, X[row])
                assert label == (-1 if kind == "npy" else Y[row])
        pipeline.close()


def test_a_npy_file_is_mapped_not_pickled(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4000, 16, 16, 3), np.uint8))
    source = open_source(f"arrays:{tmp_path}/x.npy", "all")
    source.read(0)
    assert len(pickle.dumps(source)) < 200_000, "3 MB of images do not go to each worker"


@pytest.mark.parametrize("cache", ["device", "memmap", "stream"])
def test_every_cache_takes_arrays(tmp_path, cache):
    np.save(tmp_path / "x.npy", X)
    for source in (from_arrays(X, "all"), open_source(f"arrays:{tmp_path}/x.npy", "all")):
        pipeline = Pipeline(source, batch=20, cache=cache)
        x = pipeline.images(
            pipeline.resident, {k: v[0] for k, v in pipeline.dispatch(0, 1).items()}
        )
        rows = pipeline.batches.draws.rows(0, 20)
        np.testing.assert_allclose(x["image"], X[rows] / np.float32(255), rtol=1e-6)
        pipeline.close()


@pytest.mark.parametrize(
    "x, want",
    [
        (X, X),
        (X.astype(">f4") / 255, X),
        (X / 255.0, X),
        ((X.astype(np.uint16) * 257).astype(">u2"), X),
        (X[..., 0] > 100, (X[..., :1] > 100) * np.uint8(255)),
        (X[..., 0], X[..., :1]),
        (np.concatenate([X, np.full_like(X[..., :1], 255)], -1), X),
    ],
)
def test_kinds_of_arrays(x, want, tmp_path):
    np.save(tmp_path / "x.npy", x)
    for source in (from_arrays(x, "all"), open_source(f"arrays:{tmp_path}/x.npy", "all")):
        got = np.stack([source.read(i)[0] for i in range(len(source))])
        assert got.dtype == np.uint8 and source.shape == want.shape[1:]
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "data, reason",
    [
        (X.astype(np.int64), r"is of int64; .* if its values are 0 to 255: x.astype\(np.uint8\)"),
        (X.astype(np.complex64), "is of complex64"),
        (X.transpose(0, 3, 1, 2), r"channels come last: x.transpose\(0, 2, 3, 1\)"),
        (X.reshape(20, -1), "data is an array of images"),
        (X[:0], "images are"),
        (X.astype(np.float32), r"floats are images in \[0, 1\]; there are values from 0 to"),
        (np.where(X < 3, np.nan, X / 255.0), r"floats are images in \[0, 1\]"),
        ((X, Y[:7]), r"labels of shape \(7,\) for 20 images"),
        ((X, Y / 2), "labels are integers or text, not float64"),
        ("x.npy", "data is an array"),
    ],
)
def test_arrays_that_are_no_images(data, reason):
    with pytest.raises(UserError, match=reason) as e:
        from_arrays(data)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("form", ["x_{}", "{}_images"])
def test_a_npz_that_is_split_already(tmp_path, form):
    labels = {"x_{}": "y_{}", "{}_images": "{}_labels"}[form]
    arrays = {}
    for name, rows in (("train", slice(0, 12)), ("test", slice(12, 16)), ("val", slice(16, 20))):
        arrays[form.format(name)] = X[rows]
        arrays[labels.format(name)] = Y[rows, None] + 5  # a column, as MedMNIST has it
    np.savez(tmp_path / "x.npz", **arrays)
    c = config(source=f"arrays:{tmp_path}/x.npz")
    splits = open_splits(c)
    assert splits.line == "12 pictures train, 4 test: train and test; not used: 4 of val"
    assert splits.train.class_names == splits.test.class_names == ("5", "6", "7")
    for source, first in ((splits.train, 0), (splits.test, 12)):
        np.testing.assert_array_equal(source.read(1)[0], X[first + 1])
        assert source.read(1)[1] == Y[first + 1]
    c.data.eval_split = "validation"
    assert open_splits(c).line == "12 pictures train, 4 test: train and val; not used: 4 of test"
    assert len(open_source(c.data.source, "all")) == 20
    arrays[form.format("test")] = X[10:14]  # two of the training
    np.savez(tmp_path / "x.npz", **arrays)
    c.data.eval_split = "test"
    with pytest.raises(UserError, match=r"2 of 12 .*: train\[10\] = test\[0\], train\[11\] = test"):
        open_splits(c)


def test_files_that_are_no_arrays(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    (tmp_path / "x.txt").write_text("")
    np.savez(tmp_path / "other.npz", a=X, b=Y)
    for file, reason in (
        ("objects.npy", "holds Python objects; save plain arrays"),
        ("broken.npz", "cannot be read"),
        ("x.txt", "is not a .npy or .npz"),
        ("gone.npy", 'no file "gone.npy": looked for'),
        ("other.npz", "has a, b; expected are images and labels"),
    ):
        with pytest.raises(UserError, match=reason):
            open_source(f"arrays:{file}", "all", data_dir=tmp_path)


def test_a_changed_array_changes_the_fingerprint(tmp_path):
    before = from_arrays((X, Y), "all").fingerprint
    changed = X.copy()
    changed[3, 2, 2, 1] ^= 1
    assert from_arrays((changed, Y), "all").fingerprint != before
    assert from_arrays((X, Y[::-1]), "all").fingerprint != before
    assert from_arrays((X[:-1], Y[:-1]), "all").fingerprint != before
    assert from_arrays((X.copy(), Y), "all").fingerprint == before
    duplicated = np.concatenate([X, X[:1]])  # 21 images: the last is held out by 7
    with pytest.raises(UserError, match=r"1 of 18 pictures .* 0 = 20"):
        open_splits(config(holdout=7), data=duplicated)


# --- datasets of Hugging Face ---------------------------------------------------------------------


@pytest.fixture
def toy_hub(tmp_path):
    """A DatasetDict on disk: 10 + 4 images of two sizes with labels."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({
        "kind": datasets.ClassLabel(names=["even", "odd"]), "photo": datasets.Image()
    })  # fmt: skip

    def part(first, n):
        rows = range(first, first + n)
        photos = [{"bytes": png(picture(8 + i % 2, 8, seed=i)), "path": None} for i in rows]
        kinds = [i % 2 for i in rows]
        return datasets.Dataset.from_dict({"photo": photos, "kind": kinds}, features)

    parts = datasets.DatasetDict({"train": part(0, 10), "validation": part(10, 4)})
    parts.save_to_disk(str(tmp_path / "hub"))
    parts["train"].save_to_disk(str(tmp_path / "single"))
    return tmp_path


def test_a_set_of_the_hub(toy_hub):
    c = config(source="hf:hub", crop=8)
    splits = open_splits(c, toy_hub)
    assert splits.line == "10 pictures train, 4 test: train and validation"
    for source, first in ((splits.train, 0), (splits.test, 10)):
        assert source.class_names == ("even", "odd") and source.channels == 3
        for reader in (source, pickle.loads(pickle.dumps(source)), decoded(source)):
            for i in range(len(source)):
                x, label = reader.read(i)
                want = picture(8 + i % 2, 8, seed=first + i)
                np.testing.assert_array_equal(x, want)
                assert label == (first + i) % 2
    c.data.split, c.data.eval_split = "train[:60%]", "train[60%:]"
    assert open_splits(c, toy_hub).line.startswith("6 pictures train, 4 test: train[:60%] and")
    c.data.split = "train[:70%]"
    with pytest.raises(
        UserError, match=r"1 of 7 pictures .*train\[:70%\]\[6\] = train\[60%:\]\[0\]"
    ):
        open_splits(c, toy_hub)
    c.data.source, c.data.split, c.data.eval_split, c.data.holdout = "hf:single", "train", "test", 5
    assert open_splits(c, toy_hub).line == "8 pictures train, 2 test: every 5th of train held out"
    assert len(open_source("hf:hub", "all", data_dir=toy_hub)) == 14


def test_mistakes_with_the_hub(toy_hub, monkeypatch):
    import datasets

    with pytest.raises(UserError, match=r'no split "trian\[:3\]"; it has train \(10\), validation'):
        open_source("hf:hub", "trian[:3]", data_dir=toy_hub)
    with pytest.raises(UserError, match='no split "extra"; it has train, val and all'):
        open_source("hf:hub", "extra", data_dir=toy_hub)
    text = datasets.Dataset.from_dict({"words": ["a"]})
    text.save_to_disk(str(toy_hub / "text"))
    with pytest.raises(UserError, match="has no column of images; it has words"):
        open_source("hf:text", data_dir=toy_hub)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: 1 / 0)
    with pytest.raises(UserError, match="hf:some/set cannot be loaded: division by zero"):
        open_source("hf:some/set")


def test_without_datasets_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'pip install "aejax\[hf\]"') as e:
        open_source("hf:mnist")
    assert "\n" not in str(e.value)


def test_a_name_on_the_hub_with_a_configuration(toy_hub, monkeypatch):
    """What `load_dataset` is asked for, and that a plain name and config reach it."""
    import datasets

    asked, whole = [], datasets.load_from_disk(str(toy_hub / "hub"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a: asked.append(a) or whole)
    assert len(open_source("hf:owner/photos:large", "train")) == 10
    assert len(open_source("hf:owner/photos", "val")) == 4
    assert asked == [("owner/photos", "large"), ("owner/photos", None)]
