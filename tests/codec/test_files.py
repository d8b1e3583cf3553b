"""Files: the verbs, Pillow's side, and weights on disk."""

import argparse
import io
import re
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from safetensors.numpy import load_file

import aejax
from aejax.codec import api as codec
from aejax.codec import cli, freeze, pillow
from aejax.codec.frozen import flat, nested
from aejax.data.images import read_image
from aejax.errors import UserError
from tests.codec import tiny


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    freeze.save(tiny.frozen(), path)
    return str(path)


def call(verb, *arguments):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(a) for a in arguments]))


def test_weights_come_back_as_they_were(weights):
    found = freeze.load(weights)
    assert found.id == tiny.frozen().id
    a, b = (flat(f.params) for f in (found, tiny.frozen()))
    assert set(a) == set(b)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


def test_another_weight_is_another_model():
    assert tiny.frozen(1).id != tiny.frozen(0).id


def test_a_tuned_model_is_stored_as_what_differs(weights, tmp_path):
    base = freeze.load(weights)
    rng = np.random.default_rng(0)
    tuned = {
        path: v * (1 + 0.02 * rng.standard_normal(v.shape)).astype(np.float32)
        for path, v in flat(base.params).items()
    }
    tuned["f_D/klt"] = flat(base.params)["f_D/klt"]
    whole, frozen = (
        freeze.Frozen(freeze.frozen_params(nested(tuned), s), base.tables, base.fields)
        for s in (None, freeze.stored(base))
    )
    freeze.save(whole, tmp_path / "whole")
    freeze.save(frozen, tmp_path / "less", base=weights)
    assert freeze.load(tmp_path / "less").id == frozen.id != base.id
    kept = load_file(tmp_path / "less.safetensors")
    assert "params/f_D/klt" not in kept and kept["params/f_E/klt"].dtype == np.int16
    whole, less = (
        len(zlib.compress((tmp_path / f"{name}.safetensors").read_bytes()))
        for name in ("whole", "less")
    )
    assert less < 0.8 * whole
    # another base than the one it was stored against
    text = (tmp_path / "less.json").read_text()
    (tmp_path / "less.json").write_text(text.replace(str(weights), str(tmp_path / "whole")))
    with pytest.raises(UserError, match="are not the model"):
        freeze.load(tmp_path / "less")


def test_compress_and_decompress_a_folder(weights, tmp_path, capsys):
    source = tmp_path / "in" / "deep"
    source.mkdir(parents=True)
    Image.fromarray(tiny.photo(48, 72)).save(source / "a.png")
    Image.fromarray(tiny.photo(48, 72, 4)).save(tmp_path / "in" / "b.png", icc_profile=b"profile")
    assert call(cli.compress, tmp_path / "in", "-o", tmp_path / "out", "--weights", weights) == 0
    assert (tmp_path / "out" / "deep" / "a.aej").exists()
    back = tmp_path / "back"
    assert call(cli.decompress, tmp_path / "out", "-o", back, "--weights", weights) == 0
    with Image.open(back / "b.png") as b:
        assert b.mode == "RGBA" and b.size == (72, 48) and b.info["icc_profile"] == b"profile"
        np.testing.assert_array_equal(np.asarray(b)[..., 3], tiny.photo(48, 72, 4)[..., 3])
    assert call(cli.codec, "info", tmp_path / "out" / "b.aej") == 0
    shown = capsys.readouterr().out
    assert "RGB + alpha" in shown and "72 x 48" in shown and "icc_profile 7 bytes" in shown


def test_one_file_beside_its_source_and_sixteen_bits(weights, tmp_path):
    deep = tiny.photo(48, 72).astype(np.uint16) * 250
    np.save(tmp_path / "x.npy", deep)
    codec.use(tiny.frozen())
    data = codec.encode(deep, 100, runtime=tiny.runtime())
    (tmp_path / "x.aej").write_bytes(data)
    assert call(cli.decompress, tmp_path / "x.aej") == 0
    back, _ = read_image(tmp_path / "x.decoded.png", keep_depth=True)
    np.testing.assert_array_equal(back, codec.decode(data))


