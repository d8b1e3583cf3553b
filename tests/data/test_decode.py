import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from aejax.data.decode import flatten, resize, resized_shape
from aejax.data.images import (
    BadImage,
    Meta,
    header,
    read_image,
    to_uint8,
    write_image,
)
from aejax.errors import UserError
from tests.data.data_helpers import picture, png


def saved(im: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    im.save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".tif", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_is_read(tmp_path, suffix, channels):
    x = np.full((24, 32, channels), (90, 120, 60)[:channels], np.uint8)
    x[8:16] += 40
    write_image(path := tmp_path / f"x{suffix}", x)
    y, _ = read_image(path)
    y = flatten(y, channels)  # WebP has no gray
    assert y.shape == x.shape and y.dtype == np.uint8
    tolerance = {".png": 0, ".tif": 0, ".bmp": 0}.get(suffix, 6)
    assert abs(y.astype(int) - x).max() <= tolerance
    assert header(path)[:2] == (24, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_exif_rotation(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(picture(16, 24)), format, exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    got, meta = read_image(data)
    np.testing.assert_array_equal(got, want)
    assert header(data)[:2] == want.shape[:2]
    assert (want.shape[:2] == (24, 16)) == (orientation >= 5)
    if meta.exif:  # carried on, but it must not be turned a second time
        kept = Image.Exif()
        kept.load(meta.exif)
        assert kept.get(0x0112, 1) == 1


def test_palette_with_and_without_transparency():
    x = np.zeros((6, 8, 3), np.uint8)
    x[:, 4:] = (250, 20, 90)
    im = Image.fromarray(x).quantize(4)
    got, meta = read_image(saved(im, "PNG"))
    np.testing.assert_array_equal(got, x)
    assert meta.mode == "P" and not meta.has_alpha
    clear = im.getpixel((0, 0))
    got, meta = read_image(saved(im, "PNG", transparency=clear))
    assert got.shape == (6, 8, 4) and meta.has_alpha
    np.testing.assert_array_equal(
        got[..., 3], np.where(np.arange(8) < 4, 0, 255)[None].repeat(6, 0)
    )
    assert (flatten(got)[:, :4] == 255).all(), "what is transparent lies on white"


@pytest.mark.parametrize("mode", ["1", "LA", "CMYK", "YCbCr", "RGBA", "I;16", "L"])
def test_odd_modes(mode):
    format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    im = Image.fromarray(picture(9, 7)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        im = Image.fromarray(np.asarray(im).astype(np.uint16) * 257)
    got, _ = read_image(saved(im, format))
    channels = {"LA": 2, "RGBA": 4, "CMYK": 3, "YCbCr": 3}.get(mode, 1)
    assert got.shape == (9, 7, channels) and got.dtype == np.uint8
    assert header(saved(im, format))[2] == (1 if channels < 3 else 3)


def test_alpha_is_laid_over_white():
    x = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 255, 128]]], np.uint8)
    want = np.rint(x[..., :3] * (x[..., 3:] / 255) + 255 * (1 - x[..., 3:] / 255))
    np.testing.assert_array_equal(flatten(x), want)
    assert flatten(x, 1).shape == (1, 3, 1)


def test_gray_of_colour_is_what_pillow_says():
    x = picture(32, 32)
    np.testing.assert_array_equal(flatten(x, 1)[..., 0], Image.fromarray(x).convert("L"))
    np.testing.assert_array_equal(flatten(x[..., :1], 3), np.repeat(x[..., :1], 3, 2))


def test_sixteen_bits_to_eight_rounds():
    x = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_uint8(x), np.rint(x / 257).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_survive(tmp_path, suffix, channels):
    x = picture(37, 23, channels, dtype=np.uint16)
    write_image(path := tmp_path / f"x{suffix}", x)
    got, _ = read_image(path, keep_depth=True)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, x)
    np.testing.assert_array_equal(read_image(path)[0], to_uint8(x))


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"tile": (16, 16)},
                                     {"compression": "zlib"}])  # fmt: skip
