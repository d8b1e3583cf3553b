import os

import pytest
from PIL import Image

from aejax.cli import main
from aejax.data.cli import contact_sheet
from aejax.data.source import open_source
from tests.data.data_helpers import picture, png


@pytest.fixture(autouse=True)
def no_reexec(monkeypatch):
    monkeypatch.setenv("AEJAX_NO_REEXEC", "1")


def test_list(folder, toy_tfds, capsys):
    toy_tfds.rename(folder.parent / "tfds")
    for i in range(5):
        (folder.parent / "many" / str(i)).mkdir(parents=True)
        (folder.parent / "many" / str(i) / "x.png").write_bytes(png(picture(4, 4)))
    assert main(["data", "list", "--data-dir", str(folder.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line.split()[0]: line for line in lines if ":" in line}
    assert "7 train + 3 test" in found["tfds:toy_photos"]
    assert " 8 " in found["folder:set/cat"] and " 5 " in found["folder:set/dog"]
    assert " 5 " in found["folder:many"] and "5 classes" in found["folder:many"]
    assert "bundled:digits" in found and "bundled:photos" in found
    assert "folder:many/0" not in found


def test_show(folder, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["data", "show", f"folder:{folder}", "-o", str(out), "--images", "9"]) == 0
    text = capsys.readouterr().out
    assert "13 images, colour, 20 to 28 high, 24 to 28 wide" in text
    assert "2 classes: cat, dog" in text and "fingerprint" in text
    assert "12 pictures train, 1 test: every 10th held out" in text
    with Image.open(out) as sheet:
        assert sheet.width > 8 * 150 and len(sheet.getcolors(1 << 20)) > 1000


def test_show_lists_what_is_bad(folder, tmp_path, capsys):
    (folder / "cat" / "bad.png").write_text("text")
    command = ["data", "show", f"folder:{folder}", "-o", str(tmp_path / "s.png")]
    assert main(command) == 2
    assert "cat/bad.png (not an image of a known kind)" in capsys.readouterr().err
    assert main([*command, "--skip-bad"]) == 0
    assert "left out: cat/bad.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["show", "bundled:digit"], 'did you mean "digits"'),
        (["show", "bundled:digits", "-o", "nowhere/x.png"], "cannot write nowhere/x.png"),
        (["show", "bundled:digits", "-o", "x.txt"], "cannot write x.txt"),
        (["show", "bundled:digits", "-o", "old.png"], "old.png exists already; --force"),
        (["show", "folder:.", "-o", "old.png", "--force"], "would become a picture of folder:."),
        (["list", "--data-dir", "nowhere"], "no data folder nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.png").write_bytes(png(picture(4, 4)))
    assert main(["data", *arguments]) == 2
    assert (tmp_path / "old.png").read_bytes() == png(picture(4, 4))
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1


def test_small_images_are_enlarged_whole(tmp_path):
    source = open_source("bundled:digits")
    sheet = contact_sheet(source, [0])
    box = sheet.crop((12 + 3, 12 + 3, 12 + 147, 12 + 147))  # 18 times 8 of 150 pixels
    assert len(set(box.convert("L").tobytes())) <= len(set(source.read(0)[0].tobytes())) + 1


def test_names_that_are_not_utf_8_are_shown(tmp_path, capsys):
    for name in (b"\xff.png", b"b.png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(png(picture(20, 20)))
    command = ["data", "show", f"folder:{tmp_path / 'in'}", "-o", str(tmp_path / "sheet.png")]
    assert main(command) == 0, capsys.readouterr().err
    (tmp_path / "in" / os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    assert main([*command, "--skip-bad", "--force"]) == 0
    assert "left out: bad\\udcff.png" in capsys.readouterr().out
