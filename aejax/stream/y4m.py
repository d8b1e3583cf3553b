"""Streams of video frames: YUV4MPEG2 (Y4M), raw pixels without a header, coded frames.

Y4M is a line of text, "YUV4MPEG2 W640 H480 F25:1 C420jpeg", then for each frame a line "FRAME" and
its planes; ffmpeg writes and reads it with `-f yuv4mpegpipe -`. A stream of coded frames is
similar: "AEJVIDEO1" with the same tags, and for each frame a line "FRAME 1234", where 1234 is the
number of bytes of the .aej file that follows. Samples have 8 bits.
"""

import dataclasses
from collections.abc import Iterator
from typing import BinaryIO

from aejax.errors import UserError

Y4M, CODED = "YUV4MPEG2", "AEJVIDEO1"
LINE = 1024  # bytes of a header line, at most
MAX_PIXELS = 1 << 25  # of a frame
# Supported chroma subsampling: pixels per sample, (horizontally, vertically).
SUBSAMPLED = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "mono": None}
# 4:2:0 with a chroma siting, which is passed on and otherwise ignored.
SITED = {"420jpeg": "420", "420mpeg2": "420", "420paldv": "420"}
CHANNELS = {"rgb24": 3, "gray": 1}  # formats of raw pixels


@dataclasses.dataclass(frozen=True)
class Video:
    """The format of a video.

    Attributes:
      width, height: in pixels.
      layout: "420", "422", "444", "mono" (planes Y, Cb, Cr), "rgb24" or "gray" (raw pixels).
      tags: the other tags of the header, such as ("F25:1", "C420jpeg"), which are passed on.

    >>> Video(640, 480, "420").planes
    ((480, 640), (240, 320), (240, 320))
    """

    width: int
    height: int
    layout: str
    tags: tuple[str, ...] = ()

    @property
    def is_raw(self) -> bool:
        """Whether frames are pixels rather than planes."""
        return self.layout in CHANNELS

    @property
    def channels(self) -> int:
        """Channels of a picture: 1 (gray) or 3 (colour)."""
        return 1 if self.layout in ("mono", "gray") else 3

    @property
    def full_range(self) -> bool:
        """Whether black is 0 and white 255 (full range), rather than 16 and 235 (limited range)."""
        return "XCOLORRANGE=FULL" in self.tags

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each plane."""
        h, w = self.height, self.width
        shared = SUBSAMPLED[self.layout]
        if shared is None:
            return ((h, w),)
        chroma = (-(-h // shared[1]), -(-w // shared[0]))
        return ((h, w), chroma, chroma)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame that is not coded."""
        if self.is_raw:
            return self.width * self.height * CHANNELS[self.layout]
        return sum(h * w for h, w in self.planes)

    def header(self, coded: bool) -> bytes:
        """The header line of a stream; empty for raw pixels that are not coded."""
        if self.is_raw and not coded:
            return b""
        words = (CODED if coded else Y4M, f"W{self.width}", f"H{self.height}", *self.tags)
        if not any(tag[0] == "C" for tag in self.tags):
            words += (f"C{self.layout}",)
        return " ".join(words).encode() + b"\n"


def raw_video(size: str, pixels: str) -> Video:
    """The format of raw pixels, from --size WIDTHxHEIGHT and --pixels.

    Raises:
      UserError: a malformed or unsupported size, or an unknown pixel format.
    """
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UserError(f'--size "{size}": give WIDTHxHEIGHT in pixels, such as 640x480')
    if pixels not in CHANNELS:
        raise UserError(f'--pixels "{pixels}": one of {", ".join(CHANNELS)}')
    return _checked(Video(int(width), int(height), pixels))


def _checked(video: Video) -> Video:
    """The video, if its size is supported.

    Raises:
      UserError: it is not.
    """
    if not (video.width and video.height):
        raise UserError(f"the video has frames of {video.width}x{video.height} pixels")
    if min(video.width, video.height) < 8:
        raise UserError(
            f"frames of {video.width}x{video.height} pixels are too small; at least 8x8 are needed"
        )
    if video.width * video.height > MAX_PIXELS:
        raise UserError(
            f"frames of {video.width}x{video.height} pixels are too large; at most {MAX_PIXELS} "
            "pixels are supported"
        )
    return video


