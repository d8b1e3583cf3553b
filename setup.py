"""The build step that pyproject.toml cannot say: wheels carry launch/ as aejax/engines/launch."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

LAUNCH = pathlib.Path(__file__).parent / "launch"


class BuildWithTemplates(build_py):
    """Copies launch/ into the package; an editable install reads launch/ itself."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib, "aejax", "engines", "launch")
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(LAUNCH, target, dirs_exist_ok=True, ignore=ignored)


setup(cmdclass={"build_py": BuildWithTemplates})
