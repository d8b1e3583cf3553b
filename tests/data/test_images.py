"""Format x mode x depth x metadata: what is read and written, by Pillow's and tifffile's word."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from aejax.data import deep, images
from aejax.data.images import (
    DEEP,
    OPAQUE,
    SUFFIXES,
    BadImage,
    Meta,
    header,
    picture_of,
    read_image,
    to_uint8,
    write_image,
)
from aejax.errors import UserError
from tests.data.data_helpers import picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>\xc3\xa9</x:xmpmeta>"
DTYPES = (np.uint8, np.uint16)


def exif_bytes(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[315], tags[272], tags[274] = "somebody", "a camera", orientation
    tags.get_ifd(deep.EXIF_IFD)[36867] = "2020:01:02 03:04:05"
    tags.get_ifd(deep.EXIF_IFD)[33434] = 0.01
    tags.get_ifd(deep.GPS_IFD)[1] = "N"
    tags[deep.EXIF_IFD] = dict(tags.get_ifd(deep.EXIF_IFD))
    tags[deep.GPS_IFD] = dict(tags.get_ifd(deep.GPS_IFD))
    return tags.tobytes()


def saved(im: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    im.save(out, format, **options)
    return out.getvalue()


def tiff(x: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, x, **options)
    return out.getvalue()


def plain_png(x: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """uint16 [h, w, c] as a PNG without filters: not the writer that is tested."""
    h, w, c = x.shape
    rows = np.frombuffer(x.astype(">u2").tobytes(), np.uint8).reshape(h, -1)
    rows = np.concatenate([np.zeros((h, 1), np.uint8), rows], 1)
    colour = (0, 4, 2, 6)[c - 1]
    parts = [(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0)), *chunks,
             (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]  # fmt: skip
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in parts:
        out += (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    return out


# --- the table of what is written -----------------------------------------------------------------


@pytest.mark.parametrize("tagged", [False, True], ids=["bare", "tagged"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=["8", "16"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_container_holds_what_it_can_and_says_what_it_cannot(
    tmp_path, suffix, dtype, channels, tagged
):
    x = picture(33, 21, channels, dtype=dtype)
    meta = Meta(icc=SRGB, exif=exif_bytes(), xmp=XMP) if tagged else Meta()
    path = tmp_path / f"x{suffix}"
    if suffix in OPAQUE and channels in (2, 4):
        with pytest.raises(UserError, match="cannot hold transparency"):
            write_image(path, x, meta)
        assert not list(tmp_path.iterdir())
        return
    notes = write_image(path, x, meta, quality=100)

    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    with Image.open(path) if not (channels == 2 and "tif" in suffix) else _by_tifffile(path) as im:
        format = im.format
        assert format == formats.get(suffix, {".jpeg": "JPEG", ".tiff": "TIFF"}.get(
            suffix, suffix[1:].upper()))  # fmt: skip
        seen, info = np.asarray(im), dict(im.info)
        exif = im.getexif() if hasattr(im, "getexif") else None
    assert seen.shape[:2] == (33, 21), "whoever ignores EXIF sees it upright too"

    # samples
    kept = suffix in DEEP and dtype == np.uint16
    want = x if kept else to_uint8(x) if dtype == np.uint16 else x
    assert any("16 bits" in n for n in notes) == (dtype == np.uint16 and not kept)
    if suffix in (".tif", ".tiff"):
        seen = tifffile.imread(path)
        assert seen.dtype == want.dtype
    elif kept and seen.dtype == np.uint8:  # Pillow keeps the high byte of colour
        want_seen, seen_ = (want >> 8).astype(np.uint8), seen
        np.testing.assert_array_equal(seen_.reshape(33, 21, -1)[..., -1], want_seen[..., -1])
        seen = None
    if seen is not None:
        seen = seen.reshape(33, 21, -1)
        if seen.shape[2] != channels:  # WebP and AVIF store gray as RGB
            assert suffix in (".webp", ".avif")
            want = want[..., [0] * 3 + [1] * (channels == 2)]
        lossless = suffix in (".png", ".tif", ".tiff", ".bmp")
        error = np.abs(seen.astype(int) - want).mean()
        assert error == 0 if lossless else error < 6

    # metadata
    held = tagged and suffix != ".bmp"
    assert info.get("icc_profile") == (SRGB if held else None)
    assert (info.get("xmp") or None) == (XMP if held else None)
    if exif is not None:
        assert exif.get(315) == ("somebody" if held else None)
        assert exif.get_ifd(deep.EXIF_IFD).get(36867) == ("2020:01:02 03:04:05" if held else None)
        assert exif.get_ifd(deep.GPS_IFD).get(1) == ("N" if held else None)
        assert exif.get(274, 1) == 1
    lost = [n for n in notes if "lost" in n]
    assert len(lost) == (3 if tagged and suffix == ".bmp" else 0)

    # and by our own reader
    again, its = read_image(path, keep_depth=True)
    assert again.dtype == (np.uint16 if kept else np.uint8)
    if suffix in (".png", ".tif", ".tiff"):
        np.testing.assert_array_equal(again, x)
    assert (its.icc, its.xmp) == ((SRGB, XMP) if held else (None, None))
    assert bool(its.exif) == held and its.notes == ()
    if held:
        tags = Image.Exif()
        tags.load(its.exif)
        assert tags[315] == "somebody" and tags.get_ifd(deep.EXIF_IFD)[33434] == 0.01


class _by_tifffile:
    """What Pillow cannot open, in the few words of it that are asked above."""

    format = "TIFF"

    def __init__(self, path):
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            self.array, tags = page.asarray(), page.tags
            assert int(page.extrasamples[0]) == 2
            self.info = {"icc_profile": tags.valueof(34675), "xmp": tags.valueof(700)}
            if 315 in tags:
                assert tags.valueof(315) == "somebody"
                assert tags.valueof(34665)["DateTimeOriginal"] == "2020:01:02 03:04:05"

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_metadata_too_large_for_a_jpeg_is_said(tmp_path):
    meta = Meta(exif=b"Exif\0\0" + b"x" * 70000, xmp=b"<" * 70000, icc=SRGB * 40)
    notes = write_image(tmp_path / "x.jpg", picture(8, 8), meta)
    assert [n.split(" is lost")[0] for n in notes] == ["the EXIF", "the XMP"]
    assert Image.open(tmp_path / "x.jpg").info["icc_profile"] == SRGB * 40


def test_a_profile_for_gray_is_not_put_into_a_colour_file(tmp_path):
    gray = SRGB[:16] + b"GRAY" + SRGB[20:]
    assert write_image(tmp_path / "x.png", picture(8, 8, 1), Meta(icc=gray)) == []
    notes = write_image(tmp_path / "x.webp", picture(8, 8, 1), Meta(icc=gray))
    assert "stores RGB" in notes[0]
    assert "icc_profile" not in Image.open(tmp_path / "x.webp").info


def test_large_strips_and_what_an_encoder_refuses(tmp_path):
    x = picture(500, 301, 4, dtype=np.uint16)
    assert x.nbytes > deep.STRIP
    write_image(tmp_path / "x.tif", x)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "x.tif"), x)
    with pytest.raises(UserError, match="cannot write .*x.webp"):
        write_image(tmp_path / "x.webp", np.zeros((1, 16400, 3), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["x.tif"]


# --- the table of what is read --------------------------------------------------------------------


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True], ids=["contig", "planar"])
@pytest.mark.parametrize("alpha", [None, "unassalpha", "assocalpha"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=["8", "16"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True},
                {"tile": (16, 32)}, {"bigtiff": True}], ids=str,
)  # fmt: skip
def test_tiff_of_others(options, dtype, colours, alpha, planar, byteorder):
    channels = colours + (alpha is not None)
    if planar and channels == 1:
        pytest.skip("one plane")
    x = picture(40, 24, channels, dtype=dtype)
    stored = x
    top = np.iinfo(dtype).max
    if alpha == "assocalpha":  # colours stored multiplied by alpha
        stored = x.copy()
        product = x[..., :-1].astype(float) * x[..., -1:] / top
        stored[..., :-1] = np.rint(product).astype(dtype)
    stored = stored[..., 0] if channels == 1 else stored
    data = tiff(
        np.moveaxis(stored, 2, 0) if planar else stored,
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig=None if channels == 1 else "separate" if planar else "contig",
        extrasamples=[alpha] if alpha else None, byteorder=byteorder, metadata=None, **options,
    )  # fmt: skip
    got, meta = read_image(data, keep_depth=True)
    assert got.dtype == dtype and got.shape == x.shape and meta.has_alpha == bool(alpha)
    if alpha == "assocalpha":
        np.testing.assert_array_equal(got[..., -1], x[..., -1])
        solid = x[..., -1] > top // 4
        assert np.abs(got.astype(int) - x)[solid].max() <= 4
    else:
        np.testing.assert_array_equal(got, x)
    assert header(data) == (40, 24, colours)


@pytest.mark.parametrize(
    "dtype, reason",
    [(np.float32, "floating-point"), (np.float16, "floating-point"), (np.float64, "floating-point"),
     (np.uint32, "32-bit"), (np.int16, "signed 16-bit"), (np.int8, "signed 8-bit"),
     (np.uint64, "64-bit")],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_without_a_white_are_refused(dtype, reason, channels):
    x = np.ones((8, 9, channels), dtype).squeeze()
    with pytest.raises(BadImage, match=f"x.tif: has {reason}"):
        read_image(tiff(x, photometric="rgb" if channels == 3 else "minisblack"), name="x.tif")


def test_five_bands_and_palettes_of_16_bits_are_refused():
    data = tiff(np.ones((5, 8, 9), np.uint16), photometric="minisblack", planarconfig="separate")
    with pytest.raises(BadImage, match="5 samples per pixel"):
        read_image(data)


@pytest.mark.parametrize("dtype", DTYPES, ids=["8", "16"])
def test_white_is_zero(dtype):
    x = picture(8, 9, 1, dtype=dtype)
    got, _ = read_image(tiff(np.iinfo(dtype).max - x[..., 0], photometric="miniswhite"), True)
    np.testing.assert_array_equal(got, x)


def test_twelve_bits_become_sixteen():
    """Packed by hand: two samples in three bytes."""
    x = (np.arange(64).reshape(8, 8) * 65).astype(np.uint16)
    a, b = x.reshape(-1, 2).astype(int).T
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    tags = [(256, 3, 8), (257, 3, 8), (258, 3, 12), (259, 3, 1), (262, 3, 1),
            (273, 4, 8 + 2 + 120 + 4), (277, 3, 1), (278, 3, 8), (279, 4, len(packed)),
            (339, 3, 1)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + b"\0" * 4 + packed
    got, _ = read_image(data, keep_depth=True)
    np.testing.assert_array_equal(got[..., 0], np.rint(x * (65535 / 4095)))


@pytest.mark.parametrize("colours", [1, 3, 4])
def test_lzw_without_imagecodecs(colours):
    """tifffile needs imagecodecs for it; Pillow's libtiff does not, but knows no 16-bit colour."""
    if colours == 1:
        x = picture(30, 20, 1, dtype=np.uint16)
        data = saved(Image.fromarray(x[..., 0]), "TIFF", compression="tiff_lzw")
    else:
        imagecodecs = pytest.importorskip("imagecodecs")
        assert imagecodecs
        x = picture(30, 20, colours, dtype=np.uint16)
        data = tiff(x, photometric="rgb", compression="lzw")
    np.testing.assert_array_equal(read_image(data, keep_depth=True)[0], x)