def test_what_goes_wrong_is_said_per_file_and_the_rest_is_done(weights, tmp_path, capsys):
    Image.fromarray(tiny.photo(48, 72)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert call(cli.compress, tmp_path, "-o", tmp_path / "out", "--weights", weights) == 2
    assert "bad.png" in capsys.readouterr().err and (tmp_path / "out" / "good.aej").exists()
    (tmp_path / "bad.aej").write_bytes(b"no aej")
    assert call(cli.decompress, tmp_path / "bad.aej") == 2
    assert "not an .aej file" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such file"):
        call(cli.compress, tmp_path / "nothing.png", "--weights", weights)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no .aej"):
        call(cli.decompress, tmp_path / "empty")


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_original_is_not_overwritten_by_its_decoded_picture(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(tiny.photo(48, 72)).save("photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    assert call(cli.compress, "photo.png", "--weights", weights) == 0
    assert call(cli.decompress, "photo.aej", "--weights", weights) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "photo.aej", "photo.decoded.png", "photo.png"
    ]  # fmt: skip
    assert (tmp_path / "photo.png").read_bytes() == before


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize(
    "verb, words, message",
    [
        (cli.compress, ["a.png", "-o", "a.png"], 'cannot write ".png"'),
        (cli.compress, ["a.png", "-o", "link.aej"], "is an input"),
        (cli.compress, ["a.png", "a.jpg"], "a.png and a.jpg would both be written to a.aej"),
        (cli.compress, ["."], "would both be written to a.aej"),
        (cli.compress, ["a.png", "-o", "tiny.safetensors/"], "is a file"),
        (cli.decompress, ["b.aej", "-o", "b.aej"], 'cannot write ".aej"'),
        (cli.decompress, ["b.aej", "-o", "back.png"], "is an input"),
        (cli.decompress, ["b.aej", "deep/b.aej", "-o", "out"], "would both be written to out/b"),
        (cli.decompress, ["b.aej", "--format", "exe"], "one of .png"),
    ],
)
def test_no_verb_destroys_a_file(weights, tmp_path, monkeypatch, force, verb, words, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(tiny.photo(48, 72)).save(name)
    (tmp_path / "deep").mkdir()
    for name in ("b.aej", "deep/b.aej"):
        (tmp_path / name).write_bytes(codec.encode(tiny.photo(8, 8), runtime=tiny.runtime()))
    (tmp_path / "tiny.safetensors").write_bytes(b"")
    (tmp_path / "link.aej").symlink_to("a.png")
    (tmp_path / "back.png").symlink_to("b.aej")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=message):
        call(verb, *words, "--weights", weights, *force)
    assert snapshot(tmp_path) == before


def test_a_batch_that_is_run_again_names_what_exists(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "abcde":
        Image.fromarray(tiny.photo(16, 16)).save(f"{name}.png")
    assert call(cli.compress, ".", "--weights", weights) == 0
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="a.aej, b.aej, c.aej and 2 more exist already; --force"):
        call(cli.compress, ".", "--weights", weights, "--quality", 90)
    assert snapshot(tmp_path) == before
    assert call(cli.compress, ".", "--weights", weights, "--quality", 90, "--force") == 0
    assert snapshot(tmp_path) != before


def test_a_folder_of_one_image_is_a_folder(weights, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(tiny.photo(16, 16)).save(tmp_path / "in" / "a.png")
    assert call(cli.compress, tmp_path / "in", "-o", tmp_path / "out", "--weights", weights) == 0
    assert (tmp_path / "out" / "a.aej").is_file()


# --- Pillow ---------------------------------------------------------------------------------------


@pytest.fixture
def plugin(monkeypatch):
    aejax.register_pillow()
    pillow.register()  # twice does no harm
    monkeypatch.setattr(codec, "runtime_for", lambda metric="mse": tiny.runtime())


def exif_of(orientation):
    exif = Image.Exif()
    exif[274], exif[315] = orientation, "somebody"
    return exif


def test_pillow_opens_and_saves(plugin, tmp_path):
    image = Image.fromarray(tiny.photo(48, 72, 4))
    image.save(tmp_path / "x.aej", quality=80, icc_profile=b"profile")
    with Image.open(tmp_path / "x.aej") as opened:
        assert opened.format == "AEJ" and opened.size == (72, 48) and opened.mode == "RGBA"
        assert opened.info["icc_profile"] == b"profile"
        assert opened.get_format_mimetype() == "image/x-aej"
        y = np.asarray(opened)
    np.testing.assert_array_equal(y, codec.decode((tmp_path / "x.aej").read_bytes()))
    damaged = (tmp_path / "x.aej").read_bytes()[:-9] + b"123456789"
    (tmp_path / "bad.aej").write_bytes(damaged)
    with pytest.raises(OSError, match="damaged"):
        Image.open(tmp_path / "bad.aej").load()
    with pytest.raises(OSError, match="damaged"):
        Image.open(tmp_path / "bad.aej").verify()
    Image.open(tmp_path / "x.aej").verify()
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(damaged[:12]))


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 2), (20, 30, 3), (20, 30, 4)], ids=str)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("where", ["path", "memory"])
def test_pillow_opens_every_kind_as_it_decodes(plugin, tmp_path, shape, deep, where):
    x = tiny.photo(*shape[:2], *shape[2:]) if len(shape) > 2 else tiny.photo(20, 30, 1)
    data = codec.encode(x.astype(np.uint16) * 257 if deep else x, 90)
    (tmp_path / "x.aej").write_bytes(data)
    source = tmp_path / "x.aej" if where == "path" else io.BytesIO(data)
    want = np.asarray(pillow.from_array(codec.decode(data)))
    with Image.open(source) as opened:
        mode = opened.mode
        assert opened.size == (30, 20)
        np.testing.assert_array_equal(np.asarray(opened), want)
        assert opened.mode == mode == ("I;16" if deep and len(shape) == 2 else mode)
        small = opened.resize((8, 8))  # what one does with any image
        assert small.size == (8, 8) and opened.copy().getbands() == opened.getbands()


