"""Cross-validation from the file of folds to the table: real trainings on the bundled digits."""

import json
import statistics

import numpy as np
import pytest

from aejax.config import part
from aejax.data import folds
from aejax.study import Study, named, product, run_study
from tests.helpers import tiny

K = 2
SIZES = {"narrow": {"model.latent": 2}, "wide": {"model.latent": 8}}


@pytest.mark.slow
def test_a_study_over_folds(tmp_path):
    file = tmp_path / "folds.json"
    folds.write(file, folds.make(1797, K))
    config = tiny(data__split="all", eval__examples=0, eval__batch=200, train__length="60 steps")
    config.eval.metrics = ("psnr",)
    config.model.f_E = config.model.f_D = part("linear")
    config.model.init = "pca"
    study = Study(
        "crossval",
        config,
        product(named("model", SIZES), folds.overrides(file)),
        columns=("latent_size", "test/psnr"),
        reference="wide",
        x="@none",
    )
    results = run_study(study, tmp_path / "study", quiet=True)
    assert len(results) == 2 * K
    assert [r["examples"] for r in results] == [899, 898, 899, 898]
    assert len({r["data"]["fingerprint"] for r in results}) == K  # a fold is one set for all models
    psnr = np.array([r["metrics"]["test/psnr"] for r in results]).reshape(2, K)
    assert (psnr[1] > psnr[0] + 1).all() and len(set(psnr.ravel())) == 2 * K
    table = (tmp_path / "study" / "table.md").read_text()
    for row in psnr:  # mean and spread over folds, of each model
        assert f"{row.mean():.2f} ± {statistics.stdev(row):.2f}" in table
    assert f"over {K} folds" in table
    assert "paired by fold;" in table
    # PCA, beside it, was fitted to what the model was trained on and measured where it was
    kept = json.loads((tmp_path / "study" / "baselines.json").read_text())["pca"]
    values = [kept["values"][kept["runs"][r["id"]]]["metrics"]["test/psnr"] for r in results]
    assert len(set(values)) == 2 * K
    np.testing.assert_allclose(psnr.ravel(), values, atol=0.3)  # a linear model started at it