def test_a_compression_that_nobody_here_decodes_names_the_package(monkeypatch):
    data = tiff(picture(16, 16, 2, dtype=np.uint16), photometric="minisblack", compression="zlib",
                planarconfig="contig", extrasamples=["unassalpha"])  # fmt: skip
    monkeypatch.setattr(deep, "tiff_samples", lambda file, page: None)
    with pytest.raises(BadImage, match="pip install imagecodecs"):
        read_image(data)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png(channels):
    x = picture(9, 7, channels, dtype=np.uint16)
    np.testing.assert_array_equal(read_image(plain_png(x), keep_depth=True)[0], x)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_a_png_is_alpha(channels):
    x = picture(9, 7, channels, dtype=np.uint16)
    key = x[4, 5]
    got, meta = read_image(plain_png(x, (b"tRNS", key.astype(">u2").tobytes())), keep_depth=True)
    clear = (x == key).all(2)
    np.testing.assert_array_equal(got[..., -1], np.where(clear, 0, 65535))
    np.testing.assert_array_equal(got[..., :-1], x)
    assert meta.has_alpha and clear.any()
    eight = to_uint8(x)
    im = Image.fromarray(eight.squeeze())
    key = tuple(map(int, eight[4, 5])) if channels == 3 else int(eight[4, 5, 0])
    got, _ = read_image(saved(im, "PNG", transparency=key))
    want = np.asarray(Image.open(io.BytesIO(saved(im, "PNG", transparency=key))).convert("RGBA"))
    np.testing.assert_array_equal(got[..., -1], want[..., -1])


