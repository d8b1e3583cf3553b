"""aejax denoise and aejax eval-denoise, from the arguments to the files."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from aejax.cli import main
from aejax.data.images import Meta, read_image, write_image
from aejax.denoising.cli import jobs
from aejax.denoising.eval_cli import find_set
from aejax.errors import UserError


@pytest.fixture
def run(capsys):
    def call(*words):
        status = main([str(w) for w in words])
        out = capsys.readouterr()
        return status, out.out, out.err

    return call


def picture(shape=(40, 48, 3), dtype=np.uint8, seed=0):
    white = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, white // 2, shape).astype(dtype)


def test_sixteen_bits_alpha_icc_and_exif_are_kept(run, tiny, tmp_path):
    x = picture((40, 48, 4), np.uint16)
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    write_image(tmp_path / "in.png", x, Meta(icc=b"not a real profile", exif=exif.tobytes()))
    before = read_image(tmp_path / "in.png", keep_depth=True)
    status, _, err = run("denoise", tmp_path / "in.png", "-o", tmp_path / "out.png",
                         "--model", tiny[3])  # fmt: skip
    assert status == 0, err
    y, meta = read_image(tmp_path / "out.png", keep_depth=True)
    assert y.dtype == np.uint16 and y.shape == x.shape
    np.testing.assert_array_equal(y[..., 3], x[..., 3])
    assert np.abs(y[..., :3].astype(int) - x[..., :3]).mean() > 1000
    assert meta.icc == before[1].icc and meta.exif == before[1].exif and meta.exif


@pytest.mark.parametrize("suffix,shape", [(".png", (40, 48, 1)), (".jpg", (33, 48, 3))])
def test_the_default_name_stands_beside_the_input(run, tiny, tmp_path, suffix, shape):
    write_image(tmp_path / f"a{suffix}", picture(shape))
    model = tiny[shape[2]]
    status, out, err = run("denoise", tmp_path / f"a{suffix}", "--model", model, "--compare")
    assert status == 0, err
    made = read_image(tmp_path / f"a.denoised{suffix}")[0]
    assert made.shape == shape and "noise sigma about" in out + err
    sheet = read_image(tmp_path / "a.denoised.compare.png")[0]
    assert sheet.shape[1] == 2 * shape[1] + 8
    status, _, err = run("denoise", tmp_path, "--model", model, "--quiet")
    assert status == 2 and "exists already; --force" in err
    status, *_ = run("denoise", tmp_path, "--model", model, "--quiet", "--force")
    assert status == 0 and len(list(tmp_path.iterdir())) == 3  # outputs are not inputs again


def test_a_folder_with_a_bad_file_finishes_the_others(run, tiny, tmp_path):
    src = tmp_path / "in"
    (src / "deep").mkdir(parents=True)
    write_image(src / "a.png", picture())
    write_image(src / "deep" / "b.png", picture(seed=1))
    (src / "bad.png").write_bytes((src / "a.png").read_bytes()[:200])
    (src / "empty.jpg").write_bytes(b"")
    write_image(src / "dot.png", picture((1, 1, 3)))
    status, _, err = run("denoise", src, "-o", tmp_path / "out", "--model", tiny[3], "--quiet")
    assert status == 2
    made = sorted(p.relative_to(tmp_path / "out").as_posix()
                  for p in (tmp_path / "out").rglob("*.png"))  # fmt: skip
    assert made == ["a.png", "deep/b.png"]
    assert "2 of 5 done, 3 failed" in err
    assert all(name in err for name in ("bad.png", "empty.jpg", "dot.png"))


@pytest.mark.parametrize(
    "words,message",
    [
        (["missing.png"], "no such file"),
        (["a.png", "--sigma", "-3"], "between 0 and 255"),
        (["a.png", "--sigma", "3", "--blind"], "not allowed with"),
        (["a.png", "--strength", "7"], "between 0 and 2"),
        (["a.png", "--tile", "3"], "too small"),
        (["a.png", "--quality", "0"], "between 1 and 100"),
        (["a.png", "-o", "a.png"], "is an input"),
        (["a.png", "-o", "old.png"], "exists already; --force"),
        (["a.png", "b.png", "-o", "sub"], "sub/a.png exists already"),
        (["sub", "-o", "sub"], "is an input"),
        (["a.png", "-o", "out.png", "--compare"], "out.compare.png exists"),
        (["a.png", "b.png", "-o", "c.png"], "give a folder"),
        (["a.png", "sub/a.png", "-o", "out"], "both be written"),
        (["none"], "no images"),
        (["broken.png"], "broken.png"),
    ],
)
def test_mistakes_are_one_line_and_status_2(run, tiny, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "none").mkdir()
    for name in ("a.png", "b.png", "sub/a.png", "old.png", "out.compare.png"):
        write_image(tmp_path / name, picture())
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.png")}
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 60)
    status, _, err = run("denoise", *words, "--model", tiny[3])
    assert status == 2 and message in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert all(path.read_bytes() == data for path, data in before.items())


def test_jobs_keep_the_folders_shape_and_change_suffixes_that_cannot_be_written(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    Image.fromarray(picture()).save(tmp_path / "d" / "e" / "x.ppm")
    (found,) = jobs([str(tmp_path / "d")], str(tmp_path / "o"))
    assert found[1] == tmp_path / "o" / "e" / "x.png"


def test_eval_writes_table_json_and_figure(run, tiny, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(2):
        write_image(folder / f"{i}.png", picture((32, 40, 1), seed=i))
    out = tmp_path / "r.json"
    status, text, err = run("eval-denoise", folder, "--sigma", 15, 25, "--model", tiny[1],
                            "--methods", "gaussian", "median", "--told", "--out", out)  # fmt: skip
    assert status == 0, err
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 8 and (tmp_path / "r.png").is_file()
    assert {r["method"] for r in rows} == {
        "aejax tiny1", "aejax tiny1 told", "gaussian", "median"
    }  # fmt: skip
    ours = next(r for r in rows if r["method"] == "aejax tiny1")
    assert ours["blind"] and ours["kmac_per_px"] > 0.1 and ours["params"] > 500
    assert "| gaussian" in text and "(blind)" in text


def test_eval_of_jpeg_shows_what_it_was_before(run, tiny, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_image(folder / "a.png", picture((40, 48, 3)))
    out = tmp_path / "r.json"
    status, text, err = run("eval-denoise", folder, "--corrupt", "jpeg:10", "jpeg:40", "--model",
                            tiny[3], "--methods", "none", "--out", out, "--no-figure")  # fmt: skip
    assert status == 0, err
    rows = json.loads(out.read_text())["rows"]
    assert [(r["corruption"], r["sigma"]) for r in rows] == [("jpeg", 10), ("jpeg", 40)]
    assert rows[0]["noisy_psnr"] < rows[1]["noisy_psnr"]
    assert 0 < rows[0]["noisy_ssim"] < rows[1]["noisy_ssim"] < 1
    before = f"| untouched | {rows[0]['noisy_psnr']:.2f} / {rows[0]['noisy_ssim']:.4f} |"
    assert "jpeg 10: dB" in text and before in text


@pytest.fixture
def real_pairs(tmp_path):
    """Two scenes: NAME_mean.png, and with coarse noise NAME_real.png."""
    folder = tmp_path / "real"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        y, x = np.mgrid[:48, :64]
        clean = np.stack([120 + 50 * np.sin(x / 9 + y / 13)] * 3, -1)
        noise = np.repeat(np.repeat(rng.normal(0, 9, (24, 32, 3)), 2, 0), 2, 1)
        write_image(folder / f"{name}_mean.png", clean.astype(np.uint8))
        write_image(folder / f"{name}_real.png", np.clip(clean + noise, 0, 255).astype(np.uint8))
    return folder


def test_eval_pairs_measures_before_and_after(run, tiny, real_pairs, tmp_path):
    out = tmp_path / "r.json"
    status, text, err = run("eval-denoise", real_pairs, "--pairs", "--model", tiny[3],
                            "--methods", "tv", "--out", out)  # fmt: skip
    assert status == 0, err
    rows = {r["method"]: r for r in json.loads(out.read_text())["rows"]}
    assert list(rows) == ["untouched", "aejax tiny3", "tv"]
    assert rows["untouched"]["psnr"] == pytest.approx(20 * np.log10(255 / 9), abs=0.5)
    assert rows["tv"]["psnr"] > rows["untouched"]["psnr"] + 2
    gain = np.subtract(rows["tv"]["per_image"], rows["untouched"]["per_image"])
    assert rows["tv"]["worst"] == pytest.approx(gain.min(), abs=1e-3)
    assert "sigma" in rows["tv"]["note"] and "| tv |" in text
    sheet = np.asarray(Image.open(out.with_suffix(".png")))
    assert sheet.shape == (24 + 2 * 320, 4 * 320, 3)


def test_pairs_in_gray_and_every_second_one(run, tiny, real_pairs, tmp_path):
    (tmp_path / "a").mkdir()
    for file in real_pairs.glob("a_*"):
        x = np.asarray(Image.open(file).convert("L"))
        write_image(tmp_path / "a" / file.name, x[..., None])
    scores = []
    for folder, more in (
        (real_pairs, ("--channels", "1", "--every", "2")), (tmp_path / "a", ()),
    ):  # fmt: skip
        status, text, err = run("eval-denoise", folder, "--pairs", "--model", tiny[1],
                                "--methods", "none", *more)  # fmt: skip
        assert status == 0, err
        scores.append(re.findall(r"\| (\d+\.\d+) \|", text)[:2])
    assert scores[0] == scores[1]


def test_pairs_may_be_two_folders_and_mistakes_are_named(run, tiny, real_pairs, tmp_path):
    noisy, clean = tmp_path / "noisy", tmp_path / "clean"
    for folder, end in ((noisy, "real"), (clean, "mean")):
        folder.mkdir()
        for name in "ab":
            shutil.copy(real_pairs / f"{name}_{end}.png", folder / f"{name}.png")
    words = ("--model", tiny[3], "--methods", "none")
    outputs = [
        run("eval-denoise", *args, *words)
        for args in ((real_pairs, "--pairs"), (noisy, "--pairs", clean))
    ]
    scores = [re.findall(r"\| (\d+\.\d+) \|", text) for _, text, _ in outputs]
    assert scores[0] and scores[0][:2] == scores[1][:2]
    (clean / "b.png").unlink()
    (real_pairs / "b_mean.png").unlink()
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "empty" / "x.png", picture())
    for args, message in (
        ((noisy, "--pairs", clean), "b.png, are not in"),
        ((real_pairs, "--pairs"), "b_real.png, have no partner"),
        ((tmp_path / "empty", "--pairs"), "no pairs in"),
        ((real_pairs, "--corrupt", "jpeg"), "write NAME:LEVEL"),
        ((real_pairs, "--corrupt", "jpeg:10", "blur:2"), "one corruption at a time"),
        ((real_pairs, "--corrupt", "jpg:10"), 'did you mean "jpeg"'),
    ):
        status, _, err = run("eval-denoise", *args, *words)
        assert status == 2 and message in err, err


def test_the_report_of_the_noise_is_printed_and_drawn(run, tiny, tmp_path):
    write_image(tmp_path / "a.png", picture((48, 64, 3)))
    status, text, err = run("denoise", tmp_path / "a.png", "--report", "--model", tiny[3])
    assert status == 0 and "by brightness" in text + err
    assert (tmp_path / "a.denoised.noise.png").is_file()
    again = run("denoise", tmp_path / "a.png", "--report", "--model", tiny[3])
    assert again[0] == 2 and "noise.png exist already" in again[2]


def test_eval_mistakes(run, tiny, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_image(folder / "a.png", picture((32, 40, 1)))
    colour = tmp_path / "colour"
    colour.mkdir()
    write_image(colour / "a.png", picture((32, 40, 3)))
    (tmp_path / "old.json").write_text("{}")
    for words, message in (
        (["nowhere_at_all"], "no folder"),
        ([folder, "--sigma", "0"], "above 0"),
        ([folder, "--every", "0"], "1 or more"),
        ([folder, "--methods", "gausian"], 'did you mean "gaussian"'),
        ([colour, "--model", tiny[1]], "for 1 channels"),
        ([folder, "--out", tmp_path / "no" / "r.json"], "no folder"),
        ([folder, "--out", folder / "a.png"], "give a name that ends in .json"),
        ([folder, "--out", tmp_path / "old.json"], "exists already; --force"),
    ):
        status, _, err = run(
            "eval-denoise", *words, *(() if "--model" in words else ("--model", tiny[1]))
        )
        assert status == 2 and message in err, err
    with pytest.raises(UserError, match="no folder"):
        find_set("x", str(tmp_path))
    assert find_set("set", str(tmp_path)) == folder


def test_a_file_that_fails_leaves_the_others(run, tiny, tmp_path):
    for name in "abc":
        write_image(tmp_path / f"{name}.png", picture())
    (tmp_path / "b.png").write_bytes(b"no picture")
    status, out, err = run("denoise", tmp_path, "--model", tiny[3])
    assert status == 2 and (tmp_path / "a.denoised.png").exists()
    assert (tmp_path / "c.denoised.png").exists()
    assert f"aejax: {tmp_path / 'b.png'}: " in err and "2 of 3 done, 1 failed" in err


def test_the_suffix_decides_the_container_and_what_it_cannot_hold_is_said(run, tiny, tmp_path):
    write_image(tmp_path / "deep.png", picture(dtype=np.uint16))
    status, _, err = run("denoise", tmp_path / "deep.png", "-o", tmp_path / "y.jpg", "--model",
                         tiny[3], "--quiet")  # fmt: skip
    assert status == 0 and "y.jpg: 16 bits per sample are reduced to the 8" in err
    with Image.open(tmp_path / "y.jpg") as im:
        assert im.format == "JPEG"
    write_image(tmp_path / "clear.png", picture((40, 48, 4)))
    status, _, err = run("denoise", tmp_path / "clear.png", "-o", tmp_path / "z.jpg", "--model",
                         tiny[3])  # fmt: skip
    assert status == 2 and "cannot hold transparency" in err
    frames = [Image.fromarray(picture(seed=s)) for s in range(3)]
    frames[0].save(tmp_path / "many.tif", save_all=True, append_images=frames[1:])
    status, _, err = run("denoise", tmp_path / "many.tif", "--model", tiny[3], "--quiet")
    assert status == 0 and err == f"aejax: {tmp_path / 'many.tif'}: the first of 3 pages\n"


def test_names_that_are_no_utf_8_or_look_like_markup(run, tiny, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"\xff.png", b"[bold]x[.png"):
        write_image(folder / os.fsdecode(name), picture())
    status, _, err = run("denoise", folder, "--model", tiny[3])
    assert status == 0 and len(list(folder.glob("*.denoised.png"))) == 2, err
    assert err.count("48x40") == 2