def test_pillow_opens_lazily_and_closes(plugin, tmp_path):
    path = tmp_path / "x.aej"
    Image.fromarray(tiny.photo(20, 30)).save(path, exif=exif_of(6), xmp=b"<x/>")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes(9))  # the header and the metadata can be read, no more
    image = Image.open(path)
    assert image.getexif()[315] == "somebody" and image.info["xmp"] == b"<x/>"
    assert image.size == (30, 20)
    path.write_bytes(whole)
    file = image.fp
    assert ImageOps.exif_transpose(image).size == (20, 30)
    assert file.closed
    path.unlink()
    image.load()  # decoded once


def test_metadata_longer_than_a_read_is_there_on_opening(plugin):
    icc = np.random.default_rng(0).bytes(300_000)
    file = io.BytesIO(codec.encode(tiny.photo(16, 16), metadata={"icc_profile": icc}))
    assert Image.open(file).info["icc_profile"] == icc


@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "LA",
        "La",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "HSV",
        "I;16",
    ],
)
def test_modes_of_pillow(plugin, mode):
    image = Image.fromarray(tiny.photo(24, 32))
    if mode == "I;16":
        image = Image.fromarray(tiny.photo(24, 32, 1).astype(np.uint16) * 200)
    elif mode == "1":
        image = image.convert("1", dither=Image.Dither.NONE)
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert(mode[:-1] + "A").convert(mode) if "a" in mode else image.convert(mode)
    image.save(file := io.BytesIO(), "AEJ", quality=100)
    bands = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA",
             "RGBa": "RGBA", "I;16": "I;16"}.get(mode, "RGB")  # fmt: skip
    with Image.open(file) as opened:
        assert opened.mode == bands
        want = image if mode == "I;16" else image.convert(bands)
        error = np.asarray(opened).astype(float) - np.asarray(want)
    assert np.abs(error).mean() < (2500 if mode == "I;16" else 60 if mode in ("1", "HSV") else 16)
    data = codec.encode(image, 100)
    np.testing.assert_array_equal(codec.decode(data), codec.decode(file.getvalue()))


