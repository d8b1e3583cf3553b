"""Arrays to bytes and back: kinds of images, targets, cuts, tiles."""

import copy
import dataclasses
import math
import warnings

import jax
import numpy as np
import pytest

from aejax.codec import api as codec
from aejax.codec import container, windows
from aejax.codec.api import CodecError
from aejax.codec.container import Header
from aejax.codec.installed import runtime_for
from aejax.codec.layout import parse
from aejax.codec.parts import as_quality
from aejax.codec.planes import planes_of
from aejax.codec.quality import quality_byte
from aejax.codec.target import nearest
from aejax.metrics.host import ssim
from aejax.nets import ops
from tests.codec import tiny
from tests.helpers import others_slow


@pytest.fixture(scope="module")
def runtime():
    return tiny.runtime()


def psnr(a, b):
    return 10 * math.log10(255.0**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def test_more_quality_is_more_bits_and_less_error(runtime):
    x = tiny.photo()
    files = [codec.encode(x, q, runtime=runtime) for q in (0, 40, 100)]
    sizes = [len(f) for f in files]
    assert sizes == sorted(set(sizes))
    found = [psnr(codec.decode(f), x) for f in files]
    assert found == sorted(set(found)) and found[-1] > 20


@pytest.mark.parametrize("dtype", (np.uint8, np.uint16))
@pytest.mark.parametrize("channels", (1, 2, 3, 4))
def test_kinds_of_images(runtime, channels, dtype):
    x = tiny.photo(40, 60, channels)
    x = x.astype(dtype) * (257 if dtype == np.uint16 else 1)
    y = codec.decode(codec.encode(x, 90, runtime=runtime))
    assert y.dtype == x.dtype and y.shape == x.shape
    if channels in (2, 4):
        np.testing.assert_array_equal(y[..., -1], x[..., -1])
        x, y = x[..., :-1], y[..., :-1]
    scale = 257 if dtype == np.uint16 else 1
    assert psnr(y / scale, x / scale) > 18


@pytest.mark.parametrize("shape", ((1, 1), (1, 50), (16, 17), (33, 64), (3, 2)))
def test_any_size(runtime, shape):
    x = tiny.photo(*shape)
    data = codec.encode(x, runtime=runtime)
    assert codec.decode(data).shape == (*shape, 3)
    assert codec.info(data)["height"] == shape[0]


def test_sixteen_bits_are_more_than_eight(runtime):
    ramp = np.linspace(20000, 21000, 64 * 64).reshape(64, 64).astype(np.uint16)
    y = codec.decode(codec.encode(ramp, 100, runtime=runtime))
    assert len(np.unique(y)) > 5 + (21000 - 20000) // 257


def test_metadata_is_carried_and_nothing_is_added(runtime):
    x, kept = tiny.photo(), {"icc_profile": b"icc" * 50, "exif": b"\0exif", "xmp": b"<x/>"}
    data = codec.encode(x, 30, runtime=runtime, metadata=kept)
    assert codec.read(data).metadata == kept
    plain = codec.encode(x, 30, runtime=runtime)
    assert codec.read(plain).metadata == {}
    np.testing.assert_array_equal(codec.decode(data), codec.decode(plain))


def test_the_same_image_gives_the_same_bytes(runtime):
    assert codec.encode(tiny.photo(), runtime=runtime) == codec.encode(
        tiny.photo(), runtime=runtime
    )


@pytest.mark.parametrize(
    "asked, measure",
    [
        ({"bpp": 0.6}, lambda x, d: 8 * len(d) / (x.shape[0] * x.shape[1]) / 0.6 - 1),
        ({"size": 900}, lambda x, d: len(d) / 900 - 1),
        ({"psnr": 21.5}, lambda x, d: 0.2 * (psnr(codec.decode(d), x) - 21.5)),
        ({"ssim": 0.67}, lambda x, d: 2 * np.log10((1 - ssim(codec.decode(d), x)) / 0.33)),
    ],
)
def test_targets_are_hit_in_five_encodes(runtime, asked, measure):
    x, tried = tiny.photo(96, 128, seed=3), []

    def encode(byte):
        tried.append(byte)
        return codec.encode(x, byte / 2.55, runtime=runtime)

    ((name, value),) = asked.items()
    data = nearest(encode, planes_of(x), name, value)
    assert len(tried) <= 5
    assert abs(measure(x, data)) <= 0.02
    assert data == codec.encode(x, runtime=runtime, **asked)


def test_targets_out_of_reach_give_the_nearest(runtime):
    x = tiny.photo()
    with pytest.warns(codec.TargetMissed):
        smallest = codec.encode(x, size=1, runtime=runtime)
    assert smallest == codec.encode(x, 0, runtime=runtime)
    with pytest.warns(codec.TargetMissed):
        largest = codec.encode(x, psnr=99.0, runtime=runtime)
    assert largest == codec.encode(x, 100, runtime=runtime)


@pytest.mark.parametrize(
    "x, asked, word",
    [
        (np.zeros((4, 4), np.float32), {}, "uint8 or uint16"),
        (np.zeros((4, 4, 5), np.uint8), {}, "1 to 4"),
        (np.zeros((0, 4, 3), np.uint8), {}, "1 to 4"),
        (np.zeros((4, 4, 3), np.uint8), {"quality": 101}, "0 to 100"),
        (np.zeros((4, 4, 3), np.uint8), {"quality": float("nan")}, "out of range"),
        (np.zeros((4, 4, 3), np.uint8), {"bpp": -1.0}, "out of range"),
        (np.zeros((4, 4, 3), np.uint8), {"bpp": 1.0, "size": 5}, "give one"),
        (np.zeros((4, 4, 3), np.uint8), {"effort": 10}, "0 to 9"),
        (np.zeros((4, 4, 3), np.uint8), {"metadata": {"gps": b"1"}}, "not supported"),
    ],
)
def test_impossible_wishes_are_named(runtime, x, asked, word):
    with pytest.raises(CodecError, match=word):
        codec.encode(x, runtime=runtime, **asked)


def test_a_cut_file_decodes_to_a_coarser_image_and_says_so(runtime):
    x = tiny.photo(channels=4)
    data = codec.encode(x, 80, runtime=runtime)
    whole = codec.read(data)
    assert whole.complete and whole.scans == 2
    header = codec.info(data)["parts"]["header"]
    errors = []
    for cut in range(header, len(data), 29):
        found = codec.read(data[:cut])
        assert not found.complete and found.image.shape == x.shape
        errors.append((found.scans, psnr(found.image[..., :3], x[..., :3])))
        if not found.scans:
            assert (found.image[..., :3] == 128).all()
    assert {scans for scans, _ in errors} == {0, 1, 2}  # the alpha plane comes last
    by_scan = [max(e for scans, e in errors if scans == n) for n in (0, 1, 2)]
    assert by_scan == sorted(set(by_scan))
    with pytest.warns(codec.CutFile, match="0 of 2"):
        codec.decode(data[:header])
    with pytest.raises(CodecError, match="truncated"):
        codec.decode(data[:-1], strict=True)
    with pytest.raises(CodecError, match="ends within its header"):
        codec.decode(data[: header - 1])


def test_hostile_sizes_are_refused_before_anything_is_allocated(runtime):
    data = Header(runtime.frozen.id, 0, 2**30, 2**30).pack()
    with pytest.raises(CodecError, match="max_pixels"):
        codec.decode(data)
    strip = Header(runtime.frozen.id, 0, 2**19, 2).pack()  # few pixels, but windows are 64 high
    with pytest.raises(CodecError, match="33554432 pixels"):
        codec.decode(strip, max_pixels=2**20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(codec.CutFile):
            codec.decode(Header(runtime.frozen.id, 0, 1000, 1000).pack())


def test_a_strange_model_is_named():
    with pytest.raises(CodecError, match="0badc0de"):
        codec.decode(Header(bytes.fromhex("0badc0de"), 0, 5, 5).pack())


def test_bytes_that_are_too_many(runtime):
    data = codec.encode(tiny.photo(), runtime=runtime)
    with pytest.raises(CodecError, match="extra bytes"):
        codec.decode(data + b"\0")


def test_wrong_symbols_are_an_error_and_never_an_image(runtime):
    """A stream whose crc is right, but whose symbols are not those that were written."""
    data = codec.encode(tiny.photo(), 70, runtime=runtime)
    parsed = parse(data, lambda _: 2)
    chunk = parsed.tiles[0][0]
    start = codec.info(data)["parts"]["header"]
    other = container.Chunk(chunk.data[:-2] + b"\x55\xaa", chunk.symbols).pack()
    assert len(other) == len(chunk.pack())
    with pytest.raises(CodecError, match="did not decode to the symbols|is damaged"):
        codec.decode(data[:start] + other + data[start + len(other) :])


def test_quality_byte_is_what_the_networks_see(runtime):
    seen = [float(quality_byte(jax.numpy.asarray(as_quality(b)))[0]) for b in range(256)]
    assert seen == list(range(256))


# --- large images ---------------------------------------------------------------------------------


@pytest.fixture()
def small_tiles(monkeypatch):
    """Tiles of 16 latents, so that a small picture has many of them."""
    monkeypatch.setattr(container, "TILE", 16)
    monkeypatch.setattr(windows, "SHAPES", (4, 8, 16))
    monkeypatch.setattr(windows, "CORE", (4, 8))


def at_once_and_in_tiles(runtime, x, byte):
    """(y, y from tiles, image, image from tiles) of a padded picture; images in [0, 1]."""
    header = Header(runtime.frozen.id, byte, x.shape[1], x.shape[0])
    gh, gw = header.grid
    pad = ((0, 16 * gh - x.shape[0]), (0, 16 * gw - x.shape[1]), (0, 0))
    q = np.array([byte / 2.55], np.float32)
    whole = np.asarray(runtime.analyse(runtime.variables, np.pad(x, pad, mode="edge")[None], q))[0]
    image = np.clip(np.asarray(runtime.synthesise(runtime.variables, whole[None], q))[0], 0, 1)
    deep = dataclasses.replace(header, flags=container.DEEP)
    y, pixels = np.zeros_like(whole), np.zeros_like(image)
    for i, j, h, w in header.tiles:
        y[i : i + h, j : j + w] = runtime.latents(x, (i, j, h, w), header)
        part = runtime.pixels(whole, 0, (i, j, h, w), deep) / 65535
        pixels[16 * i : 16 * (i + h), 16 * j : 16 * (j + w)] = part
    return whole, y, image, pixels


def test_tiles_leave_no_seam(small_tiles, runtime):
    """Windows give what the whole picture at once gives."""
    x = tiny.photo(16 * 26, 16 * 21 - 5)
    whole, y, image, pixels = at_once_and_in_tiles(runtime, x, 128)
    np.testing.assert_allclose(y, whole, atol=2e-4 * np.abs(whole).max())
    np.testing.assert_allclose(pixels, image, atol=1e-4)


@pytest.mark.parametrize("metric", others_slow(["mse", "ms-ssim"], "mse"))
def test_what_ships_leaves_no_seam(small_tiles, metric):
    """The halo is shorter than what the transforms that ship can see: nobody can. In float32: on a
    CPU that multiplies bfloat16, small windows have other roundings than the whole picture."""
    x = tiny.photo(16 * 22, 16 * 22)
    for byte in (0, 255):
        with ops.forms(all="cpu_f32"):
            whole, y, image, pixels = at_once_and_in_tiles(runtime_for(metric), x, byte)
        np.testing.assert_allclose(y, whole, atol=0.005)
        np.testing.assert_allclose(pixels, image, atol=0.02 / 255)


def test_tiled_files(small_tiles, runtime):
    x = tiny.photo(16 * 38 - 7, 16 * 33)
    data = codec.encode(x, 60, runtime=runtime)
    assert codec.info(data)["tiles"] == 9
    y = codec.read(data)
    assert y.complete and psnr(y.image, x) > 17
    parsed = parse(data, lambda _: 2)
    whole = np.zeros((1, *parsed.header.grid, 24), np.float32)
    for (i, j, h, w), chunks in zip(parsed.header.tiles, parsed.tiles, strict=True):
        whole[0, i : i + h, j : j + w] = runtime.decode_tile(chunks, h, w, parsed.header.quality)
    q = np.array([parsed.header.quality / 2.55], np.float32)
    want = np.asarray(runtime.to_samples(runtime.variables, whole, q, 0))[0, : x.shape[0]]
    assert np.abs(y.image.astype(int) - want).max() <= 1
    half = codec.read(data[: len(data) // 2])
    assert half.image.shape == x.shape and not half.complete
    none = codec.read(data[:40])  # not one chunk has come
    assert (none.image == 128).all()


# --- effort ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", others_slow(["mse", "ms-ssim"], "mse"))
def test_effort_lowers_the_cost_and_never_raises_it(runtime, metric):
    """The cost in what the weights were trained for."""
    from aejax import weights
    from aejax.codec import effort

    trained_for = weights.Metadata({"objective": {"kwargs": {"metric": metric}}})
    runtime = copy.copy(runtime)
    runtime.frozen = dataclasses.replace(runtime.frozen, meta=trained_for)
    x, byte = tiny.photo(40, 72), 150
    header = Header(runtime.frozen.id, byte, x.shape[1], x.shape[0])
    y = runtime.latents(x, header.tiles[0], header)
    lam = effort.slope(runtime, x, byte)

    def cost(y):
        bits, error = effort.rate_and_distortion(runtime, x, y, byte)
        return bits + lam * error

    assert cost(effort.refine(runtime, x, y, byte, 5)) < 0.995 * cost(y)
    as_if_no_move_disturbed_another = (1e-4, 1e-4)
    worse = effort.refine(runtime, x, y, byte, 1, as_if_no_move_disturbed_another)
    np.testing.assert_array_equal(worse, y)
    assert codec.decode(codec.encode(x, 60, effort=1, runtime=runtime)).shape == x.shape
