import dataclasses
import os
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax import config as configs
from aejax.data import folds
from aejax.data.images import write_image
from aejax.data.pipeline import Draws, Pipeline, make_pipeline
from aejax.data.source import open_source
from aejax.errors import UserError
from tests.data.data_helpers import Spy, picture, png
from tests.helpers import PROGRAMS, wait_for


def config(**data):
    """base() with keys of `data` set, and of `eval` by a prefix."""
    c = configs.base()
    for name, value in data.items():
        group = c.eval if name.startswith("eval_") and name[5:] in ("batch", "crop") else c.data
        with group.ignore_type():
            group[name[5:] if group is c.eval else name] = value
    return c


def digits(process_index=0, process_count=1, **options):
    source = open_source("bundled:digits", "train")
    return Pipeline(source, process_index=process_index, process_count=process_count,
                    **{"batch": 16, "seed": 5, "crop": 6, "flip": True, **options})  # fmt: skip


@pytest.fixture
def equal_folder(tmp_path):
    """12 files of one size in two classes."""
    for i in range(12):
        path = tmp_path / "equal" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(24, 24, seed=i)))
    return tmp_path / "equal"


def seen(pipeline, step, k=1):
    """What the model sees of steps step ... step + k - 1: images [k, b, ...] and labels."""
    batch = pipeline.dispatch(step, k)
    steps = [jax.tree.map(lambda v: v[i], batch) for i in range(k)]  # noqa: B023
    out = [pipeline.images(pipeline.resident, b, None, True) for b in steps]
    return {name: np.stack([o[name] for o in out]) for name in out[0]}


# --- order ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 2**40))
def test_every_epoch_has_every_image_once(n, batch, seed):
    draws = Draws(n, seed)
    steps = -(-3 * n // batch)
    rows = np.concatenate([draws.rows(s * batch, batch) for s in range(steps)])[: 3 * n]
    for epoch in rows.reshape(3, n):
        assert sorted(epoch) == list(range(n))


def test_epochs_and_seeds_differ():
    a, b = Draws(100, 0), Draws(100, 1)
    assert list(a.rows(0, 100)) != list(a.rows(100, 100)) != list(b.rows(100, 100))
    np.testing.assert_array_equal(a.rows(30, 100), Draws(100, 0).rows(0, 200)[30:130])


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
@pytest.mark.parametrize("cache", ["device", "memmap", "stream"])
def test_the_batch_is_the_same_on_any_number_of_hosts(hosts, cache):
    whole = seen(digits(cache=cache), 200, 2)  # the border of two epochs is in it
    parts = [seen(digits(i, hosts, cache=cache), 200, 2) for i in range(hosts)]
    for name in ("image", "label"):
        joined = np.concatenate([p[name] for p in parts], axis=1)
        np.testing.assert_array_equal(joined, whole[name])


# --- the three ways to keep images are one --------------------------------------------------------


@pytest.mark.parametrize("crop", [0, 10, 24])
def test_device_memmap_and_stream_give_the_same(equal_folder, crop):
    source = open_source(f"folder:{equal_folder}", "all")
    options = {"batch": 5, "seed": 2, "crop": crop, "flip": True, "rotate": True}
    kept = [Pipeline(source, cache=c, **options) for c in ("device", "memmap", "stream")]
    assert [p.cache for p in kept] == ["device", "memmap", "stream"]
    assert kept[0].resident["image"].dtype == np.uint8 and kept[1].resident is None
    for step in (0, 2, 77):
        first, *others = (seen(p, step) for p in kept)
        side = crop or 24
        assert first["image"].shape == (1, 5, side, side, 3) and first["label"].shape == (1, 5)
        assert first["image"].dtype == np.float32 and 0.3 < first["image"].max() <= 1
        for other in others:
            np.testing.assert_array_equal(first["image"], other["image"])
            np.testing.assert_array_equal(first["label"], other["label"])
    assert (seen(kept[0], 0)["image"] != seen(kept[0], 1)["image"]).any()


def test_images_are_the_stored_pixels_over_255(equal_folder):
    source = open_source(f"folder:{equal_folder}", "all")
    pipeline = Pipeline(source, batch=12, seed=0)
    rows = pipeline.dispatch(0, 1)["row"][0]
    want = np.stack([source.read(i)[0] for i in rows]).astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(seen(pipeline, 0)["image"][0], want, rtol=1e-6)
    assert seen(pipeline, 0)["label"][0].tolist() == [source.read(i)[1] for i in rows]


def test_crops_of_images_of_many_sizes(folder):
    source = open_source(f"folder:{folder}", "all", min_size=20)
    pipeline = Pipeline(source, batch=13, crop=20, seed=0)
    assert pipeline.cache == "memmap" and pipeline.example_shape == (20, 20, 3)
    assert pipeline.n_train_batch == 1 and pipeline.n == 13
    batch = pipeline.dispatch(0, 1)["image"][0]
    rows = pipeline.batches.draws.rows(0, 13)
    corners = pipeline.batches.draws.corners(0, source.sizes[rows])
    for x, row, (top, left) in zip(batch, rows, corners, strict=True):
        want = source.read(row)[0][top : top + 20, left : left + 20]
        np.testing.assert_array_equal(x, want)


def test_sets_without_labels_have_none(tmp_path):
    write_image(tmp_path / "a.png", picture(9, 9))
    pipeline = Pipeline(open_source(f"folder:{tmp_path}", "all"), batch=2)
    assert set(seen(pipeline, 0)) == {"image"}


# --- reading ahead --------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["device", "memmap", "stream"])
def test_prefetch_is_dispatch(cache):
    pipeline = digits(cache=cache)
    chunks = list(pipeline.prefetch(3, 4, 13))
    assert [len(next(iter(f.values()))) for f in chunks] == [4, 4, 2]
    for start, got in zip((3, 7, 11), chunks, strict=True):
        want = pipeline.dispatch(start, min(4, 13 - start))
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
    assert pipeline.wait_seconds > 0


def test_threads_end_when_reading_does():
    pipeline = digits(cache="memmap")
    before = threading.active_count()
    one, two = (pipeline.prefetch(0, 1, 10**6) for _ in range(2))
    next(one), next(two)
    assert threading.active_count() == before + 2
    one.close()
    pipeline.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(two)


def test_an_error_while_reading_reaches_the_reader(folder):
    source = open_source(f"folder:{folder}", "all")
    pipeline = Pipeline(source, batch=4, crop=16, cache="stream")
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="no such file"):
        list(pipeline.prefetch(0, 1, 4))


