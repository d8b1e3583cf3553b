"""Y4M, raw and coded frames: what is read, what is refused, and colours there and back."""

import io

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.stream.colour import from_picture, from_planes, to_picture, to_planes
from aejax.stream.y4m import Video, framed, frames, open_video, parse_header, raw_video

HEADER = b"YUV4MPEG2 W33 H17 F30000:1001 Ip A1:1 C420jpeg XYSCSS=420JPEG\n"
LAYOUTS = ("420", "422", "444", "mono", "rgb24", "gray")


def test_a_header_is_read_and_written_again_word_for_word():
    video = parse_header(HEADER, coded=False)
    assert (video.width, video.height, video.layout, video.channels) == (33, 17, "420", 3)
    assert video.frame_bytes == 33 * 17 + 2 * 17 * 9
    assert video.header(coded=False) == HEADER
    again = parse_header(video.header(coded=True), coded=True)
    assert again == video


@pytest.mark.parametrize(
    "form, layout",
    [("", "420"), ("C420", "420"), ("C420jpeg", "420"), ("C420mpeg2", "420"),
     ("C420paldv", "420"), ("C422", "422"), ("C444", "444"), ("Cmono", "mono")],
)  # fmt: skip
def test_chroma_forms(form, layout):
    assert parse_header(f"YUV4MPEG2 W16 H9 {form}\n".encode(), coded=False).layout == layout


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"RIFF....", "does not begin as a video"),
        (b"YUV4MPEG2 W16 H16", "does not begin"),  # no end of line
        (b"YUV4MPEG2 H16\n", "no valid width"),
        (b"YUV4MPEG2 W16 Hx\n", "no valid height"),
        (b"YUV4MPEG2 W-16 H16\n", "no valid width"),
        (b"YUV4MPEG2 W16 H16 W8\n", "twice"),
        (b"YUV4MPEG2 W0 H16\n", "0x16"),
        (b"YUV4MPEG2 W4 H16\n", "too small"),
        (b"YUV4MPEG2 W9999999 H9999999\n", "too large"),
        (b"YUV4MPEG2 W99999999999999999999 H16\n", "no valid width"),
        (b"YUV4MPEG2 W16 H16 It\n", "yadif"),
        (b"YUV4MPEG2 W16 H16 C420p10\n", "-pix_fmt yuv420p"),
        (b"YUV4MPEG2 W16 H16 C444alpha\n", "-pix_fmt yuv420p"),
        (b"YUV4MPEG2 W16 H16 Crgb24\n", "-pix_fmt yuv420p"),
        (b"\xff\xfe\x00 W16 H16\n", "does not begin"),
    ],
)
def test_headers_that_are_refused(line, reason):
    with pytest.raises(UserError, match=reason):
        open_video(io.BytesIO(line))


def test_nothing_at_all():
    with pytest.raises(UserError, match="is empty"):
        open_video(io.BytesIO(b""))


@pytest.mark.parametrize("size", ["640", "x480", "640x480x3", "ax8", "-8x8"])
def test_sizes_of_raw_video_that_are_refused(size):
    with pytest.raises(UserError, match="WIDTHxHEIGHT"):
        raw_video(size, "rgb24")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_there_and_back_and_cut_ones(layout):
    video = Video(9, 11, layout)
    data = [bytes([n]) * video.frame_bytes for n in (1, 2)]
    written = b"".join(framed(d, video, coded=False) for d in data)
    assert list(frames(io.BytesIO(written), video)) == data
    for cut in (1, video.frame_bytes - 1):
        left = frames(io.BytesIO(written[:-cut]), video)
        assert next(left) == data[0]
        with pytest.raises(UserError, match=f"frame 2 is truncated: {video.frame_bytes - cut} of"):
            next(left)


@pytest.mark.parametrize(
    "line", [b"FRAM\n", b"FRAMES\n", b"FRAME", b"FRAME" + b"x" * 5000, b"\0" * 40]
)
def test_what_does_not_begin_as_a_frame(line):
    with pytest.raises(UserError, match='frame 1 does not begin with "FRAME"'):
        list(frames(io.BytesIO(line), Video(9, 11, "420")))


@pytest.mark.parametrize("line", [b"FRAME\n", b"FRAME -1\n", b"FRAME 0\n", b"FRAME 99999999999\n"])
def test_lengths_of_coded_frames_that_cannot_be(line):
    with pytest.raises(UserError, match="no valid length"):
        list(frames(io.BytesIO(line + b"x" * 100), Video(9, 11, "420"), coded=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("words", [(), ("XCOLORRANGE=FULL",)])
def test_colours_come_back_to_the_bit(layout, words):
    """Any planes, also those that no RGB in [0, 1] has."""
    video = Video(13, 9, layout, words)
    data = np.random.default_rng(0).integers(0, 256, video.frame_bytes, np.uint8)
    x = to_picture(data, video)
    assert x.shape == (9, 13, video.channels)
    np.testing.assert_array_equal(from_picture(x, video), data)


def test_colours_are_those_of_bt601():
    """Of Pillow's conversion, which is BT.601 in full range."""
    from PIL import Image

    video = Video(16, 8, "444", ("XCOLORRANGE=FULL",))
    rgb = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    planes = np.asarray(Image.fromarray(rgb).convert("YCbCr")).transpose(2, 0, 1).reshape(-1)
    ours = np.asarray(from_picture(rgb.astype(np.float32) / 255, video))
    assert np.abs(ours.astype(int) - planes).max() <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planes_come_back_to_the_bit(layout):
    video = Video(13, 9, layout)
    data = np.random.default_rng(1).integers(0, 256, video.frame_bytes, np.uint8)
    planes = to_planes(data, video)
    assert len(planes) == video.channels
    np.testing.assert_array_equal(from_planes(planes, video), data)
