"""Every config trains in its smoke form, and the quickstart ends in its files."""

import json
import pathlib
import warnings

import pytest

from aejax import cli
from aejax import config as configs
from aejax.training import run
from tests.helpers import others_slow
from tests.test_config import FILES, ROOT

WHOLE = ("quickstart", "crossval", "search")  # their studies are run whole, here and beside
ALONE = [f for f in FILES if f.stem not in WHOLE]
FAST = ("denoise/gray.py",)


@pytest.mark.parametrize(
    "file", others_slow(ALONE, *FAST), ids=lambda p: str(p.relative_to(ROOT / "experiments"))
)
def test_every_config_trains(file, tmp_path):
    config = configs.load(f"{file}:smoke")
    config.train.devices = 1  # emulated ones only take longer to compile for
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = run.train(config, tmp_path, quiet=True)
    assert result.metrics and result.examples > 0
    assert all(v == v for v in result.metrics.values())


def test_quickstart(tmp_path, capsys):
    command = ["study", str(ROOT / "experiments" / "quickstart.py") + ":smoke"]
    command += ["--directory", str(tmp_path)]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "PSNR" in out and "PCA" in out
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page and "http://" not in page and "https://" not in page.split("<body")[1]
    for name in ("table.md", "results.csv", "manifest.json"):
        assert (tmp_path / name).stat().st_size > 0
    assert len(list(tmp_path.glob("*.png"))) >= 2
    runs = json.loads((tmp_path / "manifest.json").read_text())["runs"]
    before = {p: p.stat().st_mtime_ns for p in pathlib.Path(tmp_path).rglob("result.json")}
    assert len(before) == len(runs)
    assert cli.main(command) == 0  # nothing is done twice
    assert before == {p: p.stat().st_mtime_ns for p in pathlib.Path(tmp_path).rglob("result.json")}