def parse_header(line: bytes, coded: bool) -> Video:
    """The format of a video, from the header line of its stream.

    Raises:
      UserError: no valid header, or an unsupported format; the message has the command that
        converts it.
    """
    magic, *words = line.decode("latin-1").rstrip("\n").split(" ")
    if magic != (CODED if coded else Y4M) or not line.endswith(b"\n"):
        wanted = "`aejax stream --task compress` writes" if coded else (
            "ffmpeg -f yuv4mpegpipe writes; for raw frames give --size and --pixels"
        )  # fmt: skip
        raise UserError(f"the input does not begin as a video that {wanted}")
    values: dict[str, str] = {}  # by the first letter of their tag
    for word in words:
        if word[:1] in values and word[0] in "WHCI":
            raise UserError(f'the header of the video has the tag "{word[0]}" twice')
        values[word[:1]] = word[1:]
    for letter, name in (("W", "width"), ("H", "height")):
        if not (values.get(letter, "").isdecimal() and len(values[letter]) < 8):
            raise UserError(f"the header of the video has no valid {name}")
    if values.get("I", "p") not in ("p", "?"):
        raise UserError("the video is interlaced; deinterlace it first: ffmpeg -vf yadif")
    pixel_format = values.get("C", "420jpeg")
    layout = SITED.get(pixel_format, pixel_format)
    known = SUBSAMPLED | (CHANNELS if coded else {})
    if layout not in known:
        raise UserError(
            f'the video has the pixel format "{pixel_format}", which is not supported; convert it: '
            "ffmpeg -pix_fmt yuv420p"
        )
    tags = tuple(word for word in words if word and word[0] not in "WH")
    return _checked(Video(int(values["W"]), int(values["H"]), layout, tags))


def open_video(stream: BinaryIO, coded: bool = False) -> Video:
    """Reads the header of a stream.

    Raises:
      UserError: the stream is empty, or as of `parse_header`.
    """
    line = stream.readline(LINE)
    if not line:
        raise UserError("standard input is empty; pipe a video into it")
    return parse_header(line, coded)


def frames(stream: BinaryIO, video: Video, coded: bool = False) -> Iterator[bytes]:
    """Yields the frames after the header as bytes.

    Raises:
      UserError: a truncated or damaged frame, after the frames before it were yielded.
    """
    n = 0
    while True:
        n += 1
        size = video.frame_bytes
        if coded or not video.is_raw:
            line = stream.readline(LINE)
            if not line:
                return
            size = _size(line, n, size, coded)
        data = stream.read(size)
        if not data and video.is_raw and not coded:
            return
        if len(data) < size:
            raise UserError(
                f"frame {n} is truncated: {len(data)} of {size} bytes; the frames before it are "
                "written"
            )
        yield data


def _size(line: bytes, n: int, size: int, coded: bool) -> int:
    """The number of bytes of frame n, from its first line.

    Args:
      size: of a frame that is not coded.

    Raises:
      UserError: the line is invalid.
    """
    word, _, number = line.partition(b" ")
    if word.rstrip(b"\n") != b"FRAME" or not line.endswith(b"\n"):
        raise UserError(f'frame {n} does not begin with "FRAME"; the video is damaged there')
    if not coded:
        return size
    number = number.strip()
    # An .aej file is never much larger than its pixels.
    if not (number.isdigit() and len(number) < 12 and 0 < int(number) <= 8 * size + (1 << 16)):
        raise UserError(f"frame {n} has no valid length; the video is damaged")
    return int(number)


def framed(data: bytes, video: Video, coded: bool) -> bytes:
    """A frame with its header line, if the format has one."""
    if coded:
        return b"FRAME %d\n" % len(data) + data
    return data if video.is_raw else b"FRAME\n" + data
