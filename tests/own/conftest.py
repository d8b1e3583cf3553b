"""A folder of a user's own: a package and an experiment, and nothing of it installed."""

import pathlib
import shutil
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder; what is imported from it is forgotten afterwards."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    shutil.copy(HERE / "parts_template.py", tmp_path / "my_package" / "parts.py")
    shutil.copy(HERE / "experiment_template.py", tmp_path / "experiment.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] == "my_package"]:
        del sys.modules[name]
