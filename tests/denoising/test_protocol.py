"""The numbers that go into tables, against independent computations."""

import json
import math

import numpy as np
import pytest

from aejax.denoising import protocol, tables
from aejax.denoising.protocol import Method
from aejax.errors import UserError


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :48]
    base = 128 + 90 * np.sin(x / 7) * np.cos(y / 9)
    found = []
    for i in range(2):
        noisy = base[..., None] + rng.normal(0, 3, (40, 48, 1))
        found.append((f"{i}.png", np.clip(noisy, 0, 255).astype(np.uint8)))
    return found


def test_noise_is_numpys_unclipped_and_of_the_documented_seed(images):
    x = images[0][1]
    noisy = protocol.noisy_image(x, 25, 3)
    want = x / 255 + np.random.default_rng(25003).standard_normal(x.shape) * 25 / 255
    np.testing.assert_allclose(noisy, want, atol=1e-6)
    assert noisy.dtype == np.float32
    white = protocol.noisy_image(np.full((64, 64, 1), 255, np.uint8), 50, 0)
    assert white.max() > 1.3 and len(np.unique(np.round(white * 255) - white * 255)) > 100
    assert not np.array_equal(noisy, protocol.noisy_image(x, 25, 4))


def test_psnr_is_after_clipping_and_rounding(images):
    x = images[0][1]
    assert protocol.psnr(x, protocol.rounded(x / 255 + 0.4 / 255)) == math.inf
    y = protocol.rounded(np.full(x.shape, 7.0))
    assert y.dtype == np.uint8 and (y == 255).all()
    a, b = np.zeros((10, 10, 1), np.uint8), np.full((10, 10, 1), 5, np.uint8)
    assert protocol.psnr(a, b) == pytest.approx(20 * math.log10(255 / 5))


def test_every_method_gets_the_same_arrays_and_blind_ones_are_not_told(images):
    seen = {"a": [], "b": []}

    def run(name):
        def f(x, sigma):
            seen[name].append((x.copy(), sigma))
            return x

        return f

    methods = {"a": Method(run("a")), "b": Method(run("b"), blind=True)}
    rows = protocol.evaluate(images, methods, (15, 50))
    assert {s for _, s in seen["a"]} == {15.0, 50.0} and {s for _, s in seen["b"]} == {None}
    for (x, _), (y, _) in zip(seen["a"], seen["b"], strict=True):
        np.testing.assert_array_equal(x, y)
    assert len(rows) == 4
    for row in rows:
        assert row.psnr == row.noisy_psnr == pytest.approx(np.mean(row.per_image), abs=1e-3)
        expected = 20 * math.log10(255 / row.sigma)
        assert abs(row.psnr - expected) < 0.6  # clipping takes a little of it away
        assert row.seconds_per_mp > 0 and 0 < row.ssim < 1


def test_wrong_results_are_refused(images):
    with pytest.raises(UserError, match="infinite values"):
        protocol.evaluate(images, {"x": Method(lambda x, s: x * np.nan)}, (15,))
    with pytest.raises(UserError, match="shape"):
        protocol.evaluate(images, {"x": Method(lambda x, s: x[:5])}, (15,))


def test_published_figures_carry_their_source():
    rows = tables.published("bsd68", 1)
    assert all(r.source and "published" in r.method for r in rows)
    by = {(r.method, r.sigma): r.psnr for r in rows}
    assert by["BM3D (published)", 25.0] == 28.57 and by["DnCNN-S (published)", 50.0] == 26.23
    assert {r.method for r in rows} >= {
        f"{m} (published)" for m in ("FFDNet", "DRUNet", "SwinIR", "Restormer")
    }
    assert tables.published("nowhere", 1) == []


def test_table_figure_and_json(images, tmp_path):
    rows = protocol.evaluate(images, {"same": Method(lambda x, s: x, True, 10, 2e3)}, (15, 25))
    text = tables.table(rows, tables.published("BSD68", 1))
    lines = text.splitlines()
    assert "same (blind)" in lines[2] and "2.0" in lines[2] and f"{rows[0].psnr:.2f}" in lines[2]
    assert any("DnCNN" in line and "published" in line and "31.73" in line for line in lines)
    tables.figure(rows, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 5000
    tables.write_json(tmp_path / "r.json", rows, set="x")
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["rows"][0]["psnr"] == rows[0].psnr and kept["machine"]["jax"]


def test_clean_images_are_sorted_and_as_stored(tmp_path):
    from PIL import Image

    for name in ("b", "a"):
        Image.fromarray(np.full((9, 9), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    found = protocol.clean_images(tmp_path)
    assert [n for n, _ in found] == ["a.png", "b.png"]
    assert found[0][1].shape == (9, 9, 1) and (found[1][1] == ord("b")).all()
    with pytest.raises(UserError, match="no folder"):
        protocol.clean_images(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        protocol.clean_images(tmp_path / "empty")


def test_real_sets_are_those_of_the_literature(data_dir):
    gray = protocol.clean_images(data_dir / "test" / "bsd68")
    assert len(gray) == 68 and all(x.shape[2] == 1 for _, x in gray)
    values = [
        protocol.psnr(x, protocol.rounded(protocol.noisy_image(x, 25, i)))
        for i, (_, x) in enumerate(gray[:8])
    ]
    assert abs(np.mean(values) - 20.3) < 0.3  # sigma 25 clipped and rounded


def test_names_of_published_levels_do_not_cover_each_other():
    for levels in ([0.9, 0.9, 0.89, 0.5], [0.02, 0.01, 0.0], [0.5] * 60):
        places = tables.separated(levels)
        gaps = -np.diff(places)
        assert min(places) > -1e-9 and max(places) <= 1
        assert gaps.min() > min(0.035, 0.9 / len(levels))
