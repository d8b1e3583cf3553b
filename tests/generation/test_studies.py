"""The table and the ablations: every run resolves to a model that can be built, and a smoke run of
each kind ends in the figures that the table needs."""

import json
import pathlib

import jax
import pytest

from aejax import study as studies
from aejax.config import load_module
from aejax.errors import UserError
from aejax.nets.autoencoder import build_model

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "generate"
ABLATIONS = ("prior", "latent", "beta", "bits", "likelihood", "ema")
SMOKE = ["table.py:smoke", *(f"ablations.py:{which},smoke" for which in ABLATIONS)]


def runs_of(spec):
    study = studies.load(f"{FOLDER / spec}")
    base = study.config() if callable(study.config) else study.config
    return study, [(run, studies.resolve(base, run)) for run in studies.list_runs(study.runs)]


@pytest.mark.parametrize("spec", ["table.py:fashion", *(f"ablations.py:{w}" for w in ABLATIONS)])
def test_full_forms_resolve_to_models_with_parameters(spec):
    study, runs = runs_of(spec)
    assert len({run.id for run, _ in runs}) == len(runs) and len(runs) % 3 == 0
    priors = study.measure.keywords.get("priors")
    for run, config in runs:
        if run.overrides["seed"] or config.model.name == "pca":
            continue
        model = build_model(config.model, (28, 28, 1))
        key = jax.random.key(0)
        x = jax.ShapeDtypeStruct((2, 28, 28, 1), "float32")

        def init(x, model=model, key=key):
            return model.init({"params": key, "bottleneck": key}, x)

        variables = jax.eval_shape(init, x)
        assert jax.tree.leaves(variables["params"])
        if priors:
            table = load_module(str(FOLDER / "table.py"))
            assert set(priors) & set(table.priors_of(config)), run.labels


def test_table_is_whole():
    _, runs = runs_of("table.py:fashion")
    assert {run.labels["model"] for run, _ in runs} == {
        "ae", "vae", "beta-vae", "wae", "rae", "rae-sn", "noisy", "vq", "fsq", "gan", "pca",
    }  # fmt: skip
    study, few = runs_of("table.py:digits,rae-paper")
    assert len(few) == 15 and all(c.data.source == "tfds:mnist" for _, c in few)
    assert study.measure.keywords["priors"] == ("normal", "gaussian", "gmm-10")


def test_an_ablation_is_named():
    with pytest.raises(UserError, match="did you mean"):
        studies.load(f"{FOLDER / 'ablations.py'}:betta")


@pytest.mark.slow
@pytest.mark.parametrize("spec", SMOKE)
def test_smoke_runs_end_in_figures(spec, tmp_path):
    study, runs = runs_of(spec)
    results = studies.run_study(study, tmp_path, quiet=True)
    assert len(results) == len(runs)
    for result in results:
        assert result["metrics"]["test/fd"] > 0 and "test/fd_floor" in result["metrics"]
        assert result["seconds"]["total"] >= result["metrics"]["test/fit_s"]  # the priors count too
    files = sorted(tmp_path.glob("*/*/result.json"))
    before = [file.stat().st_mtime_ns for file in files]
    again = studies.run_study(study, tmp_path, quiet=True)  # nothing is done twice
    assert [r["metrics"] for r in again] == [r["metrics"] for r in results]
    assert [file.stat().st_mtime_ns for file in files] == before
    if study.finish:
        (section,) = json.loads((tmp_path / "sections.json").read_text())
        assert "floor" in section["text"] and "extractor" in section["text"]
        assert len(json.loads((tmp_path / "rows.json").read_text())) >= len(runs)