def test_sixteen_bit_tiff_of_others(tmp_path, options):
    tifffile = pytest.importorskip("tifffile")
    x = picture(40, 24, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", x, photometric="rgb", **options)
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif", keep_depth=True)[0], x)
    tifffile.imwrite(tmp_path / "y.tif", np.moveaxis(x, 2, 0), photometric="rgb",
                     planarconfig="separate")  # fmt: skip
    np.testing.assert_array_equal(read_image(tmp_path / "y.tif", keep_depth=True)[0], x)


def test_sixteen_bit_png_of_others():
    imagecodecs = pytest.importorskip("imagecodecs")
    for channels in (1, 2, 3, 4):
        x = picture(19, 31, channels, dtype=np.uint16)
        data = imagecodecs.png_encode(x.squeeze(-1) if channels == 1 else x)
        np.testing.assert_array_equal(read_image(data, keep_depth=True)[0], x)
        assert header(data) == (19, 31, 1 if channels < 3 else 3)


@pytest.mark.parametrize(
    "suffix, depth",
    [(s, np.uint8) for s in (".png", ".jpg", ".webp", ".avif", ".tif")]
    + [(s, np.uint16) for s in (".png", ".tif")],
)
def test_metadata_is_carried(tmp_path, suffix, depth):
    exif = Image.Exif()
    exif[315] = "somebody"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    meta = Meta(icc=icc, exif=exif.tobytes(), xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    write_image(path := tmp_path / f"x{suffix}", picture(16, 16, dtype=depth), meta)
    got = read_image(path)[1]
    assert got.icc == icc and got.xmp == meta.xmp
    kept = Image.Exif()
    kept.load(got.exif)
    assert kept[315] == "somebody"


def test_orientation_in_xmp_is_set_right():
    xmp = b'<x tiff:Orientation="6"/>'
    got, meta = read_image(saved(Image.fromarray(picture(8, 12)), "JPEG", xmp=xmp))
    assert got.shape == (12, 8, 3) and b'tiff:Orientation="1"' in meta.xmp


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty"),
        (b"not a picture at all, but text", "not an image"),
        (png(picture(64, 64))[:3000], "damaged"),
        (saved(Image.fromarray(picture(64, 64)), "JPEG")[:900], "damaged"),
        (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
        (saved(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"), "32-bit"),
    ],
)
def test_bad_files_are_named(tmp_path, data, reason):
    path = tmp_path / "shot.png"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=f"shot.png: .*{reason}"):
        read_image(path)
    with pytest.raises(UserError, match="no such file: .*other.png"):
        read_image(tmp_path / "other.png")


def test_what_cannot_be_written(tmp_path):
    for x, name, reason in (
        (picture(4, 4, 4), "x.jpg", "transparency"),
        (picture(4, 4), "x.gif", "suffix"),
        (picture(4, 4), "no/x.png", "cannot write"),
    ):
        with pytest.raises(UserError, match=reason):
            write_image(tmp_path / name, x)
    assert not list(tmp_path.iterdir()), "no half files"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(1, 30))
def test_resize_shapes(h, w, a, b):
    x = np.full((h, w, 3), 77, np.uint8)
    for size in (a, (a, b)):
        y = resize(x, size)
        assert y.shape[:2] == resized_shape(h, w, size)
        assert (y == 77).all()
    short = resized_shape(h, w, a)
    assert min(short) == a
    assert abs(short[0] / short[1] / (h / w) - 1) <= 1 / a, "the proportions stay"


def test_resize_to_a_shape_cuts_evenly():
    x = np.zeros((20, 60, 1), np.uint8)
    x[:, 20:40] = 200
    assert (resize(x, (20, 20)) == 200).all()
    assert (resize(x, (10, 30))[..., 0] == resize(x, 10)[..., 0]).all()
