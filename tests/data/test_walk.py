import os
import pathlib
import re

import pytest

import aejax
from aejax.data.walk import files_in, images_in
from aejax.errors import UserError
from tests.data.data_helpers import picture, png


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.png", "sub/deep/d.png", "__MACOSX/e.png", ".git/f.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(png(picture(4, 4)))
    for name in (".DS_Store", "._b.png", "notes.txt", "sub/.hidden.png"):
        (tmp_path / "set" / name).write_bytes(b"no picture")
    return tmp_path / "set"


def names(folder, **options):
    return [p.relative_to(folder).as_posix() for p in files_in(folder, **options)]


def test_hidden_files_and_folders_are_no_pictures(tree):
    assert names(tree) == ["a.JPG", "b.png", "sub/c.png", "sub/deep/d.png"]
    assert names(tree, deep=False) == ["a.JPG", "b.png"]
    assert names(tree, suffixes=(".txt",)) == ["notes.txt"]
    assert images_in(tree, deep=True) == files_in(tree)


@pytest.mark.parametrize("target", [".", "..", "../..", "sub", "sub/deep", "loop", "/"])
def test_no_link_multiplies_a_set(tree, target):
    before = names(tree)
    (tree / "loop").symlink_to(target)
    (tree / "sub" / "deep" / "up").symlink_to(tree)
    assert names(tree) == before


def test_links_to_other_folders_are_followed_once(tree, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.png").write_bytes(b"x")
    (tmp_path / "other" / "back").symlink_to(tree)
    (tree / "one").symlink_to(tmp_path / "other")
    (tree / "two").symlink_to(tmp_path / "other")
    assert [n for n in names(tree) if "x.png" in n] == ["one/x.png"]
    (tmp_path / "entry").symlink_to(tree)
    assert [n for n in names(tmp_path / "entry") if "x.png" in n] == ["one/x.png"]


def test_what_is_listed_and_what_is_not(tree):
    (tree / "gone.png").symlink_to(tree / "nowhere.png")
    (tree / "self.png").symlink_to("self.png")
    (tree / "folder.png").mkdir()
    os.mkfifo(tree / "pipe.png")
    assert {"gone.png", "self.png"} < set(names(tree)), "their reader names the fault"
    assert not {"folder.png", "pipe.png"} & set(names(tree))


def test_mistakes(tree, monkeypatch):
    with pytest.raises(UserError, match='no folder ".*nowhere"'):
        files_in(tree / "nowhere")
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match="no images in .*; supported suffixes: .png"):
        images_in(tree / "empty")

    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="cannot read the folder .*: permission denied"):
        files_in(tree)


def test_there_is_no_other_walker():
    """Verbs and sources list pictures by this one: whoever reads data walks no folder otherwise."""
    package = pathlib.Path(aejax.__file__).parent
    for file in package.rglob("*.py"):
        if file.name != "walk.py":
            text = file.read_text()
            assert "aejax.data" not in text or not re.search(r'os\.walk\(|rglob\("\*"\)', text), (
                file
            )


def test_verbs_skip_what_is_hidden(tree):
    from aejax.codec import cli as codec
    from aejax.codec.evaluation.measure import read_images
    from aejax.data.images import READ
    from aejax.denoising import cli as denoising
    from aejax.denoising.protocol import clean_images

    (tree / "loop").symlink_to(tree)
    wanted = ["a.JPG", "b.png", "sub/c.png", "sub/deep/d.png"]
    assert [inside.as_posix() for _, inside in codec._named([str(tree)], READ)] == wanted
    jobs = denoising.jobs([str(tree)], None)
    assert [file.relative_to(tree).as_posix() for file, _ in jobs] == wanted
    assert list(read_images(str(tree))) == ["a", "b"]
    assert [name for name, _ in clean_images(tree)] == ["a.JPG", "b.png"]
