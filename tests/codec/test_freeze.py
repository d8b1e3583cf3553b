"""Weights say where they come from: the run's own data."""

import json
from types import SimpleNamespace

from aejax import loading
from aejax.codec import freeze
from aejax.config import load
from tests.test_config import ROOT


def test_the_data_in_the_weights_are_those_of_the_run(tmp_path, monkeypatch):
    config = load(str(ROOT / "experiments" / "compress" / "codec.py") + ":smoke")
    fields = SimpleNamespace(**dict.fromkeys(freeze.FIELDS, ()))
    run = SimpleNamespace(config=config, model=fields, step=3, variables={"params": {}})
    monkeypatch.setattr(loading, "load", lambda *_: run)
    monkeypatch.setattr(freeze, "freeze", lambda params, fields, images, meta, scales: meta)
    meta = freeze.from_run(str(tmp_path))
    assert meta.extra["data"] == "8 images of bundled:photos train"
    assert "BSDS500" not in json.dumps(meta.to_dict()) and meta.step == 3