@pytest.mark.parametrize("top", [255, 1000, 65535])
@pytest.mark.parametrize("magic", [b"P2", b"P3", b"P5", b"P6"])
def test_portable_maps_of_any_depth(magic, top):
    channels = 3 if magic in (b"P3", b"P6") else 1
    x = np.random.default_rng(0).integers(0, top + 1, (6, 5, channels))
    body = x.astype(">u2" if top > 255 else np.uint8).tobytes()
    if magic in (b"P2", b"P3"):
        body = b" ".join(str(v).encode() for v in x.ravel()) + b" # the end\n"
        body = body if top > 255 else body.replace(b"# the end", b"")
    got, _ = read_image(magic + b"\n5 6\n%d\n" % top + body, keep_depth=True)
    assert got.dtype == (np.uint16 if top > 255 else np.uint8)
    white = 65535 if top > 255 else 255
    np.testing.assert_array_equal(got, np.floor(x * white / top + 0.5))


def test_gray_jpeg_2000_keeps_sixteen_bits():
    x = picture(32, 32, 1, dtype=np.uint16)
    data = saved(Image.fromarray(x[..., 0]), "JPEG2000")
    got, meta = read_image(data, keep_depth=True)
    np.testing.assert_array_equal(got, x)
    assert meta.notes == ()


