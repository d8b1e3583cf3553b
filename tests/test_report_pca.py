"""PCA in closed form against scikit-learn, and for a study's runs."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA

from aejax.config import base, part
from aejax.metrics.image import METRICS
from aejax.nets import linear
from aejax.report import pca
from aejax.report.baselines import add as add_baselines

RNG = np.random.default_rng(0)


def images(n, h, w, c, rank=6):
    """Images near a plane of `rank` dimensions."""
    codes, plane = RNG.standard_normal((n, rank)), RNG.standard_normal((rank, h * w * c))
    x = 0.5 + 0.04 * codes @ plane + 0.02 * RNG.standard_normal((n, h * w * c))
    return np.round(np.clip(x, 0, 1) * 255).astype(np.uint8).reshape(n, h, w, c)


def batches(x, size=7):
    """As an evaluation pipeline yields them: the last one filled up, with a mask."""
    for first in range(0, len(x), size):
        part_ = x[first : first + size]
        mask = (np.arange(size) < len(part_)).astype(np.float32)
        yield np.concatenate([part_, np.repeat(part_[-1:], size - len(part_), 0)]), mask


@pytest.mark.parametrize("n", [200, 30])
def test_pca_is_that_of_scikit_learn(n):
    train, test = images(n, 6, 7, 2), images(19, 6, 7, 2)
    measured = pca.pca(train, batches(test), (1, 5, 20))
    for k, value in measured.items():
        model = PCA(k, svd_solver="full").fit(train.reshape(n, -1) / 255)
        y = model.inverse_transform(model.transform(test.reshape(19, -1) / 255))
        y = np.clip(y, 0, 1).reshape(test.shape).astype(np.float32)
        x = test.astype(np.float32) / 255
        for name in ("psnr", "ssim", "mse"):
            expected = float(METRICS[name](x, y).mean())
            assert value.metrics[f"test/{name}"] == pytest.approx(expected, rel=1e-3)
        assert abs(np.stack(value.pictures) - y[:16] * 255).max() < 1


def test_more_components_than_images_are_all_there_are():
    train = images(5, 4, 4, 1)
    measured = pca.pca(train, batches(train), (4, 16))
    assert measured[16].metrics == pytest.approx(measured[4].metrics, rel=1e-6)


def test_large_sets_go_by_a_randomised_decomposition():
    rows = RNG.standard_normal((300, 8)) @ RNG.standard_normal((8, 200))
    rows = (rows + 0.01 * RNG.standard_normal(rows.shape)).astype(np.float32)
    exact, randomised = (
        linear.principal_components(rows, 8, exact=side)[1] for side in (4096, 100)
    )
    assert not np.array_equal(exact, randomised)
    centred = rows - rows.mean(0)
    kept = [centred @ basis @ basis.T for basis in (exact, randomised)]
    np.testing.assert_allclose(kept[1], kept[0], atol=5e-2)


@pytest.mark.parametrize("shape", [(2, 8, 12, 3), (3, 9, 10, 1)])
def test_patches_are_taken_apart_and_put_together(shape):
    x = RNG.random(shape).astype(np.float32)
    rows = linear.to_rows(x, 4)
    assert rows.shape[1] == 16 * shape[3]
    np.testing.assert_array_equal(linear.from_rows(rows, shape, 4), x)
    np.testing.assert_array_equal(rows[0].reshape(4, 4, -1), x[0, :4, :4])


def test_patches_of_images_of_several_sizes():
    train = images(40, 8, 8, 1)
    test = [(images(2, *size, 1), np.ones(2)) for size in ((8, 8), (9, 13))]
    measured = pca.pca(train, iter(test), (2, 16), ("psnr",), patch=4)
    assert measured[16].metrics["test/psnr"] > 90  # all 16 numbers of a patch: nothing is lost
    assert measured[2].metrics["test/psnr"] < 40


def result(i, config):
    return {"id": str(i), "config": json.loads(config.to_json())}


def digits(k, f_E="dense", **kwargs):
    c = base()
    c.model.latent = k
    c.model.f_E = part(f_E, **kwargs)
    return c


class AStudy:
    baselines = ("pca",)


def test_a_study_measures_each_data_set_and_size_once(tmp_path):
    results = [
        result(0, digits(2)),
        result(1, digits(2, "conv")),
        result(2, digits(8)),
        result(3, digits(2, "linear", patch=4)),
        {"id": "4", "config": {"something": "else"}},
        {"id": "5"},
    ]
    found = add_baselines(AStudy, results, tmp_path)["pca"]
    assert found["runs"].keys() == {"0", "1", "2", "3"}
    assert found["runs"]["0"] == found["runs"]["1"] and len(found["values"]) == 3
    psnr = [found["values"][found["runs"][i]]["metrics"]["test/psnr"] for i in "023"]
    assert psnr[0] < psnr[1] and psnr[0] < psnr[2]  # 2 of 64, 8 of 64, 2 of each 16
    assert len(list((tmp_path / "baselines").glob("*.npz"))) == 3
    assert json.loads((tmp_path / "baselines.json").read_text())["pca"] == found


def test_what_was_measured_is_kept(tmp_path):
    measured = add_baselines(AStudy, [result(0, digits(2))], tmp_path)
    (key,) = measured["pca"]["values"]
    measured["pca"]["values"][key]["metrics"]["test/psnr"] = 99.0  # as no measurement gives it
    (tmp_path / "baselines.json").write_text(json.dumps(measured))
    assert add_baselines(AStudy, [result(0, digits(2))], tmp_path) == measured


def test_data_that_cannot_be_had_leaves_the_baseline_out(tmp_path):
    config = digits(2)
    config.data.source = "folder:/nonexistent"
    said = []
    found = add_baselines(AStudy, [result(0, config)], tmp_path, say=said.append)
    assert found["pca"]["runs"] == {} and "nonexistent" in said[0]


def test_crops_are_drawn_as_in_training():
    from aejax.data.pipeline import make_pipeline

    config = base()
    config.data.source, config.data.crop = "bundled:photos", 16
    pipeline = make_pipeline(config, training=True)
    images = pca.training_images(pipeline, 300)
    pipeline.close()
    assert images.shape == (300, 16, 16, 3) and images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) > 200
