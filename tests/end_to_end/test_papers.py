"""Each paper's study runs in its smoke form, cites its source and says its command."""

import pathlib

import pytest

from aejax.study import list_runs, load, resolve, run_study
from aejax.training.optim import build_schedule
from aejax.units import Clock
from tests.helpers import others_slow

PAPERS = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "papers"
FILES = sorted(PAPERS.glob("*.py"))


def test_all_are_here():
    names = {f.stem for f in FILES}
    assert names == {
        *("balle2018", "baldi1989", "ghosh2020", "hinton2006", "vincent2010", "vq_fsq"),
        "zhang2017",
    }
    for results in (PAPERS / "results").glob("*"):
        assert results.name in names and (results / "table.md").exists()


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_what_the_file_says(file):
    study = load(str(file))
    said = study.text
    assert f"aejax study experiments/papers/{file.name} --data-dir DATA" in said
    assert "Scaled down:" in said and "quiet cores" in said
    base = study.config() if callable(study.config) else study.config
    for run in list_runs(study.runs):
        c = resolve(base, run)  # every override fits
        clock = Clock(c.data.batch, 10_000)
        build_schedule(c.optim, clock.steps(c.train.length, "train.length"), clock)
    result = f"results/{file.stem}/table.md"
    assert (result in (PAPERS / "README.md").read_text()) == (PAPERS / result).exists()
    in_print = list(study.published) + [k for r in study.runs for k in r if "print" in k]
    assert in_print and all(p.get("source") for p in study.published)


@pytest.mark.parametrize("file", others_slow(FILES, "baldi1989.py"), ids=lambda p: p.stem)
def test_smoke(file, tmp_path, capsys):
    study = load(f"{file}:smoke")
    results = run_study(study, tmp_path, quiet=True)
    assert results and len(results) == len(list_runs(study.runs))
    metrics = {name for r in results for name in r["metrics"]}
    assert study.y in metrics  # what the paper's table is about
    for r in results:
        assert all(v == v for v in r["metrics"].values())
    text = (tmp_path / "table.md").read_text()
    for entry in study.published:
        assert f"{entry['name']} (published)" in text and entry["source"] in text
    assert (tmp_path / "report.html").exists()