def test_depth_that_pillow_drops_is_said():
    data = bytearray(saved(Image.fromarray(picture(32, 32)), "AVIF"))
    with Image.open(io.BytesIO(data)) as im:
        data[bytes(data).find(b"av1C") + 6] |= 0x40  # the header now tells of 10 bits
        assert images._depth_notes(im, io.BytesIO(data)) == ["10 bits per sample are read as 8"]
    data = bytearray(saved(Image.fromarray(picture(32, 32)), "JPEG2000"))
    at = bytes(data).find(b"\xff\x4f\xff\x51")
    with Image.open(io.BytesIO(data)) as im:
        assert images._depth_notes(im, io.BytesIO(data)) == []
        data[at + 42] = 11
        assert images._depth_notes(im, io.BytesIO(data)) == ["12 bits per sample are read as 8"]


# --- colour ---------------------------------------------------------------------------------------


def cmyk_profile() -> bytes:
    """An ICC profile (v2, 8-bit table of two points per ink) in which cyan ink prints as red."""

    def pad(data: bytes) -> bytes:
        return data + b"\0" * (-len(data) % 4)

    def table() -> bytes:  # CMYK -> Lab: darker with each ink; cyan moves a* up
        ramp = bytes(range(256))
        out = b"mft1" + b"\0" * 4 + bytes([4, 3, 2, 0])
        out += struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
        out += ramp * 4
        for c, m, y, k in np.ndindex(2, 2, 2, 2):
            light = 255 - 40 * (c + m + y) - 120 * k
            out += bytes([max(light, 0), 128 + 60 * c * (1 - k), 128])
        return out + ramp * 3

    desc = b"desc" + b"\0" * 4 + struct.pack(">I", 5) + b"test\0" + b"\0" * 78
    parts = {b"desc": desc, b"cprt": b"text" + b"\0" * 4 + b"none\0",
             b"wtpt": b"XYZ " + b"\0" * 4 + struct.pack(">3i", 63190, 65536, 54061),
             b"A2B0": table()}  # fmt: skip
    at, index, body = 128 + 4 + 12 * len(parts), b"", b""
    for name, data in parts.items():
        index += name + struct.pack(">II", at + len(body), len(data))
        body += pad(data)
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48
    return head + struct.pack(">I", len(parts)) + index + body


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(format):
    im = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    options = {"quality": 100} if format == "JPEG" else {}
    got, meta = read_image(saved(im, format, icc_profile=cmyk_profile(), **options))
    r, g, b = got[8, 8].astype(int)
    assert r > g + 40 and r > b + 40, "red by the profile, cyan by the formula"
    assert meta.mode == "CMYK" and meta.icc is None and meta.notes == ()
    got, meta = read_image(saved(im, format, **options))
    r, g, b = got[8, 8].astype(int)
    assert r < 10 and g > 245 and b > 245
    assert "without a profile" in meta.notes[0]
    _, meta = read_image(saved(im, format, icc_profile=b"not a profile", **options))
    assert "cannot be used" in meta.notes[0]