def test_workers_of_a_stream(monkeypatch):
    """They give what the pipeline itself would, and see no accelerator."""
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")  # as the run's own would be
    monkeypatch.setattr("multiprocessing.shared_memory.SharedMemory", None)  # containers have 64 MB
    pipeline = digits(cache="stream", workers=2)
    pipeline.batches = dataclasses.replace(pipeline.batches, reader=Spy(pipeline.reader))
    made, labels = pipeline.prefetch(5, 3, 1000), []
    for start in range(5, 17, 3):
        got, want = next(made), pipeline.dispatch(start, 3)
        labels.append(got.pop("label"))
        for name in got:
            np.testing.assert_array_equal(got[name], want[name])
    made.close()
    assert os.environ["JAX_PLATFORMS"] == "no_such_platform"
    workers, facts = np.unique(np.concatenate(labels) // 4), np.unique(np.concatenate(labels) % 4)
    assert len(workers) == 2 and os.getpid() not in workers
    assert facts.tolist() == [2], "only a CPU can be found, and is not used"
    wait_until_gone(workers)


def wait_until_gone(pids):
    def are_gone():
        return not any(os.path.exists(f"/proc/{pid}") for pid in pids)

    wait_for(are_gone, 30, "workers that nobody reads to end")


def test_workers_outlive_signals_but_not_their_run():
    program = PROGRAMS / "killed_reader.py"
    process = subprocess.run([sys.executable, program], capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": os.getcwd()}, timeout=600)  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr
    wait_until_gone(list(map(int, process.stdout.split())))


def test_reading_needs_no_jax():
    """What workers import of this package must not cost them an accelerator's start."""
    program = PROGRAMS / "reading_without_jax.py"
    assert subprocess.run([sys.executable, program], timeout=240).returncode == 0


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("cache", ["auto", "memmap", "stream"])
@pytest.mark.parametrize("spec", ["digits", "folder", "crops"])
def test_evaluation_counts_every_example_once(folder, spec, cache, processes):
    crop = 16 if spec == "crops" else 0
    if spec == "digits":
        source = open_source("bundled:digits", "test")
    else:
        source = open_source(f"folder:{folder}", "all", min_size=crop)
    indices, shapes = [], []
    for p in range(processes):
        pipeline = Pipeline(source, batch=4, training=False, crop=crop, cache=cache,
                            process_index=p, process_count=processes)  # fmt: skip
        shapes.append([])
        for batch in pipeline.eval_batches(4):
            mask, index = batch.pop("mask"), batch.pop("index")
            x = pipeline.images(pipeline.resident, batch, None, False)
            shapes[-1].append(x["image"].shape)
            assert mask.dtype == np.float32 and len(mask) == len(index) == len(x["image"])
            for y, label, i in zip(x["image"], x["label"], index, strict=True):
                want, want_label = source.read(int(i))
                if crop:
                    top, left = (want.shape[0] - crop) // 2, (want.shape[1] - crop) // 2
                    want = want[top : top + crop, left : left + crop]
                np.testing.assert_allclose(y, want / np.float32(255), rtol=1e-6)
                assert label == want_label
            indices += index[mask > 0].tolist()
    assert sorted(indices) == list(range(len(source)))
    assert all(s == shapes[0] for s in shapes), "processes must take the same steps"


def test_more_processes_than_examples(tmp_path):
    write_image(tmp_path / "a.png", picture(9, 9))
    source, masks = open_source(f"folder:{tmp_path}", "all"), []
    for p in range(3):
        pipeline = Pipeline(source, batch=3, training=False, process_index=p, process_count=3)
        masks.append([b["mask"].sum() for b in pipeline.eval_batches(2)])
    assert masks == [[1.0], [0.0], [0.0]]


# --- configs --------------------------------------------------------------------------------------


def test_a_config_becomes_batches(folder):
    c = config(source=f"folder:{folder}", split="train", holdout=4, crop=16, batch=6, flip=True)
    train, test = (make_pipeline(c, training=t) for t in (True, False))
    assert (train.n, test.n) == (10, 3) and train.n_train_batch == 2
    assert train.example_shape == (16, 16, 3) and test.example_shape is None
    assert not set(train.source.names) & set(test.source.names)
    assert train.dispatch(0, 2)["image"].shape == (2, 6, 16, 16, 3)
    c = config(source=f"folder:{folder}", crop=16, eval_crop=16, size=(18,), channels=1)
    assert make_pipeline(c, training=False).example_shape == (16, 16, 1)
    c = config(source="bundled:digits", eval_source=f"folder:{folder}", eval_split="all")
    assert make_pipeline(c, training=True).example_shape == (8, 8, 1)
    assert make_pipeline(c, training=False).n == 13


@pytest.mark.parametrize(
    "data, reason",
    [
        ({}, "differ in size; set data.crop or data.size"),
        ({"cache": "device", "crop": 8}, "data.cache = device: the images of .* differ in size"),
        ({"cache": "disk", "crop": 8}, 'data.cache = "disk"; it is auto, device, memmap or stream'),
        ({"crop": 24}, r"5 of 13 images .* \(20 x 28, under the 24 needed\)"),
        ({"crop": -1}, "data.crop and data.workers at least 0"),
        ({"size": (3, 4, 5)}, "data.size"),
        ({"size": (16, 20), "rotate": True}, "needs square images, not 16 x 20"),
        ({"crop": 8, "batch": 5}, "data.batch = 5 does not divide over 2 processes"),
        ({"source": "folder:gone"}, "no folder"),
    ],
)
def test_bad_configs(folder, data, reason):
    c = config(**{"source": f"folder:{folder}", "split": "all", "eval_split": "all", **data})
    with pytest.raises(UserError, match=reason):
        make_pipeline(c, training=True, process_count=2)


def test_bad_images_in_a_config(folder):
    (folder / "cat" / "cut.png").write_bytes(png(picture(64, 64))[:-2000])
    for cache in ("memmap", "stream"):
        c = config(source=f"folder:{folder}", split="all", eval_split="all", crop=16, cache=cache)
        with pytest.raises(UserError, match="1 of 14 images .* cat/cut.png"):
            make_pipeline(c, training=True)
        c.data.on_bad = "skip"
        pipeline = make_pipeline(c, training=True)
        assert pipeline.n == 13 and [n for n, _ in pipeline.source.bad] == ["cat/cut.png"]


def test_a_small_set_survives_a_cache_that_cannot_be_written(equal_folder, cache, monkeypatch):
    (cache / "file").write_text("in the way")
    monkeypatch.setenv("AEJAX_CACHE", str(cache / "file"))
    pipeline = Pipeline(open_source(f"folder:{equal_folder}", "all"), batch=4, cache="device")
    assert pipeline.resident["image"].shape == (12, 24, 24, 3)


def test_real_sets(real_data):
    c = config(source="folder:train/photos", split="test", holdout=20, crop=64, batch=16,
               flip=True, rotate=True)  # fmt: skip
    pipeline = make_pipeline(c, training=True, data_dir=real_data)
    assert pipeline.n == 34 and pipeline.example_shape == (64, 64, 3)
    x = seen(pipeline, 0, 2)["image"]
    assert x.shape == (2, 16, 64, 64, 3) and 0.1 < x.mean() < 0.9 and x.std() > 0.1
    c = config(source="tfds:fashion_mnist", split="test", batch=100)
    pipeline = make_pipeline(c, training=True, data_dir=real_data)
    assert pipeline.cache == "device" and pipeline.resident["image"].shape == (10000, 28, 28, 1)
    labels = np.concatenate([seen(pipeline, s)["label"] for s in range(100)])
    assert (np.bincount(labels.ravel()) == 1000).all()


# --- folds ----------------------------------------------------------------------------------------


def names_of(c, training):
    """The names of the examples, read from each of them as the model would see it."""
    pipeline = make_pipeline(c, training=training)
    contents = {pipeline.reader.read(i)[0].tobytes() for i in range(pipeline.n)}
    return pipeline, contents


@pytest.mark.parametrize("cache", ["device", "memmap", "stream"])
def test_a_fold_is_tested_on_what_the_others_train_on(equal_folder, tmp_path, cache):
    file = tmp_path / "folds.json"
    folds.write(file, folds.make(12, 3))
    c = config(source=f"folder:{equal_folder}", split="all", folds=str(file), cache=cache, batch=4)
    tested, keys = [], set()
    for fold in range(3):
        c.data.fold = fold
        training, train = names_of(c, True)
        testing, test = names_of(c, False)
        assert (training.n, testing.n) == (len(train), len(test)) == (8, 4) and not train & test
        assert f"without fold {fold}" in training.source.name
        keys |= {training.source.key, testing.source.key}
        keys |= {training.source.fingerprint, testing.source.fingerprint}
        tested += test
        for pipeline in (training, testing):
            pipeline.close()
    assert len(set(tested)) == len(tested) == 12  # each once
    assert len(keys) == 12  # no two share a cache


def test_folds_count_what_is_left_when_small_images_are_skipped(tmp_path):
    for i in range(9):
        side = 8 if i == 4 else 24
        (tmp_path / f"{i}.png").write_bytes(png(picture(side, side, seed=i)))
    folds.write(tmp_path / "folds.json", folds.make(8, 2))
    c = config(source=f"folder:{tmp_path}", split="all", crop=16, on_bad="skip", batch=2)
    c.data.folds = str(tmp_path / "folds.json")
    train, test = (names_of(c, training)[1] for training in (True, False))
    assert len(train) == len(test) == 4 and not train & test


@pytest.mark.parametrize(
    "data", [{"eval_split": "all"}, {"eval_source": "bundled:photos"}, {"holdout": 20}]
)
def test_a_fold_goes_with_no_other_evaluation(tmp_path, data):
    folds.write(tmp_path / "folds.json", folds.make(1438, 2))
    c = config(folds=str(tmp_path / "folds.json"), **data)
    with pytest.raises(UserError, match=rf"data.folds .*data\.{next(iter(data))}"):
        make_pipeline(c, training=False)
