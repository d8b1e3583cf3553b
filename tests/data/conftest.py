import io
import os
from pathlib import Path

import pytest

from tests.data.data_helpers import picture, png


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Every test its own cache folder, and no data folder unless it asks for one."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("AEJAX_CACHE", str(folder))
    monkeypatch.delenv("AEJAX_DATA", raising=False)
    return folder


_DATA = os.environ.get("AEJAX_DATA")


@pytest.fixture
def real_data():
    """The folder of real data; the test is skipped, loudly, where there is none."""
    if not _DATA or not Path(_DATA).is_dir():
        pytest.skip("AEJAX_DATA names no folder: not tested on real images")
    return _DATA


@pytest.fixture
def folder(tmp_path):
    """13 PNG of three sizes in two classes."""
    for i in range(13):
        path = tmp_path / "set" / ("cat" if i % 3 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(20 + 4 * (i % 3), 28 - 2 * (i % 3), seed=i)))
    return tmp_path / "set"


@pytest.fixture
def toy_tfds(tmp_path):
    """A folder with a TFDS set "toy_photos": 7 + 3 images of many sizes, in array_record."""
    import tensorflow_datasets as tfds

    class ToyPhotos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path, code_path = tmp_path, None  # nothing to cite or to check

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3))
            label = tfds.features.ClassLabel(names=["even", "odd"])
            features = tfds.features.FeaturesDict({"photo": image, "kind": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples(7), "test": self._generate_examples(3)}

        def _generate_examples(self, n):
            for i in range(n):
                data = io.BytesIO(png(picture(10 + i, 12, seed=i)))
                yield i, {"photo": data, "kind": i % 2}

    tfds.disable_progress_bar()
    root = tmp_path / "sets"
    ToyPhotos(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root