@pytest.mark.parametrize("planar", [False, True])
def test_sixteen_bit_cmyk(planar):
    x = np.zeros((8, 8, 4), np.uint16)
    x[..., 0] = 65535
    data = tiff(np.moveaxis(x, 2, 0) if planar else x, photometric="separated",
                planarconfig="separate" if planar else "contig",
                iccprofile=cmyk_profile())  # fmt: skip
    got, meta = read_image(data)
    r, g, b = got[4, 4].astype(int)
    assert r > g + 40 and r > b + 40 and "16-bit CMYK" in meta.notes[0]


def test_lab_becomes_srgb():
    from skimage.color import rgb2lab

    rgb = np.array([[[200, 40, 60], [90, 140, 120], [128, 128, 128]]], np.uint8)
    lab = rgb2lab(rgb)
    raw = np.rint(np.stack([lab[..., 0] * 2.55, lab[..., 1], lab[..., 2]], -1))
    im = Image.frombytes("LAB", (3, 1), raw.astype(np.int16).astype(np.uint8).tobytes())
    got, meta = read_image(saved(im, "TIFF"))
    assert np.abs(got.astype(int) - rgb).max() <= 6 and meta.mode == "LAB"


# --- turns, frames, metadata ----------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png16", "tiff16", "tiff16 planar", "tiff8", "jpeg", "memory"])
def test_a_turn_is_done_once(tmp_path, kind, orientation):
    """Through reading, writing, and reading by somebody who turns as EXIF says."""
    xmp = b'<x tiff:Orientation="%d"/>' % orientation
    x = picture(
        8, 12, 3, dtype=np.uint8 if "8" in kind or kind in ("jpeg", "memory") else np.uint16
    )
    carrier = Image.new("L", x.shape[1::-1])
    carrier.putdata(list(range(x.shape[0] * x.shape[1])))
    turn = {274: orientation}
    exif = Image.Exif()
    exif.update(turn)
    places = saved(carrier, "PNG", exif=exif)
    order = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(places))))
    want = x.reshape(-1, 3)[order.ravel()].reshape(*order.shape, 3)
    tags = [(274, 3, 1, orientation, True), (700, 1, len(xmp), xmp, True)]
    if kind == "png16":
        data = plain_png(
            x, (b"eXIf", exif.tobytes()[6:]), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        )
    elif kind.startswith("tiff"):
        planar = "planar" in kind
        data = tiff(np.moveaxis(x, 2, 0) if planar else x, photometric="rgb", extratags=tags,
                    planarconfig="separate" if planar else "contig", metadata=None)  # fmt: skip
    else:
        x[:] = x.mean((0, 1), keepdims=True)
        x[0, 0] = 0  # a mark that JPEG keeps
        data = saved(Image.fromarray(x), "JPEG" if kind == "jpeg" else "PNG", exif=exif, xmp=xmp)
        want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    if kind == "memory":
        got, meta = picture_of(Image.open(io.BytesIO(data)))
    else:
        got, meta = read_image(data, keep_depth=True)
        assert header(data)[:2] == want.shape[:2]
        assert meta.xmp in (b'<x tiff:Orientation="1"/>', b"<x />")
    np.testing.assert_array_equal(got, want)
    for suffix in (".png", ".tif", ".jpg"):
        write_image(path := tmp_path / f"x{suffix}", got, meta)
        again, _ = read_image(path, keep_depth=suffix != ".jpg")
        assert again.shape == want.shape
        with Image.open(path) as im:
            assert ImageOps.exif_transpose(im).size == want.shape[1::-1]
        if suffix != ".jpg":
            np.testing.assert_array_equal(again, want)


