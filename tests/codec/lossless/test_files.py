"""Lossless files: arrays to bytes and back, cut, damaged, in tiles, on any path."""

import pathlib
import warnings

import jax
import numpy as np
import pytest

from aejax.codec import api as codec
from aejax.codec import container
from aejax.codec.api import CodecError
from aejax.codec.container import Header
from aejax.codec.lossless import installed, nets, plain, writing
from aejax.codec.lossless import runtime as rt
from aejax.codec.lossless.installed import use
from aejax.codec.lossless.layout import parse, tiles_of
from aejax.nets import ops
from tests.codec.lossless import tiny
from tests.codec.tiny import photo
from tests.helpers import others_slow

GOLDEN = pathlib.Path(__file__).parent / "golden.aej"


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Files by the tiny network, even where deflate would be smaller; tiles of 32 pixels, so that
    there is one shape to compile."""
    use(tiny.weights())
    monkeypatch.setattr(plain, "encode", lambda image: bytes(10**6))
    monkeypatch.setattr(rt, "TILE", 32)


def encode(x, **more) -> bytes:
    return codec.encode(x, lossless=True, runtime=tiny.runtime(), **more)


def kinds(height=19, width=27):
    """Images of every kind."""
    rng = np.random.default_rng(0)
    for channels in (1, 2, 3, 4):
        x = photo(height, width, channels)
        yield x
        yield x.astype(np.uint16) * 257
        yield (x.astype(np.uint16) << 8) + rng.integers(0, 256, x.shape, np.uint16)


@pytest.mark.parametrize("x", list(kinds()), ids=lambda x: f"{x.dtype}{list(x.shape)}")
def test_every_kind_comes_back(x):
    data = encode(x)
    y = codec.decode(data)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)
    codec.verify(data)
    found = codec.info(data)
    assert found["complete"] and found["bytes"] == len(data)
    assert sum(found["parts"].values()) <= len(data)


@pytest.mark.parametrize("shape", ((1, 1), (1, 9), (9, 1), (2, 3), (8, 8), (31, 32), (33, 65)))
def test_any_size(shape):
    for x in (photo(*shape), np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)):
        np.testing.assert_array_equal(codec.decode(encode(x)), x)


def test_extremes():
    """Saturated colours, black, white, gray stored as RGB."""
    corners = np.array([[0, 0, 255], [255, 0, 0], [0, 255, 0], [255, 0, 255]], np.uint8)
    checks = corners[np.random.default_rng(0).integers(0, 4, (24, 24))]
    gray = np.repeat(photo(24, 24, 1)[..., None], 3, -1)
    for x in (checks, np.zeros((24, 24, 3), np.uint8), np.full((9, 9), 65535, np.uint16), gray):
        np.testing.assert_array_equal(codec.decode(encode(x)), x)
    assert len(encode(gray)) < len(encode(photo(24, 24)))  # nothing is spent on colour


def test_the_colour_transform_is_reversible():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.integers(0, 256, (4000, 3)), rng.choice([0, 255], (200, 3))])
    ycc = nets.ycocg(x)
    np.testing.assert_array_equal(nets.rgb(ycc), x)
    assert (ycc >= nets.LOW).all() and (ycc <= nets.HIGH).all()


@pytest.mark.slow
def test_bytes_are_what_training_minimises():
    """The file of a tile against the loss of the unfrozen model: within two percent."""
    x = photo(32, 32, seed=2)
    ycc = nets.ycocg(x.astype(np.int32))
    chunks = tiny.runtime().encode_tile(ycc, False)
    model = nets.Lossless(**tiny.FIELDS | {"blocks": (True,)}, levels=2)
    variables = {"params": tiny.weights().params}
    bits = float(model.apply(variables, x[None] / np.float32(255)).terms["bits"][0])
    assert 8 * sum(len(c.data) for c in chunks[1:]) == pytest.approx(bits, rel=0.02)


# --- portable -------------------------------------------------------------------------------------


def samples(runtime: rt.Runtime, data: bytes) -> np.ndarray:
    """Of the first tile; decoding checks their hash besides."""
    return runtime.decode_tile(parse(data, 1 << 20).tiles[0], 19, 27, False)


@pytest.fixture(scope="module")
def written():
    return encode(photo(19, 27))


@pytest.mark.parametrize("form", others_slow(ops.FORMS, "plain", "cpu_bf16"))
@pytest.mark.parametrize("jit", (True, pytest.param(False, marks=pytest.mark.slow)))
def test_every_form_of_the_primitives(written, form, jit):
    want = nets.ycocg(photo(19, 27).astype(np.int32))
    runtime = rt.Runtime(tiny.weights(), jit)
    with ops.forms(all=form):
        np.testing.assert_array_equal(samples(runtime, written), want)
        chunks = runtime.encode_tile(want, False)
    assert [c.data for c in chunks] == [c.data for c in parse(written, 1 << 20).tiles[0]]


def test_in_double_precision(written):
    with jax.enable_x64(True):
        x = samples(rt.Runtime(tiny.weights()), written)
    np.testing.assert_array_equal(nets.rgb(x), photo(19, 27))


def test_golden_file():
    """What was written once is read for ever."""
    x = photo(45, 37, 4, seed=5)
    if not GOLDEN.exists():
        GOLDEN.write_bytes(encode(x, metadata={"exif": b"golden"}))
    data = GOLDEN.read_bytes()
    np.testing.assert_array_equal(codec.decode(data), x)
    assert encode(x, metadata={"exif": b"golden"}) == data


def test_tiles_in_any_order(written):
    """A tile's chunks are its own: the last one decodes without the others."""
    x = photo(45, 70)
    parsed = parse(encode(x), 1 << 20)
    places = tiles_of(parsed.header)
    assert len(places) == 6
    for n in (5, 0, 3):
        i, j, h, w = places[n]
        found = tiny.runtime().decode_tile(parsed.tiles[n], h, w, False)
        np.testing.assert_array_equal(nets.rgb(found), x[i : i + h, j : j + w])


