"""The promise of the format: the same symbols wherever, however and by whatever version."""

import pathlib

import jax
import numpy as np
import pytest
from skimage.data import astronaut

from aejax.codec import api as codec
from aejax.codec import installed
from aejax.codec.errors import CodecError
from aejax.codec.freeze import load
from aejax.codec.layout import parse
from aejax.codec.passes import checkerboard
from aejax.codec.runtime import Runtime
from aejax.nets import ops
from tests.codec import tiny
from tests.helpers import others_slow

GOLDEN = pathlib.Path(__file__).parent / "golden.aej"


@pytest.fixture(scope="module")
def written():
    """(bytes, y_hat) of a stream as the default path writes and reads it."""
    data = codec.encode(tiny.photo(), 70, runtime=tiny.runtime())
    return data, latents(tiny.runtime(), data)


def latents(r: Runtime, data: bytes) -> np.ndarray:
    """y_hat of a stream's first tile; decoding checks the symbols' hash besides."""
    parsed = parse(data, lambda _: 2)
    h, w = parsed.header.tiles[0][2:]
    return r.decode_tile(parsed.tiles[0], h, w, parsed.header.quality)


@pytest.mark.parametrize("form", others_slow(ops.FORMS, "plain"))
def test_every_form_of_the_primitives(written, form):
    data, want = written
    with ops.forms(all=form):
        np.testing.assert_array_equal(latents(Runtime(tiny.frozen()), data), want)


@pytest.mark.slow
def test_eagerly(written):
    data, want = written
    np.testing.assert_array_equal(latents(Runtime(tiny.frozen(), jit=False), data), want)


@pytest.mark.slow
def test_streams_of_every_form_decode(written):
    """What another machine's encoder wrote may be other bytes, but decodes here."""
    for form in ("plain", "cpu_bf16"):
        with ops.forms(all=form):
            other = codec.encode(tiny.photo(), 70, runtime=Runtime(tiny.frozen()))
        assert codec.decode(other).shape == tiny.photo().shape


def test_in_a_batch_and_on_four_devices(written):
    """The entropy model of four pictures at once, on one device and on four, against one."""
    r, q = tiny.runtime(), np.array([70.0], np.float32)
    rng = np.random.default_rng(0)
    shape = (4, 4, 8, tiny.FIELDS["latent"])
    y = (np.round(rng.laplace(size=shape) * 40) / 16).astype(np.float32)
    z = rng.integers(-3, 4, (4, 2, 4, tiny.FIELDS["z"])).astype(np.float32)

    def levels(y, z):
        def run(m):
            b = m.bottleneck
            cond = {"quality": q * np.ones(len(y), np.float32)}
            features = b.hyper_synthesis(z, (4, 8), cond)
            base, out = b.base_levels(cond), []
            first = checkerboard(4, 8)
            start, done = 0, []
            for i, size in enumerate(m.slices):
                own = y[..., start : start + size]
                shared = b.shared(i, features, done)
                part = base[..., start : start + size]
                out += [*b.parameters(i, shared, part), *b.parameters(i, shared, part, own * first)]
                done.append(own)
                start += size
            return out

        return r.model.apply(r.variables, method=run)

    singly = [jax.jit(levels)(y[i : i + 1], z[i : i + 1]) for i in range(4)]
    want = [np.concatenate(parts) for parts in zip(*singly, strict=True)]
    for a, b in zip(jax.jit(levels)(y, z), want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.device_count() >= 4
    spread = jax.pmap(levels, devices=jax.devices()[:4])(y[:, None], z[:, None])
    for a, b in zip(spread, want, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[:, 0], b)
    assert len(np.unique(np.concatenate([w.reshape(-1) for w in want[1::2]]))) > 20


def test_frozen_forward_is_the_training_forward():
    """Nothing is approximated when a model is frozen: same levels and means from the same y."""
    params = jax.tree.map(np.asarray, tiny.params())
    q = {"quality": np.array([40.0], np.float32)}
    z = np.random.default_rng(0).integers(-3, 4, (1, 2, 4, 4)).astype(np.float32)

    def run(m):
        b = m.bottleneck
        shared = b.shared(0, b.hyper_synthesis(z, (4, 8), q), ())
        return b.parameters(0, shared, b.base_levels(q)[..., :8])

    trained = tiny.model().apply({"params": params}, method=run)
    frozen = tiny.frozen().model.apply({"params": tiny.frozen().params}, method=run)
    for a, b in zip(trained, frozen, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stream_of_another_jax_decodes():
    """golden.aej was written once, by jax 0.12 on AVX-512; python -m tests.codec.test_portable
    writes it anew if the format changes."""
    data = GOLDEN.read_bytes()
    codec.use(tiny.frozen())
    found = codec.read(data)
    assert found.complete and found.metadata["exif"] == b"golden"
    want = tiny.photo(100, 140, seed=9)
    error = np.mean((found.image.astype(float) - want.astype(float)) ** 2)
    assert error < 200


if __name__ == "__main__":
    codec.use(tiny.frozen())
    image = tiny.photo(100, 140, seed=9)
    GOLDEN.write_bytes(
        codec.encode(image, 75, runtime=tiny.runtime(), metadata={"exif": b"golden"})
    )


def test_a_file_of_the_weights_before_is_read():
    data = (GOLDEN.parent / "codec-1.aej").read_bytes()  # astronaut, quality 50
    assert data[9:13].hex() == load("codec-1").id.hex() != load("codec").id.hex()
    y = codec.decode(data)
    x = astronaut()[0:96, 160:320]
    assert y.shape == x.shape and np.mean(np.square(y - x.astype(float))) < 45  # 31.6 dB


def test_a_file_of_retired_weights_names_them_and_is_read_with_them(monkeypatch):
    monkeypatch.chdir(pathlib.Path(__file__).parents[2])
    data = (GOLDEN.parent / "codec-ms-ssim-1.aej").read_bytes()  # astronaut, quality 50
    file = installed.RETIRED[data[9:13].hex()]
    with pytest.raises(CodecError, match=f"get {file} .* --weights"):
        codec.decode(data)
    codec.use(file)  # stored as a difference to codec-1
    y = codec.decode(data)
    assert np.mean(np.square(y - astronaut()[0:96, 160:320].astype(float))) < 70  # 29.9 dB
