"""No experiment of this room can rot: each config resolves, and its smoke form trains."""

import pathlib

import pytest

from aejax.config import load
from aejax.study import list_runs, resolve
from aejax.study import load as load_study

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "denoise"
FILES = sorted(p.name for p in FOLDER.glob("*.py") if "def get_config" in p.read_text())
QUESTIONS = ("told", "range", "size", "balance", "residual", "optimiser", "supervision")


@pytest.mark.parametrize("file", FILES)
def test_configs_resolve_to_models(file):
    from aejax.nets.autoencoder import build_model
    from aejax.objective import build_objective

    for arg in ("", ":smoke"):
        c = load(f"{FOLDER / file}{arg}")
        channels = c.data.channels or 1
        side = c.data.crop or 28
        build_model(c.model, (side, side, channels))
        build_objective(c)
        assert ("bundled" in c.data.source) == bool(arg)


@pytest.mark.parametrize("arg", ["", *QUESTIONS])
def test_every_run_of_the_ablations_is_a_model_and_an_objective(arg):
    from aejax.nets.autoencoder import build_model
    from aejax.objective import build_objective

    study = load_study(f"{FOLDER / 'ablations.py'}{':' + arg if arg else ''}")
    runs = list_runs(study.runs)
    assert len(runs) >= (20 if not arg else 3)
    for run in runs:
        c = resolve(study.config(), run)
        build_model(c.model, (64, 64, 1))
        build_objective(c)


def test_the_shipped_models_are_those_of_the_configs():
    from aejax import weights
    from aejax.registry import current_name
    from aejax.weights import ALIASES as MODELS

    for name, file in (("gray", "gray.py"), ("colour", "colour.py")):
        if MODELS[name] not in weights.names():
            continue
        kept = weights.metadata(MODELS[name]).config
        c = load(str(FOLDER / file))
        assert current_name(kept["model"]["name"]) == c.model.name
        assert kept["model"]["kwargs"]["widths"] == list(c.model.kwargs.widths)
        assert kept["data"]["channels"] == c.data.channels


def test_shipped_weights_fit_into_20_megabytes():
    from aejax import weights

    files = list(weights.FOLDER.glob("denoise*"))
    assert sum(f.stat().st_size for f in files) <= 20e6


@pytest.mark.slow
def test_a_run_trains_is_measured_and_ships(tmp_path):
    """The smoke form of the shipped config through the spine, then `ship`, then the image."""
    import numpy as np

    import aejax
    from aejax.denoising.ship import ship
    from aejax.training.run import train

    c = load(f"{FOLDER / 'gray.py'}:smoke")
    result = train(c, tmp_path / "run", quiet=True)
    assert result.steps == 6 and result.metrics["test/psnr"] > 10
    meta = ship(str(tmp_path / "run"), str(tmp_path / "w.safetensors"))
    assert meta.steps == 6 and meta.config["data"]["channels"] == 1
    x = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    a = aejax.denoise(x, 25, model=str(tmp_path / "w.safetensors"))
    b = aejax.denoise(x, 25, model=str(tmp_path / "run"))
    np.testing.assert_allclose(a, b, atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
def test_ablations_run(tmp_path, question):
    from aejax.study import run_study

    study = load_study(f"{FOLDER / 'ablations.py'}:smoke {question}")
    results = run_study(study, tmp_path)
    assert results and all(r["metrics"] for r in results)