@pytest.mark.parametrize(
    "image, message",
    [
        (Image.new("F", (8, 8)), "mode F as AEJ"),
        (Image.fromarray(np.full((8, 8), 1 << 20, np.int32)), "mode I as AEJ"),
    ],
)
def test_modes_without_a_white_are_refused(plugin, image, message):
    with pytest.raises(OSError, match=message):
        image.save(io.BytesIO(), "AEJ")
    with pytest.raises(UserError, match="the image has"):
        codec.encode(image)


def test_save_takes_what_other_formats_take(plugin, tmp_path):
    image = Image.fromarray(tiny.photo(24, 32))
    plain = tmp_path / "plain.aej"
    image.save(plain)
    for options in ({"quality": None}, {"quality": -1}, {"optimize": True, "dpi": (72, 72)},
                    {"progressive": True, "subsampling": 0}, {"save_all": True},
                    {"icc_profile": None, "exif": b""}):  # fmt: skip
        image.save(other := tmp_path / "other.aej", **options)
        assert other.read_bytes() == plain.read_bytes(), options
    for options, message in (
        ({"quality": "web_high"}, "Invalid quality"),
        ({"quality": 101}, "0 to 100"),
        ({"quality": 50, "psnr": 30}, "give one of"),
        ({"save_all": True, "append_images": [image]}, "one image, not 2"),
    ):
        with pytest.raises(ValueError, match=message):
            image.save(tmp_path / "no.aej", **options)
    assert not (tmp_path / "no.aej").exists()


def test_metadata_are_carried_and_can_be_replaced_or_dropped(plugin):
    def info(image, **options):
        image.save(file := io.BytesIO(), "AEJ", **options)
        return Image.open(file).info

    image = Image.fromarray(tiny.photo(16, 16))
    exif = exif_of(1)
    full = info(image, exif=exif, icc_profile=b"profile", xmp="<x/>")
    assert full == {"exif": exif.tobytes(), "icc_profile": b"profile", "xmp": b"<x/>"}
    image.info.update(full)
    assert info(image) == full
    assert info(image, exif=None, icc_profile=None, xmp=None) == {}
    ink = image.convert("CMYK")
    ink.info["icc_profile"] = b"a profile of inks"
    assert "icc_profile" not in info(ink), "the picture is RGB now"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_encode_takes_a_pillow_image_as_it_is_meant_to_be_seen(plugin, orientation):
    file = io.BytesIO()
    Image.fromarray(tiny.photo(24, 40)).save(file, "PNG", exif=exif_of(orientation))
    image = Image.open(file)
    upright = ImageOps.exif_transpose(image)
    found = codec.read(codec.encode(image, 70))
    np.testing.assert_array_equal(found.image, codec.decode(codec.encode(np.asarray(upright), 70)))
    tags = Image.Exif()
    tags.load(found.metadata["exif"])
    assert tags[274] == 1 and tags[315] == "somebody"
    assert codec.read(codec.encode(image, 70, metadata={})).metadata == {}


# --- arrays and targets ---------------------------------------------------------------------------


def test_arrays_of_the_other_byte_order_are_the_same_arrays():
    x = tiny.photo(16, 16).astype(np.uint16) * 200
    assert codec.encode(x, runtime=tiny.runtime()) == codec.encode(
        x.astype(">u2"), runtime=tiny.runtime()
    )


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((8, 8, 3), np.float32), "np.round"),
        (np.zeros((8, 8, 3), np.int64), "not int64"),
        (np.zeros((3, 8, 8), np.uint8), "move the channels to the end"),
        (np.zeros((8, 8), bool), "not bool"),
    ],
)
def test_other_arrays_are_named(x, message):
    with pytest.raises(UserError, match=message):
        codec.encode(x, runtime=tiny.runtime())


