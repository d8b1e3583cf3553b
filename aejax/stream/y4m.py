"""Streams of frames as bytes: YUV4MPEG2 (Y4M), raw pixels without a header, coded frames.

Y4M is a line of text, "YUV4MPEG2 W640 H480 F25:1 C420jpeg", then for each frame a line "FRAME" and
its planes; ffmpeg writes and reads it with `-f yuv4mpegpipe -`. A stream of coded frames is made
alike: "AEJVIDEO1" with the same words, and for each frame a line "FRAME 1234", the number of bytes
of the .aej file that follows. Samples have 8 bits.
"""

import dataclasses
from collections.abc import Iterator
from typing import BinaryIO

from aejax.errors import UserError

Y4M, CODED = "YUV4MPEG2", "AEJVIDEO1"
LINE = 1024  # bytes that a header may have at most
MAX_PIXELS = 1 << 25  # of a frame
# The chroma forms that are read, and how many pixels share a sample, across and down.
SUBSAMPLED = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "mono": None}
SITED = {"420jpeg": "420", "420mpeg2": "420", "420paldv": "420"}
CHANNELS = {"rgb24": 3, "gray": 1}  # raw pixels


@dataclasses.dataclass(frozen=True)
class Video:
    """What each frame of a stream is.

    Attributes:
      width, height: in pixels.
      layout: "420", "422", "444", "mono" (planes Y, Cb, Cr), "rgb24" or "gray" (raw pixels).
      words: the header's other words as they were, such as ("F25:1", "C420jpeg"): passed on.
    """

    width: int
    height: int
    layout: str
    words: tuple[str, ...] = ()

    @property
    def is_raw(self) -> bool:
        """Whether frames are pixels rather than planes."""
        return self.layout in CHANNELS

    @property
    def channels(self) -> int:
        """Of the picture: 1 gray, 3 colour."""
        return 1 if self.layout in ("mono", "gray") else 3

    @property
    def full_range(self) -> bool:
        """Whether black is 0 and white 255, rather than 16 and 235."""
        return "XCOLORRANGE=FULL" in self.words

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each plane of samples."""
        h, w = self.height, self.width
        shared = SUBSAMPLED[self.layout]
        if shared is None:
            return ((h, w),)
        chroma = (-(-h // shared[1]), -(-w // shared[0]))
        return ((h, w), chroma, chroma)

    @property
    def frame_bytes(self) -> int:
        """The size of a frame."""
        if self.is_raw:
            return self.width * self.height * CHANNELS[self.layout]
        return sum(h * w for h, w in self.planes)

    def header(self, coded: bool) -> bytes:
        """The first line of a stream; nothing for raw pixels that are not coded."""
        if self.is_raw and not coded:
            return b""
        words = (CODED if coded else Y4M, f"W{self.width}", f"H{self.height}", *self.words)
        if not any(word[0] == "C" for word in self.words):
            words += (f"C{self.layout}",)
        return " ".join(words).encode() + b"\n"


def raw_video(size: str, pixels: str) -> Video:
    """Frames of raw pixels, from --size WIDTHxHEIGHT and --pixels.

    Raises:
      UserError: no such size or form of pixels.
    """
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UserError(f'--size "{size}": give WIDTHxHEIGHT in pixels, such as 640x480')
    if pixels not in CHANNELS:
        raise UserError(f'--pixels "{pixels}": one of {", ".join(CHANNELS)}')
    return _checked(Video(int(width), int(height), pixels))


def _checked(video: Video) -> Video:
    if not (video.width and video.height):
        raise UserError(f"the video has frames of {video.width}x{video.height} pixels")
    if min(video.width, video.height) < 8:
        raise UserError(
            f"frames of {video.width}x{video.height} pixels are too small; 8 a side at least"
        )
    if video.width * video.height > MAX_PIXELS:
        raise UserError(
            f"frames of {video.width}x{video.height} pixels are too large; "
            f"{MAX_PIXELS} pixels at most"
        )
    return video


def parse_header(line: bytes, coded: bool) -> Video:
    """The first line of a stream.

    Raises:
      UserError: it is none, or of a form that is not read, with the command that converts it.
    """
    magic, *words = line.decode("latin-1").rstrip("\n").split(" ")
    if magic != (CODED if coded else Y4M) or not line.endswith(b"\n"):
        wanted = "`aejax stream --task compress` writes" if coded else (
            "ffmpeg -f yuv4mpegpipe writes; for raw frames give --size and --pixels"
        )  # fmt: skip
        raise UserError(f"the input does not begin as a video that {wanted}")
    given: dict[str, str] = {}
    for word in words:
        if word[:1] in given and word[0] in "WHCI":
            raise UserError(f'the header of the video says "{word[0]}" twice')
        given[word[:1]] = word[1:]
    for letter, name in (("W", "width"), ("H", "height")):
        if not (given.get(letter, "").isdecimal() and len(given[letter]) < 8):
            raise UserError(f"the header of the video has no {name}, or one that is no number")
    if given.get("I", "p") not in ("p", "?"):
        raise UserError("the video is interlaced; deinterlace it first: ffmpeg -vf yadif")
    form = given.get("C", "420jpeg")
    layout = SITED.get(form, form)
    known = SUBSAMPLED | (CHANNELS if coded else {})
    if layout not in known:
        raise UserError(
            f'the video has the pixel format "{form}", which is not read; convert it: '
            "ffmpeg -pix_fmt yuv420p"
        )
    kept = tuple(word for word in words if word and word[0] not in "WH")
    return _checked(Video(int(given["W"]), int(given["H"]), layout, kept))


def open_video(stream: BinaryIO, coded: bool = False) -> Video:
    """Reads the header of a stream.

    Raises:
      UserError: nothing came, or see `parse_header`.
    """
    line = stream.readline(LINE)
    if not line:
        raise UserError("nothing came on standard input; pipe a video into it")
    return parse_header(line, coded)


def frames(stream: BinaryIO, video: Video, coded: bool = False) -> Iterator[bytes]:
    """The frames behind the header, one after the other, as bytes.

    Raises:
      UserError: a frame that is cut or does not begin as one; those before it were given.
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
                f"frame {n} is cut: {len(data)} of {size} bytes; the frames before it are written"
            )
        yield data


def _size(line: bytes, n: int, size: int, coded: bool) -> int:
    """The bytes of frame n, whose first line this is."""
    word, _, rest = line.partition(b" ")
    if word.rstrip(b"\n") != b"FRAME" or not line.endswith(b"\n"):
        raise UserError(f'frame {n} does not begin with "FRAME"; the video is damaged there')
    if not coded:
        return size
    number = rest.strip()
    # An .aej file is never much larger than the pixels in it.
    if not (number.isdigit() and len(number) < 12 and 0 < int(number) <= 8 * size + (1 << 16)):
        raise UserError(f"frame {n} has no length, or one that cannot be; the video is damaged")
    return int(number)


def framed(data: bytes, video: Video, coded: bool) -> bytes:
    """A frame with the line before it."""
    if coded:
        return b"FRAME %d\n" % len(data) + data
    return data if video.is_raw else b"FRAME\n" + data
