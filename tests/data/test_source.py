import json
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from aejax.data import source as sources
from aejax.data.decoded import decoded, verify
from aejax.data.images import read_image, write_image
from aejax.data.source import open_source
from aejax.errors import UserError
from tests.data.data_helpers import picture, png


def test_a_folder_with_classes(folder):
    source = open_source(f"folder:{folder}", "all")
    assert len(source) == 13 and source.class_names == ("cat", "dog")
    assert source.shape is None and source.channels == 3
    assert list(source.names) == sorted(source.names)
    for i, name in enumerate(source.names):
        x = read_image(folder / name)[0]
        np.testing.assert_array_equal(source[i]["image"], x)
        assert tuple(source.sizes[i]) == x.shape[:2]
        assert source.class_names[source[i]["label"]] == name.split("/")[0]


def test_holdout_by_name_splits_a_folder(folder):
    parts = [open_source(f"folder:{folder}", s, holdout=4) for s in ("train", "test", "all")]
    train, test, both = (set(p.names) for p in parts)
    assert test == set(list(parts[2].names)[3::4]) and train | test == both and not train & test
    assert len(open_source(f"folder:{folder}", "train")) == 13
    assert len({p.fingerprint for p in parts}) == 3


def test_a_sub_folder_of_the_splits_name_is_the_split(folder, tmp_path):
    (tmp_path / "whole").mkdir()
    folder.rename(tmp_path / "whole" / "train")
    (tmp_path / "whole" / "test").mkdir()
    write_image(tmp_path / "whole" / "test" / "a.png", picture(8, 8))
    assert len(open_source("folder:whole", "train", data_dir=tmp_path, holdout=3)) == 13
    assert list(open_source("folder:whole", "test", data_dir=tmp_path).names) == ["a.png"]


def test_classes_do_not_depend_on_the_split(folder, tmp_path):
    (folder / "ant").mkdir()
    (folder / "ant" / "x.png").write_bytes(png(picture(8, 8)))
    for split in ("train", "test"):
        source = open_source(f"folder:{folder}", split, holdout=5)
        assert source.class_names == ("ant", "cat", "dog")
        for i, name in enumerate(source.names):
            assert source.class_names[source.read(i)[1]] == name.split("/")[0]
    assert not any(n.startswith("ant") for n in source.names), "as this test means to have it"


def test_a_link_to_nowhere_is_named(folder):
    (folder / "cat" / "lost.png").symlink_to(folder / "gone.png")
    with pytest.raises(UserError, match="1 of 14 images .* cat/lost.png .*no such file"):
        open_source(f"folder:{folder}", "all")
    source = open_source(f"folder:{folder}", "all", on_bad="skip")
    assert len(source) == 13 and source.sizes.min() > 0


