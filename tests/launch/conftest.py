"""A project to launch from, without a user's own defaults."""

import os
import shutil

import pytest

from tests.launch.launch_helpers import HERE


@pytest.fixture(autouse=True)
def launched_from(tmp_path_factory, monkeypatch):
    """The current folder: a study, a package of own parts and a pyproject.toml."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(HERE / "tiny_study.py", folder)
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "parts.py").write_text("A_PART = 1\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "my_package"\nversion = "1"\ndependencies = ["aejax", "einops"]\n'
    )
    monkeypatch.chdir(folder)
    monkeypatch.delenv("AEJAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.fspath(folder / "no-config"))
    return folder