@pytest.mark.parametrize(
    "target, message",
    [
        ({"size": 1}, "1 bytes cannot be reached; the nearest file has [0-9,]+ bytes"),
        ({"psnr": 99.0}, "99 dB cannot be reached; the nearest file has [0-9.]+ dB"),
        ({"bpp": 1e-3}, "0.001 bpp cannot be reached; the nearest file has [0-9.]+ bpp"),
    ],
)
def test_a_target_out_of_reach_is_said(weights, tmp_path, capsys, target, message):
    x = tiny.photo(48, 72)
    with pytest.warns(codec.TargetMissed, match=message):
        data = codec.encode(x, runtime=tiny.runtime(), **target)
    assert codec.decode(data).shape == x.shape
    Image.fromarray(x).save(tmp_path / "x.png")
    (name, value), out = next(iter(target.items())), tmp_path / "x.aej"
    assert call(cli.compress, tmp_path / "x.png", f"--{name}", value, "--weights", weights) == 0
    err = capsys.readouterr().err
    assert re.fullmatch(f"aejax: .*x.png: {message}\n", err) and out.read_bytes() == data


def test_a_target_within_reach_is_not_warned_of():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encode(tiny.photo(48, 72), psnr=28.0, runtime=tiny.runtime())


# --- batches --------------------------------------------------------------------------------------


def test_a_file_that_fails_leaves_the_others(weights, tmp_path, capsys):
    for name in "abc":
        Image.fromarray(tiny.photo(16, 16)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert call(cli.compress, tmp_path, "--weights", weights) == 2
    assert sorted(p.name for p in tmp_path.glob("*.aej")) == ["a.aej", "c.aej"]
    fault, count = capsys.readouterr().err.splitlines()
    assert fault.startswith(f"aejax: {tmp_path / 'b.png'}: ")
    assert count == "aejax: 2 of 3 done, 1 failed"


def test_names_that_are_not_utf_8_and_names_like_markup(weights, tmp_path):
    import os
    import subprocess
    import sys

    names = [b"\xff\xe9.png", "ü [bold].png".encode(), b"line\nbreak.png"]
    data = io.BytesIO()
    Image.fromarray(tiny.photo(16, 16)).save(data, "PNG")
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(data.getvalue())
    (tmp_path / "bad \udcff.png").write_bytes(b"no picture")
    for verb, status in (("compress", 2), ("decompress", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "aejax", verb, str(tmp_path), "--weights", weights],
            capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr and b"rror: " not in done.stderr
        assert done.stdout.count(b"16 x 16") == 3
    assert len(list(tmp_path.glob("*.decoded.png"))) == 3


def test_what_a_file_is_read_as_is_said(weights, tmp_path, capsys):
    frames = [Image.fromarray(tiny.photo(16, 16, seed=s)) for s in range(2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert call(cli.compress, tmp_path / "a.gif", "--weights", weights) == 0
    assert capsys.readouterr().err == f"aejax: {tmp_path / 'a.gif'}: the first of 2 frames\n"
    deep = tiny.photo(16, 16).astype(np.uint16) * 200
    (tmp_path / "d.aej").write_bytes(codec.encode(deep, runtime=tiny.runtime()))
    assert call(cli.decompress, tmp_path / "d.aej", "-o", tmp_path / "d.jpg") == 0
    assert "d.jpg: 16 bits per sample are reduced to the 8" in capsys.readouterr().err
    assert Image.open(tmp_path / "d.jpg").format == "JPEG"


def test_a_sixteen_bit_tiff_goes_through_the_codec_with_its_depth(weights, tmp_path):
    import tifffile

    x = tiny.photo(32, 32).astype(np.uint16) * 250
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(x, 2, 0), photometric="rgb",
                     planarconfig="separate")  # fmt: skip
    assert call(cli.compress, tmp_path / "x.tif", "--quality", 100, "--weights", weights) == 0
    found = codec.read((tmp_path / "x.aej").read_bytes())
    assert found.image.dtype == np.uint16
    assert np.abs(found.image.astype(float) - x).mean() < 2500