def test_a_flat_folder_has_no_labels(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", picture(8, 8, 1))
    (tmp_path / ".hidden.png").write_text("not looked at")
    (tmp_path / "notes.txt").write_text("neither")
    monkeypatch.setenv("AEJAX_DATA", str(tmp_path.parent))
    source = open_source(f"folder:{tmp_path.name}", "all")
    assert source.class_names == () and source[0]["label"] == -1
    assert source.shape == (8, 8, 1), "gray stays gray"
    write_image(tmp_path / "b.png", picture(8, 8, 3))
    assert open_source(f"folder:{tmp_path}", "all").shape == (8, 8, 3), "unless colour is there"
    assert open_source(f"folder:{tmp_path}", "all", channels=1).shape == (8, 8, 1)


BAD = {
    "broken.jpg": "damaged",
    "cut.png": "damaged",
    "empty.png": "empty",
    "text.png": "not an image",
    "small.png": "6 x 7, under the 16 needed",
}


@pytest.fixture
def folder_with_bad(folder):
    write_image(folder / "broken.jpg", picture(64, 64))
    data = bytearray((folder / "broken.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(data[: len(data) // 2])
    (folder / "cut.png").write_bytes(png(picture(64, 64))[:-2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("I am no picture")
    (folder / "small.png").write_bytes(png(picture(6, 7)))
    return folder


@pytest.mark.parametrize("whole", [decoded, verify])
def test_each_bad_image_is_named(folder_with_bad, whole):
    spec = f"folder:{folder_with_bad}"
    with pytest.raises(UserError, match=r"3 of 18 images .* data.on_bad=skip") as e:
        open_source(spec, "all", min_size=16)
    headers = {"empty.png", "text.png", "small.png"}
    assert all(f"{n} ({BAD[n]}" in str(e.value) for n in headers)

    for name in headers:  # those that only decoding finds
        (folder_with_bad / name).unlink()
    for _ in range(2):  # the second time from what is remembered
        with pytest.raises(UserError, match="2 of 15 images .* broken.jpg .*cut.png"):
            whole(open_source(spec, "all", min_size=16))


@pytest.mark.parametrize("whole", [decoded, verify])
def test_bad_images_can_be_skipped(folder_with_bad, whole):
    for _ in range(2):
        source = open_source(f"folder:{folder_with_bad}", "all", min_size=16, on_bad="skip")
        assert len(source) == 15 and len(source.bad) == 3
        found = whole(source, "skip")
        source = found.source if whole is decoded else found
        assert len(source) == 13 and {name for name, _ in source.bad} == set(BAD)
        assert all(BAD[name] in reason for name, reason in source.bad)
        for i in range(13):
            want = read_image(folder_with_bad / source.names[i])[0]
            np.testing.assert_array_equal(found.read(i)[0], want)


def test_only_bad_images(tmp_path, folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-600])
    source = open_source(f"folder:{folder}", "all")
    for whole in (decoded, verify):
        with pytest.raises(UserError, match="no image of .* and 8 more"):
            whole(source, "skip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_text("x")
    with pytest.raises(UserError, match="no image of .* can be used: a.png"):
        open_source(f"folder:{tmp_path}/other", "all", on_bad="skip")


@pytest.mark.parametrize(
    "spec, split, options, reason",
    [
        ("folder:nowhere", "all", {}, 'no folder "nowhere": looked for'),
        ("folder:{empty}", "all", {}, "no images in .*; supported suffixes: .png"),
        ("folder:{set}", "validation", {}, "no split .validation.; it has train, test and all"),
        ("folder:{set}", "test", {"holdout": 0}, "leaves no test split"),
        ("folder:{set}", "test", {"holdout": 20}, "has 13 images: data.holdout = 20"),
        ("photos", "all", {}, "is not one of folder:PATH, tfds:NAME"),
        ("foldr:x", "all", {}, 'did you mean "folder"'),
        ("bundled:digit", "all", {}, 'did you mean "digits"'),
        ("bundled:photos", "validation", {}, "no split"),
        ("folder:{set}", "all", {"channels": 2}, "data.channels = 2"),
        ("folder:{set}", "all", {"on_bad": "ignore"}, "data.on_bad"),
        ("tfds:fashion_mnits", "train", {}, 'no set "fashion_mnits"; did you mean "fashion_mnist"'),
        ("tfds:mnist", "train", {}, "tfds:mnist is not prepared in .*; once: python -c"),
        ("tfds:mnist:0.0.1", "train", {}, "0.0.1"),
    ],
)
def test_what_cannot_be_opened(folder, tmp_path, spec, split, options, reason):
    (tmp_path / "nothing").mkdir()
    spec = spec.format(set=folder, empty=tmp_path / "nothing")
    with pytest.raises(UserError, match=reason) as e:
        open_source(spec, split, data_dir=tmp_path / "nothing", **options)
    assert "\n" not in str(e.value)


def test_tfds_without_tensorflow(toy_tfds):
    for data_dir in (toy_tfds, toy_tfds.parent):  # the TFDS root itself, or a folder with "tfds"
        source = open_source("tfds:toy_photos", "train", data_dir=data_dir)
        assert len(source) == 7 and source.class_names == ("even", "odd")
        found = {}
        for i in range(7):
            x, label = source.read(i)
            assert x.shape == (*source.sizes[i], 3)
            assert label == (len(x) - 10) % 2
            np.testing.assert_array_equal(x, picture(len(x), 12, seed=len(x) - 10))
            found[len(x)] = x
        assert sorted(found) == list(range(10, 17)), "each once"
        if data_dir == toy_tfds:
            toy_tfds.rename(toy_tfds.parent / "tfds")
    assert len(open_source("tfds:toy_photos", "train[:3]", data_dir=data_dir)) == 3
    small = open_source("tfds:toy_photos", "train", data_dir=data_dir, min_size=12, on_bad="skip")
    assert len(small) == 5
    with pytest.raises(UserError, match=r'no split "trian"; it has train \(7\), test \(3\)'):
        open_source("tfds:toy_photos", "trian", data_dir=data_dir)


def test_tfds_prepared_otherwise(toy_tfds):
    info = toy_tfds / "toy_photos" / "1.0.0" / "dataset_info.json"
    about = json.loads(info.read_text())
    about["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(about))
    with pytest.raises(UserError, match="prepared as tfrecord, not as array_record"):
        open_source("tfds:toy_photos", "train", data_dir=toy_tfds)


def test_bundled_sets_need_no_download():
    digits = [open_source("bundled:digits", s) for s in ("train", "test")]
    assert [len(d) for d in digits] == [1438, 359]
    x = np.stack([digits[0][i]["image"] for i in range(100)])
    assert x.shape == (100, 8, 8, 1) and x.max() == 255 and x.min() == 0
    photos = [open_source("bundled:photos", s) for s in ("train", "test")]
    assert [len(p) for p in photos] == [8, 3], "in the wheels of scikit-image and others"
    assert not set(photos[0].names) & set(photos[1].names)
    assert photos[0].channels == 3 and photos[0].sizes.min() >= 300
    assert len(open_source("bundled:photos", "all")) == 11


def test_decoded_is_kept_and_equals_decoding(folder, cache):
    source = open_source(f"folder:{folder}", "all", size=16, channels=1)
    first = decoded(source)
    assert len(list((cache / "decoded").glob("*.u8"))) == 1
    file = cache / "decoded" / f"{source.key}.u8"
    written = file.stat().st_mtime_ns
    again = decoded(open_source(f"folder:{folder}", "all", size=16, channels=1))
    assert file.stat().st_mtime_ns == written
    for i in range(13):
        x, label = source.read(i)
        assert min(x.shape[:2]) == 16 and x.shape[2] == 1
        for copy in (first, again, decoded(source, on_disk=False)):
            np.testing.assert_array_equal(copy.read(i)[0], x)
            assert copy.read(i)[1] == label


def test_a_changed_file_is_decoded_again(folder, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    path = sorted(folder.rglob("*.png"))[0]
    before = open_source(f"folder:{folder}", "all")
    decoded(before)
    x = read_image(path)[0]
    write_image(path, 255 - x)
    os.utime(path, ns=(1, 1))
    after = open_source(f"folder:{folder}", "all")
    assert after.key != before.key and after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(decoded(after).read(0)[0], 255 - x)


def test_the_fingerprint_is_of_the_content(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    one, two = (open_source(f"folder:{p}", "all") for p in (folder, tmp_path / "copy"))
    assert one.fingerprint == two.fingerprint and one.key != two.key


def test_more_than_the_disk_has_room_for_is_a_clear_error(folder, cache):
    source = open_source(f"folder:{folder}", "all")
    source.sizes[0] = 10_000_000
    with pytest.raises(UserError, match="has no room for 300000.0 GB .* AEJAX_CACHE"):
        decoded(source)


def test_a_disk_that_becomes_full_is_a_clear_error(cache):
    class Full(sources.Source):
        def read_chunk(self, indices):  # as writing what it has read would
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="has no room"):
        decoded(Full("", range(3), list("abc"), np.full((3, 2), 4, np.int32), 1, key="full"))
    assert not [p for p in (cache / "decoded").iterdir() if p.suffix != ".lock"], "no half files"


def test_a_cache_that_cannot_be_written(folder, cache, monkeypatch):
    (cache / "file").write_text("in the way")
    monkeypatch.setenv("AEJAX_CACHE", str(cache / "file"))
    source = open_source(f"folder:{folder}", "all")  # only forgets what it saw
    with pytest.raises(UserError, match="cannot write .*; set AEJAX_CACHE"):
        decoded(source)


def test_a_header_that_lies_is_found(folder):
    source = open_source(f"folder:{folder}", "all")
    source.sizes[3] += 1
    with pytest.raises(UserError, match="not the size in its header"):
        decoded(source, on_disk=False)


def test_sources_cross_to_other_processes(folder, toy_tfds):
    for source in (open_source(f"folder:{folder}", "all"), open_source("bundled:digits"),
                   open_source("tfds:toy_photos", "train", data_dir=toy_tfds)):  # fmt: skip
        x = source.read(2)[0]
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(2)[0], x)


def test_real_photos(real_data):
    source = open_source("folder:train/photos", "test", data_dir=real_data, holdout=20)
    assert len(source) == 34 and source.channels == 3 and source.class_names == ()
    kept = decoded(source)
    for i in (0, 20, 33):
        with Image.open(os.path.join(real_data, "train/photos", source.names[i])) as im:
            np.testing.assert_array_equal(kept.read(i)[0], np.asarray(im.convert("RGB")))
    flowers = open_source("folder:train/flowers64", "all", data_dir=real_data)
    assert flowers.shape == (64, 64, 3) and len(flowers) == 900 and len(flowers.class_names) == 12


def test_real_fashion_mnist(real_data):
    source = open_source("tfds:fashion_mnist", "test", data_dir=real_data)
    assert len(source) == 10000 and source.shape == (28, 28, 1)
    kept = decoded(source)
    assert (np.bincount(kept.labels) == 1000).all(), "1,000 of each class"
    x, label = source.read(77)
    np.testing.assert_array_equal(kept.read(77)[0], x)
    assert kept.read(77)[1] == label


def test_a_kind_of_ones_own(monkeypatch):
    """What it takes to add a source."""

    class Ramps(sources.Source):
        def _decode(self, i, item):
            return np.full((4, 4, 1), item, np.uint8), -1

    def open_ramps(rest, split, data_dir, holdout):
        n = int(rest)
        names = [f"ramp {i}" for i in range(n)]
        return Ramps("", range(n), names, np.full((n, 2), 4, np.int32), 1, key="ramps"), {}

    monkeypatch.setitem(sources.SOURCES, "ramps", open_ramps)
    source = open_source("ramps:5", "all", channels=3)
    assert source.shape == (4, 4, 3) and source.name == "ramps:5 all"
    assert [int(decoded(source).read(i)[0][0, 0, 2]) for i in range(5)] == list(range(5))
