"""The mode for what is not a photograph."""

import io

import numpy as np
import pytest
from PIL import Image

from aejax.codec.errors import CodecError
from aejax.codec.lossless import plain
from tests.codec.tiny import photo


@pytest.mark.parametrize("dtype", (np.uint8, np.uint16))
@pytest.mark.parametrize("channels", (1, 2, 3, 4))
@pytest.mark.parametrize("shape", ((1, 1), (1, 9), (70, 33)))
def test_every_kind_comes_back(shape, channels, dtype):
    x = photo(*shape, channels).reshape(*shape, channels).astype(dtype)
    x = x * 257 if dtype == np.uint16 else x
    y = plain.decode(plain.encode(x), x.shape, dtype)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("colours", (1, 2, 3, 5, 16, 17, 256, 257))
@pytest.mark.parametrize("channels", (1, 3, 4))
def test_palettes(colours, channels):
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (colours, channels), np.uint8)
    x = palette[rng.integers(0, colours, (37, 61))]
    data = plain.encode(x)
    np.testing.assert_array_equal(plain.decode(data, x.shape, np.uint8), x)
    if colours <= 16 and channels > 1:
        rows = 37 * (1 + -(-61 * plain.bits_of(colours) // 8))
        assert len(data) < rows + 4 * colours + 30


@pytest.mark.parametrize("kind", range(5))
def test_each_of_pngs_filters(kind):
    """Against what undoes it byte by byte."""
    rows = np.random.default_rng(0).integers(0, 256, (9, 21), np.uint8)
    (data,) = plain.filtered(rows, np.zeros_like(rows[0]), 3, [kind])
    assert set(data[::22]) == {kind}
    np.testing.assert_array_equal(plain.unfiltered(data, 9, 21, 3), rows)


def drawings() -> dict[str, np.ndarray]:
    """Lines, text, a palette, a scan in two tones, a screenshot with a gradient."""
    y, x = np.mgrid[:160, :200]
    ink = ((np.hypot(x - 90, y - 80) % 23 < 2) | (abs(x - 2 * y + 60) < 2)).astype(np.uint8)
    window = np.full((160, 200, 3), 240, np.uint8)
    window[:20] = np.linspace(40, 90, 200).astype(np.uint8)[None, :, None] + [0, 20, 90]
    window[40:120:8, 20:180] = [30, 30, 30]
    noise = np.random.default_rng(0).integers(0, 2, (160, 200), np.uint8)
    return {
        "scan": 255 * ink[..., None],
        "colour": np.array([[255, 255, 255], [200, 30, 30]], np.uint8)[ink],
        "palette": np.array([[9, 9, 9], [8, 80, 8], [255, 0, 99]], np.uint8)[ink + noise],
        "screen": window,
        "ramp": np.broadcast_to((x % 256).astype(np.uint8)[..., None], (160, 200, 3)).copy(),
    }


@pytest.mark.parametrize("name", drawings())
def test_not_larger_than_png(name):
    x = drawings()[name]
    best = []
    shown = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
    kinds = [shown]
    if x.shape[2] == 1:
        kinds.append(shown.convert("1", dither=Image.Dither.NONE))
    if len(np.unique(x.reshape(-1, x.shape[2]), axis=0)) <= 256:
        kinds.append(shown.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE))
    for kind in kinds:
        file = io.BytesIO()
        kind.save(file, "PNG", optimize=True)
        best.append(file.tell())
    assert len(plain.encode(x)) <= 1.05 * min(best), best


def test_cut_data_give_the_rows_that_are_there():
    for x in (photo(64, 50), drawings()["palette"]):
        data = plain.encode(x)
        y = plain.decode(data[: len(data) // 2], x.shape, np.uint8, cut=True)
        rows = int((y == x).all((1, 2)).argmin())
        assert rows > 10
        assert (y[-1] == 128).all()
        for n in range(0, len(data), max(1, len(data) // 50)):
            assert plain.decode(data[:n], x.shape, np.uint8, cut=True).shape == x.shape


def test_damaged_data_are_refused_or_have_the_right_shape():
    rng = np.random.default_rng(0)
    for x in (photo(20, 30), drawings()["palette"][:40, :50]):
        good = plain.encode(x)
        for _ in range(300):
            data = bytearray(good)
            data[rng.integers(min(len(data), 40))] ^= 1 << rng.integers(8)
            try:
                assert plain.decode(bytes(data), x.shape, np.uint8).shape == x.shape
            except CodecError as e:
                assert "damaged" in str(e)
