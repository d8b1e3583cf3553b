"""BD-rates against the published table, and the codecs' table."""

import csv
import json
import math

import numpy as np
import pytest

from aejax.cli import main
from aejax.codec.evaluation.contenders import contenders
from aejax.codec.evaluation.curves import bd_rate, monotone, reference
from aejax.codec.evaluation.measure import quality_of
from tests.codec import tiny


@pytest.mark.parametrize(
    "name, anchor, want",
    [  # computed for the published tables, from the same points and method
        ("VTM (VVC)", "JPEG (Pillow)", -67.58),
        ("mbt2018-mean (MSE)", "JPEG (Pillow)", -57.96),
        ("AV1", "JPEG (Pillow)", -62.43),
        ("WebP", "JPEG (Pillow)", -36.18),
        ("AV1", "VTM (VVC)", 16.18),
        ("bmshj2018-hyperprior (MSE)", "BPG 4:4:4 (x265)", 3.93),
    ],
)
def test_bd_rates_are_those_of_the_reference_table(name, anchor, want):
    published = reference()
    curves = [[(p.bpp, p.psnr) for p in published[n]] for n in (anchor, name)]
    assert bd_rate(*curves) == pytest.approx(want, abs=0.1)


def test_bd_rate_of_scaled_rates():
    a = [(r, 25 + 10 * math.log2(1 + 3 * r)) for r in np.geomspace(0.05, 3, 9)]
    b = [(0.7 * r, q) for r, q in a]
    assert bd_rate(a, b) == pytest.approx(-30, abs=0.2)
    assert bd_rate(a, b, (0.15, 1.5)) == pytest.approx(-30, abs=0.2)
    assert bd_rate(a, a) == pytest.approx(0)
    assert math.isnan(bd_rate(a, [(9.0, 90.0), (10.0, 91.0)]))


def test_points_that_do_not_rise_are_dropped():
    points = [(0.3, 30.0), (0.1, 25.0), (0.2, 24.0), (0.4, 31.0)]
    assert monotone(points) == [(0.1, 25.0), (0.3, 30.0), (0.4, 31.0)]


def test_published_ms_ssim_is_read_where_it_is_known():
    point = reference()["JPEG (Pillow)"][0]
    assert (point.bpp, point.psnr, point.ms_ssim) == (0.221153, 23.7799, 0.803071)
    assert math.isnan(point.encode_s)


def test_every_contender_decodes_what_it_encodes():
    x = tiny.photo(64, 80)
    codecs = contenders(tiny.runtime())
    assert {"aejax", "jpeg", "jpeg optimised", "png", "webp", "avif", "jpeg 2000"} <= set(codecs)
    for name, codec in codecs.items():
        if name == "aejax":
            continue
        low, high = (codec.encode(x, codec.settings[i]) for i in (0, -1))
        psnr = [quality_of(x, codec.decode(d))[0] for d in (low, high)]
        assert psnr[1] > 30, name
        assert name == "png" or (len(low) < len(high) and psnr[0] < psnr[1]), name


def test_the_verb_writes_results_and_figures(tmp_path, capsys):
    from PIL import Image

    from aejax.codec.cli import eval_codec
    from aejax.codec.freeze import save

    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(2):
        Image.fromarray(tiny.photo(64, 80, seed=n)).save(folder / f"{n}.png")
    save(tiny.frozen(), tmp_path / "tiny")
    import argparse

    parser = argparse.ArgumentParser()
    eval_codec.add_arguments(parser)
    out = tmp_path / "results.json"
    args = parser.parse_args(
        [str(folder), "--out", str(out), "--codecs", "jpeg,webp"]
        + ["--weights", str(tmp_path / "tiny.safetensors")]
    )
    assert eval_codec.run(args) == 0
    shown = capsys.readouterr().out
    assert "webp" in shown and "BD-rate" in shown
    results = json.loads(out.read_text())
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    assert {r["codec"] for r in rows} == {"jpeg", "webp"}
    assert float(rows[0]["bpp"]) == pytest.approx(8 * int(rows[0]["bytes"]) / (64 * 80))
    assert results["bd_rate"]["jpeg"]["bd_psnr_full"] == pytest.approx(0, abs=1e-6)
    assert out.with_suffix(".png").stat().st_size > 5000


@pytest.mark.slow
def test_compare_keeps_every_codec_within_the_size(tmp_path, capsys):
    from aejax.data.images import read_image, write_image

    photo = tiny.photo(192, 200, seed=5)
    write_image(tmp_path / "a.png", photo)
    assert main(["codec", "compare", str(tmp_path / "a.png"), "--size", "2200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sizes = {line.split(":")[0]: int(line.split()[-6].replace(",", "")) for line in lines[:-1]}
    assert {"jpeg", "webp", "aejax"} <= set(sizes)
    assert all(size <= 2200 for name, size in sizes.items() if name != "aejax")
    assert abs(sizes["aejax"] / 2200 - 1) <= 0.02
    assert read_image(tmp_path / "a.compared.png")[0].shape[2] == 3
    assert main(["codec", "compare", str(tmp_path / "a.png")]) == 2  # nothing is overwritten
    write_image(tmp_path / "b.png", photo[:100])
    assert main(["codec", "compare", str(tmp_path / "b.png")]) == 2
    assert "176 x 176" in capsys.readouterr().err
