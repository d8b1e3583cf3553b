"""Weights say where they come from: the run's own data."""

import json
from types import SimpleNamespace

from aejax.codec import freeze
from aejax.codec.frozen import metadata_of_run
from aejax.config import load
from tests.test_config import ROOT


def test_the_data_in_the_weights_are_those_of_the_run(tmp_path):
    config = load(str(ROOT / "experiments" / "compress" / "codec.py") + ":smoke")
    images, data = freeze.training_images(config, 3)
    assert len(images) == 3 and all(x.ndim == 3 and max(x.shape) <= 512 for x in images)
    assert data == "8 images of bundled:photos train"
    meta = metadata_of_run(str(tmp_path), SimpleNamespace(config=config, step=3), data)
    assert meta.extra["data"] == data
    assert "BSDS500" not in json.dumps(meta.to_dict()) and meta.step == 3