@pytest.mark.parametrize(
    "format, what",
    [("GIF", "frames"), ("PNG", "frames"), ("WEBP", "frames"), ("AVIF", "frames"),
     ("TIFF", "pages"), ("MPO", "pictures")],
)  # fmt: skip
def test_several_frames_are_said_and_the_first_is_taken(format, what):
    frames = [Image.fromarray(picture(16, 16, seed=s)) for s in range(3)]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    got, meta = read_image(data)
    assert meta.notes == (f"the first of 3 {what}",)
    with Image.open(io.BytesIO(data)) as im:
        np.testing.assert_array_equal(got, np.asarray(im.convert("RGB")))
    assert read_image(saved(frames[0], format))[1].notes == ()


def test_several_pages_of_sixteen_bits():
    x = picture(8, 8, 3, dtype=np.uint16)
    data = tiff(np.stack([x, x[::-1]]), photometric="rgb")
    got, meta = read_image(data, keep_depth=True)
    np.testing.assert_array_equal(got, x)
    assert meta.notes == ("the first of 2 pages",)
    stack = tiff(np.stack([x[..., 0]] * 5), imagej=True)  # one page says of five
    assert read_image(stack, keep_depth=True)[1].notes == ("the first of 5 pages",)


def test_exif_of_a_png_by_old_tools_is_kept():
    from PIL import PngImagePlugin

    hexed = exif_bytes().hex()
    text = f"\nexif\n{len(hexed) // 2:8}\n" + "\n".join(
        hexed[i : i + 72] for i in range(0, len(hexed), 72)
    )
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", text)
    _, meta = read_image(saved(Image.fromarray(picture(8, 8)), "PNG", pnginfo=info))
    tags = Image.Exif()
    tags.load(meta.exif)
    assert tags[315] == "somebody"


# --- pictures in memory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV",
             "LAB", "I;16", "I"],
)  # fmt: skip
def test_every_mode_in_memory(mode):
    colour = Image.fromarray(picture(9, 7))
    if mode in ("I;16", "I"):
        deep16 = picture(9, 7, 1, dtype=np.uint16)[..., 0]
        im = Image.fromarray(deep16 if mode == "I;16" else deep16.astype(np.int32))
        np.testing.assert_array_equal(picture_of(im)[0][..., 0], deep16)
        return
    if mode == "LAB":
        lab, srgb = (ImageCms.createProfile(name) for name in ("LAB", "sRGB"))
        im = ImageCms.profileToProfile(colour, srgb, lab, outputMode="LAB")
    elif mode in ("La", "RGBa"):
        im = colour.convert(mode[:-1] + "A").convert(mode)
    elif mode == "PA":
        im = colour.convert("P").convert("PA")
    else:
        im = colour.convert(mode)
    got, meta = picture_of(im)
    channels = {"1": 1, "L": 1, "LA": 2, "La": 2, "PA": 4, "RGBA": 4, "RGBa": 4}.get(mode, 3)
    assert got.shape == (9, 7, channels) and meta.has_alpha == (channels in (2, 4))
    if mode not in ("LAB", "CMYK"):
        want = im.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels])
        np.testing.assert_array_equal(got.squeeze(), np.asarray(want))
    else:
        assert np.abs(got.astype(int) - np.asarray(colour)).mean() < 12


def test_modes_without_a_white_are_refused():
    with pytest.raises(images.Unsupported, match="floating-point"):
        picture_of(Image.new("F", (3, 3)))
    with pytest.raises(images.Unsupported, match="32-bit"):
        picture_of(Image.fromarray(np.full((3, 3), 1 << 20, np.int32)))
