"""Crops packed once: the same pixels as the source gives, by row, on several hosts."""

import json
import pickle

import numpy as np
import pytest

from aejax import cli
from aejax.config import base
from aejax.data import packed
from aejax.data.pipeline import make_pipeline
from aejax.data.source import open_source
from aejax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("packs") / "photos"
    for split in ("train", "test"):
        assert cli.main(["data", "pack", "bundled:photos", str(out), "--size", "32",
                         "--split", split]) == 0  # fmt: skip
    return out


def test_the_same_pixels_as_the_source(folder):
    there = open_source("bundled:photos", "train", channels=3, size=(32, 32))
    here = open_source(f"packed:{folder}", "train")
    assert len(here) == len(there) and here.shape == (32, 32, 3)
    for i in (0, len(here) - 1, 3):
        np.testing.assert_array_equal(here.read(i)[0], there.read(i)[0])
    again = pickle.loads(pickle.dumps(here))
    np.testing.assert_array_equal(again.read(1)[0], here.read(1)[0])


def test_labels_gray_and_several_files(tmp_path):
    there = open_source("bundled:digits", "train", size=(8, 8))
    about = packed.pack(there, tmp_path, 8, "train", threads=2, file_bytes=20_000)
    assert len(about["files"]) == 6 and about["n"] == len(there)
    here = open_source(f"packed:{tmp_path}", "train")
    assert here.class_names == there.class_names and here.channels == 1
    for i in range(0, len(here), 101):
        np.testing.assert_array_equal(here.read(i)[0], there.read(i)[0])
        assert here.read(i)[1] == there.read(i)[1]


def test_draft_decoding_is_close_and_asked_for(tmp_path, monkeypatch):
    """Close to full decoding where a JPEG is large, the same pixels where it is small or odd."""
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    (tmp_path / "large").mkdir()
    (tmp_path / "odd").mkdir()
    coarse.resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "large" / "a.jpg")
    coarse.resize((641, 481), Image.Resampling.BICUBIC).save(tmp_path / "odd" / "b.jpg")
    monkeypatch.chdir(tmp_path)
    pictures = {}
    for out, more in (("full", []), ("draft", ["--draft"])):
        command = ["data", "pack", "folder:.", out, "--size", "64", "--split", "all", *more]
        assert cli.main(command) == 0
        packed = open_source(f"packed:{out}", "all")
        pictures[out] = [packed.read(i)[0].astype(float) for i in range(2)]
        pictures[out, "name"] = packed.fingerprint
    (large, odd), (large_draft, odd_draft) = pictures["full"], pictures["draft"]
    error = np.mean((large - large_draft) ** 2)
    assert 0 < error < 255**2 / 10**4.5  # 45 dB
    np.testing.assert_array_equal(odd, odd_draft)
    assert pictures["full", "name"] != pictures["draft", "name"]


@pytest.mark.parametrize("cache", ["stream", "device"])
def test_four_hosts_read_each_record_of_an_epoch_once(folder, cache):
    """And what a host reads is a function of the step, not of where it started."""
    c = base()
    c.data.source = f"packed:{folder}"
    c.data.batch, c.data.cache, c.data.crop = 8, cache, 0
    hosts = [make_pipeline(c, training=True, process_index=i, process_count=4) for i in range(4)]
    whole = make_pipeline(c, training=True)
    rows = [h.batches.draws.rows(h.batches.low, 2) for h in hosts]
    assert sorted(np.concatenate(rows)) == list(range(8))  # the photos are 8: one epoch
    for step in (0, 5):
        parts = [h.dispatch(step, 1) for h in hosts]
        for name, value in whole.dispatch(step, 1).items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts], 1), value)
    for pipeline in (*hosts, whole):
        pipeline.close()


def test_mistakes_are_named(folder, tmp_path, capsys):
    with pytest.raises(UserError, match="aejax data pack makes one"):
        open_source("packed:not/here")
    with pytest.raises(UserError, match='no split "val"; known: test, train'):
        open_source(f"packed:{folder}", "val")
    command = ["data", "pack", "bundled:photos", str(folder), "--size", "32"]
    assert cli.main(command) == 2
    assert "has a split train already" in capsys.readouterr().err
    assert cli.main([*command[:-1], "0"]) == 2
    about = json.loads((folder / "test.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="is missing; copy the whole folder again"):
        open_source(f"packed:{tmp_path}", "train")
