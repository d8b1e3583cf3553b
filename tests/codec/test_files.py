"""Files: the verbs, Pillow's side, and weights on disk."""

import argparse
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import aejax
from aejax.codec import api as codec
from aejax.codec import cli, freeze, pillow
from aejax.data.images import from_pillow, read_image
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
    a, b = (freeze.flatten(f.params) for f in (found, tiny.frozen()))
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
        for path, v in freeze.flatten(base.params).items()
    }
    tuned["f_D/klt"] = freeze.flatten(base.params)["f_D/klt"]
    whole, frozen = (
        freeze.Frozen(freeze.frozen_params(freeze.unflatten(tuned), s), base.tables, base.fields)
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


def test_pillow_opens_and_saves(tmp_path, monkeypatch):
    aejax.register_pillow()
    pillow.register()  # twice does no harm
    monkeypatch.setattr(codec, "runtime_for", lambda metric="mse": tiny.runtime())
    x = tiny.photo(48, 72, 4)
    image = Image.fromarray(x)
    image.save(tmp_path / "x.aej", quality=80, icc_profile=b"profile")
    with Image.open(tmp_path / "x.aej") as found:
        assert found.format == "AEJ" and found.size == (72, 48) and found.mode == "RGBA"
        y = np.asarray(found)
        assert found.info["icc_profile"] == b"profile"
    np.testing.assert_array_equal(y, codec.decode((tmp_path / "x.aej").read_bytes()))
    (tmp_path / "bad.aej").write_bytes((tmp_path / "x.aej").read_bytes()[:-9] + b"123456789")
    with pytest.raises(OSError, match="damaged"):
        Image.open(tmp_path / "bad.aej").load()


@pytest.mark.parametrize("mode", ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"))
def test_modes_of_pillow(mode):
    x = Image.fromarray(tiny.photo(8, 9))
    x = Image.fromarray(np.full((8, 9), 3000, np.uint16)) if mode == "I;16" else x.convert(mode)
    array, _ = from_pillow(x)
    assert array.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    assert codec._planes(array).rgb.shape == (8, 9, 3)
    assert (array.shape[2] == 1) == (mode in ("1", "L", "I;16"))
