"""`aejax new`: everything that it writes runs as its README prints it."""

import os
import pathlib
import re
import stat
import subprocess
import sys
import tomllib

import pytest

from aejax.cli import main
from aejax.errors import UserError
from aejax.new import TEMPLATES, package_name

ROOT = pathlib.Path(__file__).resolve().parents[2]


def commands(readme: str) -> list[str]:
    """The blocks of a README as shell scripts."""
    blocks = re.findall(r"```(bash|python)\n(.*?)```", readme, re.S)
    return [f"python - <<'EOF'\n{b}EOF" if kind == "python" else b for kind, b in blocks]


def installed_commands(folder: pathlib.Path) -> dict[str, str]:
    """An environment in which `aejax` and `python` are those of this test, as if installed: `aejax`
    does not put the current folder on the path, as `python -m aejax` does."""
    aejax = "import sys; sys.path.remove(''); from aejax.cli import main; sys.exit(main())"
    for name, arguments in (("aejax", f'-c "{aejax}"'), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (folder / name).chmod(stat.S_IRWXU)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_everything_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my-faces"]) == 0
    project = tmp_path / "my-faces"
    for name, printed, smaller in (
        ("first.py", '"20 epochs"', '"4 steps"'),
        ("sizes.py", "(4, 16)", "(4,)"),
    ):
        text = (project / "experiments" / name).read_text()
        assert printed in text
        (project / "experiments" / name).write_text(text.replace(printed, smaller))
    (tmp_path / "bin").mkdir()
    env = installed_commands(tmp_path / "bin")
    blocks = commands((project / "README.md").read_text())
    assert len(blocks) == 6
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block], cwd=project, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
    assert len(list((project / "runs/sizes").glob("*/result.json"))) == 4
    assert (project / "runs/sizes/report.html").is_file()
    left = {p.name for p in project.iterdir()} - {".pytest_cache"}
    assert left == {
        ".gitignore", "README.md", "experiments", "my_faces", "pyproject.toml", "runs", "tests"
    }  # fmt: skip
    text = "".join(p.read_text() for p in project.rglob("*") if p.suffix in (".py", ".md", ".toml"))
    assert "my_package" not in text.replace("my_package.data:Set", "")


def test_the_wheel_carries_every_template():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    carried = {p for pattern in settings["package-data"]["aejax"] for p in
               (ROOT / "aejax").glob(pattern)}  # fmt: skip
    templates = [p for p in TEMPLATES.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert len(templates) == 12 and set(templates) <= carried


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("faces").mkdir()
    assert main(["new", "faces"]) == 0  # an empty one is taken
    before = {p: p.read_bytes() for p in pathlib.Path("faces").rglob("*") if p.is_file()}
    capsys.readouterr()
    assert main(["new", "faces"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in pathlib.Path("faces").rglob("*") if p.is_file()}
    pathlib.Path("file").write_text("mine")
    assert main(["new", "file"]) == 2 and pathlib.Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    "folder, given, package",
    [
        ("My Faces-2", None, "my_faces_2"),
        ("x", "faces", "faces"),
        ("2nd", None, None),
        ("random", None, None),
        ("class", None, None),
        ("aejax", None, None),
        ("x", "not a name", None),
    ],
)
def test_the_packages_name(folder, given, package):
    if package:
        assert package_name(pathlib.Path(folder), given) == package
    else:
        with pytest.raises(UserError, match="--package"):
            package_name(pathlib.Path(folder), given)
