"""No input destroyed, no output lost: the rules that every verb that writes goes by."""

import os
import pathlib

import pytest

from aejax import files
from aejax.errors import UserError


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    files.write_atomically(path, "ä")
    assert path.read_bytes() == "ä".encode()
    files.write_atomically(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    with pytest.raises(ZeroDivisionError):
        with files.replacing(path) as part:
            part.write_text("half")
            raise ZeroDivisionError
    assert path.read_bytes() == b"\x00\x01" and list(tmp_path.iterdir()) == [path]


def test_links_are_followed_rights_are_kept_and_devices_are_written_to(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    files.write_atomically(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    files.write_atomically(os.devnull, "nothing")
    assert not pathlib.Path(os.devnull).is_file()


def test_the_longest_names_can_be_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    files.write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_no_output_is_an_input_by_whatever_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = pathlib.Path("a.png")
    source.write_bytes(b"picture")
    pathlib.Path("link.png").symlink_to(source)
    os.link(source, "hard.png")
    for name in ("a.png", "./a.png", tmp_path / "a.png", "link.png", "hard.png"):
        for force in (False, True):
            with pytest.raises(UserError, match="is an input and would be overwritten"):
                files.check_outputs([name], [source], force)


def test_no_two_inputs_become_one_output(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg and a\.png would both be written to .*a\.aej"):
        files.check_outputs(
            [tmp_path / "a.aej", tmp_path / "." / "a.aej"], force=True, made_from=["a.jpg", "a.png"]
        )


def test_existing_files_are_named_in_one_line_with_the_remedy(tmp_path):
    outputs = [tmp_path / f"{i}.aej" for i in range(5)]
    for path in outputs:
        path.touch()
    with pytest.raises(UserError, match="0.aej.*2.aej and 2 more exist already; --force") as e:
        files.check_outputs(outputs)
    assert "\n" not in str(e.value)
    files.check_outputs(outputs, force=True)
    files.check_outputs([os.devnull])  # not a file


def test_folders_and_files_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a folder"):
        files.check_outputs([tmp_path], force=True)
    with pytest.raises(UserError, match="is a file"):
        files.check_outputs([tmp_path / "file" / "deep" / "a.aej"], force=True)


def test_where_results_go(tmp_path):
    def made(names, output):
        named = [(pathlib.Path(n), pathlib.Path(p)) for n, p in names]
        made = files.targets(named, output, lambda f: f"{f.stem}.x.aej", lambda _: ".aej", [".aej"])
        return [str(p) for p in made]

    one, two = [("d/a.b.png", "a.b.png")], [("d/a.png", "a.png"), ("d/e/a.png", "e/a.png")]
    assert made(one, None) == ["d/a.b.x.aej"]
    assert made(one, "o.aej") == ["o.aej"]
    assert made(one, "o") == made(one, "o/") == ["o/a.b.aej"]
    assert made(two, "o") == ["o/a.aej", "o/e/a.aej"]
    assert made(one, os.devnull) == [os.devnull]
    (tmp_path / "o.aej").mkdir()
    assert made(one, str(tmp_path / "o.aej")) == [str(tmp_path / "o.aej" / "a.b.aej")]
    with pytest.raises(UserError, match="one file for 2 images"):
        made(two, "o.aej")
    with pytest.raises(UserError, match='cannot write ".jpg"'):
        made(one, "o.jpg")


def test_one_failure_of_any_kind_does_not_stop_the_others(capsys):
    def do(item):
        if item == "user":
            raise UserError("user: is bad")
        if item == "bug":
            raise IndexError("list index")
        if item == "disk":
            raise OSError(28, "No space left on device", "/else/where")
        print(item)

    assert files.each(["user", "bug", "disk", "good"], "work", str, do) == 2
    out = capsys.readouterr()
    assert out.out == "good\n"
    assert out.err.splitlines() == [
        "aejax: user: is bad",
        "aejax: bug: IndexError: list index",
        "aejax: disk: No space left on device",
        "aejax: 1 of 4 done, 3 failed",
    ]
    assert files.each(["good"], "work", str, do) == 0


@pytest.mark.parametrize("name", ["report.html", "table.md", "results.csv"])
def test_a_report_into_a_folder_of_the_user_needs_force(tmp_path, capsys, name):
    from aejax.cli import main

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    words = ["report", str(tmp_path / "study"), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert f"{name} exists already; --force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 2
    assert "exists already" not in capsys.readouterr().err, "there is no such study"
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_eval_into_a_file_of_the_user_needs_force(tmp_path, capsys):
    from aejax.cli import main

    (tmp_path / "out.json").write_text("mine")
    words = ["eval", "--workdir", str(tmp_path / "run"), "--out", str(tmp_path / "out.json")]
    assert main(words) == 2
    assert "out.json exists already; --force" in capsys.readouterr().err
    assert (tmp_path / "out.json").read_text() == "mine"


def test_every_verb_that_writes_files_the_user_names_takes_force():
    import argparse

    from aejax.cli import VERBS, is_installed, load_verb

    for name, verb in VERBS.items():
        if not is_installed(verb):
            continue
        parser = argparse.ArgumentParser()
        load_verb(verb).add_arguments(parser)
        parsers = [parser]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        for each in parsers:
            flags = {flag for action in each._actions for flag in action.option_strings}
            if flags & {"-o", "--out", "--output"} and name != "launch":
                assert "--force" in flags, f"aejax {name}"
