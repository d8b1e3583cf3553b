"""The cross-validation and the search of experiments/reconstruct, in their smoke forms."""

import json

import pytest

from aejax.data import folds
from aejax.study import load, run_study
from tests.test_config import ROOT

FOLDER = ROOT / "experiments" / "reconstruct"


@pytest.mark.slow
def test_cross_validation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the folds are kept in runs/
    study = load(f"{FOLDER / 'crossval.py'}:smoke")
    file = tmp_path / "runs" / "folds-1797-2.json"
    before = file.stat().st_mtime_ns
    assert folds.read(file).examples == 1797
    load(f"{FOLDER / 'crossval.py'}:smoke")
    assert file.stat().st_mtime_ns == before  # drawn once
    results = run_study(study, tmp_path / "study", quiet=True)
    assert [r["overrides"]["data.fold"] for r in results] == [0, 1, 0, 1]
    text = (tmp_path / "study" / "table.md").read_text()
    assert "over 2 folds" in text and "against dense, paired by fold" in text


@pytest.mark.slow
def test_search(tmp_path):
    pytest.importorskip("optuna")
    results = run_study(load(f"{FOLDER / 'search.py'}:smoke"), tmp_path, quiet=True)
    assert [r["labels"]["by"] for r in results].count("TPE") == 2
    assert [r["labels"]["by"] for r in results].count("random") == 2
    widths = {
        (r["config"]["model"]["kwargs"]["width"], r["config"]["model"]["f_E"]["hidden"][0])
        for r in results
    }
    assert all(a == b for a, b in widths)
    (section,) = json.loads((tmp_path / "sections.json").read_text())
    assert all(word in section["text"] for word in ("random:", "TPE:", "the defaults with latent"))
