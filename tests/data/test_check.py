"""`aejax data check`: each fault is planted, found, and alone."""

import shutil

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut, chelsea, coffee

from aejax.cli import main
from aejax.data import check as checking
from aejax.data.check import Picture, check, near_pairs, thumbnail
from tests.data.data_helpers import picture, png


@pytest.fixture(autouse=True)
def no_reexec(monkeypatch):
    monkeypatch.setenv("AEJAX_NO_REEXEC", "1")


@pytest.fixture
def clean(tmp_path):
    """Crops of photographs that are not alike, in train/ and test/, two classes."""
    photos = [f()[:300, :400] for f in (astronaut, chelsea, coffee)]
    crops = [x[t : t + 90, s : s + 90] for x in photos for t in (0, 150) for s in (0, 130, 260)]
    for i, x in enumerate(crops):
        place = tmp_path / "set" / ("test" if i % 4 == 3 else "train") / "ab"[i // 4 % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(place / f"{i:02d}.png")
    return tmp_path / "set"


def run(folder, capsys, *arguments):
    status = main(["data", "check", f"folder:{folder}", *arguments])
    return status, capsys.readouterr().out


def test_a_clean_set_is_good(clean, capsys):
    status, text = run(clean, capsys)
    assert status == 0, text
    assert "18 pictures" in text and "14 train, 4 test: train/ and test/" in text
    assert "90 x 90 (18)" in text and "RGB (18)" in text and "a (10), b (8)" in text
    assert "verdict          good" in text


def again(clean, name, change, split="test"):
    """One of the training pictures, changed, as another file."""
    with Image.open(clean / "train" / "a" / "00.png") as im:
        change(im.convert("RGB")).save(clean / split / "a" / name, quality=60)


@pytest.mark.parametrize(
    "name, change",
    [
        ("compressed.jpg", lambda im: im),
        ("smaller.png", lambda im: im.resize((45, 45), Image.Resampling.LANCZOS)),
        ("larger.jpg", lambda im: im.resize((200, 200))),
        ("mirrored.png", lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        ("upside.png", lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
        ("brighter.png", lambda im: im.point(lambda v: 40 + v * 3 // 4)),
        ("gray.png", lambda im: im.convert("L")),
    ],
)
def test_near_duplicates(clean, capsys, name, change):
    again(clean, name, change)
    status, text = run(clean, capsys)
    assert status == 2 and f"train a/00.png = test a/{name}" in text
    assert "nearly the same  1 pair, 1 in two splits" in text and "the same         0" in text
    (clean / "test" / "a" / name).rename(clean / "train" / "a" / name)
    status, text = run(clean, capsys)  # within a split it is said, and no fault
    assert status == 0 and f"train a/00.png = train a/{name}" in text


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["copy.png", "other.bmp"])
def test_exact_duplicates(clean, capsys, split, name):
    again(clean, name, lambda im: im, split)
    status, text = run(clean, capsys)
    assert status == 2 and f"train a/00.png = {split} a/{name}" in text
    assert f"the same         1 pair, {int(split == 'test')} in two splits" in text
    assert "nearly the same  0" in text and "not good: 1 twice" in text


def test_what_cannot_be_used(clean, capsys):
    data = (clean / "train" / "a" / "00.png").read_bytes()
    (clean / "train" / "a" / "cut.png").write_bytes(data[:-4000])
    (clean / "test" / "b" / "text.png").write_text("no picture")
    (clean / "test" / "b" / "small.png").write_bytes(png(picture(20, 60)))
    (clean / "test" / "b" / "lost.png").symlink_to("nowhere.png")
    (clean / "test" / "b" / ".DS_Store").write_text("")
    status, text = run(clean, capsys, "--min-size", "64")
    assert status == 2 and "cannot be used   4" in text
    for line in ("train a/cut.png (damaged", "test b/text.png (not an image", "test b/lost.png (no",
                 "test b/small.png (20 x 60, under the 64 needed)"):  # fmt: skip
        assert line in text


def test_modes_and_splits(clean, capsys):
    Image.fromarray(picture(70, 80, 1)[..., 0]).save(clean / "train" / "a" / "gray.png")
    Image.fromarray(picture(70, 80, 1)[::-1, :, 0].astype(np.uint16) * 257).save(
        clean / "train" / "a" / "deep.png"
    )
    shutil.copytree(clean / "test", clean / "val")
    (clean / "loose.png").write_bytes(png(picture(70, 70, seed=9)))
    status, text = run(clean, capsys)
    assert "RGB (22), I;16 (1), L (1)" in text
    assert "16 train, 4 test, 4 val: train/ and test/ and val/; 1 beside" in text
    assert status == 2 and "test a/" in text and "= val " in text
    shutil.rmtree(clean / "test")
    shutil.rmtree(clean / "val")
    (clean / "loose.png").unlink()
    status, text = run(clean, capsys, "--holdout", "0")
    assert status == 2 and "no two splits" in text and "data.holdout = 0 leaves no test" in text


def test_other_sources(capsys, toy_tfds):
    assert main(["data", "check", "bundled:photos"]) == 0
    assert "8 train, 3 test: a fixed split" in capsys.readouterr().out
    report = check("tfds:toy_photos", data_dir=toy_tfds)
    assert len(report.pictures) == 10 and report.class_names == ("even", "odd")
    assert main(["data", "check", "folder:nowhere"]) == 2
    assert "no folder" in capsys.readouterr().err


def test_flat_pictures_are_near_to_nothing(tmp_path, capsys):
    assert thumbnail(np.full((40, 40, 3), 7, np.uint8)) is None
    for i in range(12):
        Image.fromarray(np.full((40, 40), i, np.uint8)).save(tmp_path / f"{i:02d}.png")
    assert run(tmp_path, capsys)[0] == 0


def plain_pairs(pictures):
    """`near_pairs` by its definition."""
    shown = [p for p in pictures if p.thumbnail is not None]
    pairs = set()
    for j, b in enumerate(shown):
        flips = b.thumbnail.reshape(32, 32)
        forms = np.stack([f.ravel() for f in (flips, flips[:, ::-1], flips[::-1])])
        near = [a for a in shown[:j] if a.pixels != b.pixels
                and (forms @ a.thumbnail).max() > checking.NEAR]  # fmt: skip
        other = [a for a in near if a.split != b.split]
        pairs |= {(str(some[0]), str(b)) for some in (near, other) if some}
    return pairs


def test_the_coarse_search_misses_nothing():
    rng = np.random.default_rng(0)
    pictures, x = [], np.zeros((32, 32))
    for i in range(1500):  # more than are compared at once
        x = rng.normal(size=(32, 32)) if i % 3 == 0 else x[:: rng.choice([1, -1])]
        noise = rng.normal(size=(32, 32)) * rng.choice([0.03, 0.07, 0.12])
        z = (x + noise).ravel().astype(np.float32)
        z = (z - z.mean()) / np.linalg.norm(z - z.mean())
        pictures.append(Picture("ab"[i % 2], str(i), (32, 32), "L", -1, i, z))
    found = {(str(a), str(b)) for a, b in near_pairs(pictures)}
    assert found == plain_pairs(pictures) and 100 < len(found) < 1500