# --- cut and damaged ------------------------------------------------------------------------------


def test_cut_files_give_coarser_images():
    x = photo(45, 70, seed=3)
    data, errors = encode(x), []
    for cut in np.linspace(40, len(data) - 1, 8).astype(int):
        with pytest.warns(codec.CutFile, match="of 3 scans"):
            y = codec.decode(data[:cut])
        errors.append(np.abs(y.astype(int) - x).mean())
        with pytest.raises(CodecError, match="truncated"):
            codec.decode(data[:cut], strict=True)
        with pytest.raises(CodecError, match="truncated"):
            codec.verify(data[:cut])
    assert errors == sorted(errors, reverse=True) and 0 < errors[-1] < errors[0] / 4, errors


def test_other_pixels_than_were_written_are_refused():
    data = bytearray(encode(photo(8, 8)))
    at = len(Header(b"abcd", 0, 8, 8).pack())
    data[at] ^= 1  # the crc of the pixels
    with pytest.raises(CodecError, match="not those that were encoded"):
        codec.decode(bytes(data))


def damaged(rng: np.random.Generator, good: list[bytes]) -> bytes:
    """One of: cut, flipped bits, changed bytes, spliced, a forged header, forged chunks."""
    data = bytearray(good[rng.integers(len(good))])
    kind = rng.integers(6)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif kind == 2:
        at = rng.integers(len(data))
        data[at : at + rng.integers(1, 20)] = rng.bytes(rng.integers(0, 20))
    elif kind == 3:
        a, other = rng.integers(len(data)), good[rng.integers(len(good))]
        return bytes(data[:a]) + other[rng.integers(len(other)) :]
    else:
        w, h = (int(rng.choice((1, 19, 32, 2**20, 2**30))) for _ in range(2))
        mode, flags = int(rng.integers(4)), int(rng.integers(16))
        front = Header(tiny.weights().id, mode, w, h, flags, container.LOSSLESS).pack()
        chunks = b"".join(
            container.Chunk(rng.bytes(n), int(rng.integers(65536))).pack()
            for n in rng.integers(1, 200, rng.integers(1, 5))
        )
        return front + rng.bytes(4) + chunks
    return bytes(data)


def check(data: bytes, originals) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", codec.CutFile)
            found = codec.read(data, max_pixels=1 << 20)
    except CodecError as e:
        assert str(e) and "\n" not in str(e)
        return "refused"
    if found.complete:
        assert any(np.array_equal(found.image, x) for x in originals)
    return "whole" if found.complete else "cut"


def fuzz(count: int, seed: int) -> dict[str, int]:
    """How often which outcome."""
    rng, seen = np.random.default_rng(seed), {}
    originals = [photo(19, 27), photo(9, 40, 4), photo(19, 27, 1).astype(np.uint16) * 257]
    good = [encode(x) for x in originals]
    for _ in range(count):
        found = check(damaged(rng, good), originals)
        seen[found] = seen.get(found, 0) + 1
    return seen


def test_200_damaged_files():
    seen = fuzz(200, 0)
    assert seen["refused"] > 60 and seen["cut"] > 10, seen


@pytest.mark.nightly
def test_10000_damaged_files():
    seen = fuzz(10_000, 1)
    assert seen["refused"] > 3000, seen


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ({"quality": 50}, {"bpp": 1.0}, {"effort": 3}))
def test_lossless_takes_no_quality(asked):
    with pytest.raises(CodecError, match=f"no {next(iter(asked))}"):
        encode(photo(8, 8), **asked)


def test_the_smaller_of_network_and_deflate(monkeypatch):
    monkeypatch.undo()
    use(tiny.weights())
    drawing = np.zeros((40, 50, 3), np.uint8)
    drawing[10:30, 5:45] = 200
    data = encode(drawing)
    assert codec.info(data)["lossless"] == "deflate" and len(data) < 120
    np.testing.assert_array_equal(codec.decode(data), drawing)


def test_without_networks_files_are_deflated(monkeypatch):
    monkeypatch.undo()
    x = photo(20, 20)
    data = writing.file_by(None, x)
    assert codec.info(data)["lossless"] == "deflate"
    np.testing.assert_array_equal(codec.decode(data), x)


def test_a_file_of_a_network_that_is_not_there_names_it():
    data = bytearray(encode(photo(8, 8)))
    start = data.index(tiny.weights().id)
    data[start] ^= 255
    model = bytes(data[start : start + 4])
    with pytest.raises(CodecError, match=model.hex()):
        installed.runtime_of(model)


def test_weights_are_saved_and_found_again(tmp_path):
    from aejax.codec.lossless import freeze

    freeze.save(tiny.weights(), tmp_path / "w.safetensors")
    found = freeze.load(tmp_path / "w.safetensors")
    assert found.id == tiny.weights().id and found.fields == tiny.FIELDS
