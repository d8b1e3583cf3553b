"""A Pillow plugin for .aej files.

>>> from PIL import Image
>>> aejax.register_pillow()
>>> Image.fromarray(photo).save("photo.aej", quality=50)
>>> Image.open("photo.aej").size
(96, 64)
"""

import io
import warnings
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from aejax.codec import api as codec
from aejax.codec import container
from aejax.codec.errors import CodecError
from aejax.codec.layout import NO_LIMIT

# Options of save(), besides quality and metadata.
OPTIONS = ("bpp", "size", "psnr", "effort", "metric", "lossless")
METADATA = ("icc_profile", "exif", "xmp")


def from_array(array: np.ndarray) -> Image.Image:
    """A Pillow image of an array from `codec.decode`. 16-bit RGB, RGBA and gray with alpha become
    8-bit, since Pillow has no modes for them."""
    from aejax.data.images import to_uint8

    if array.dtype == np.uint16 and array.ndim == 3:
        array = to_uint8(array)
    return Image.fromarray(np.ascontiguousarray(array))


def _read_header(fp: IO[bytes]) -> tuple[container.Header, dict[str, bytes]]:
    """Header and metadata of a file, without reading the rest of it.

    Raises:
      CodecError: not an .aej file, or damaged.
    """
    data, header, metadata = b"", None, {}
    while part := fp.read(1 << 16):
        data += part
        reader = container.Reader(data)
        header = container.unpack_header(reader)
        with_metadata = header.flags & container.METADATA
        try:
            metadata = container.read_metadata(reader) if with_metadata else {}
            break
        except container.EndOfData:
            continue  # with the next 64 KiB, or with less metadata if the file was truncated
    if header is None:
        raise CodecError("the file is empty")
    return header, metadata


def _metadata(image: Image.Image, given: dict) -> dict[str, bytes]:
    """The metadata to save: of the arguments of `save`, else of the image."""
    kept = {}
    for name in METADATA:
        value = given[name] if name in given else image.info.get(name)
        value = value.tobytes() if hasattr(value, "tobytes") else value  # Image.Exif
        value = value.encode() if isinstance(value, str) else value
        if isinstance(value, bytes) and value:
            kept[name] = value
    if kept.get("icc_profile", b"")[16:20] in (b"CMYK", b"Lab ") or image.mode in ("CMYK", "LAB"):
        kept.pop("icc_profile", None)  # the pixels were converted to sRGB
    return kept


def _save(image, fp: IO[bytes], filename: str | bytes) -> None:
    """Image.save with quality, bpp, size, psnr, effort, metric, lossless, icc_profile, exif, xmp.
    Unknown options are ignored, as by other formats."""
    from aejax.data import images

    given = image.encoderinfo
    options = {name: given[name] for name in OPTIONS if given.get(name) is not None}
    quality = given.get("quality")
    if quality not in (None, -1):  # None and -1: Pillow's default
        if isinstance(quality, bool) or not isinstance(quality, (int, float)):
            raise ValueError(f"Invalid quality setting: {quality!r}; give 0 to 100")
        options["quality"] = quality
    try:
        array, _ = images.from_pillow(image)
    except images.Unsupported as e:
        raise OSError(f"cannot write mode {image.mode} as AEJ: it {e}") from e
    try:
        fp.write(codec.encode(array, metadata=_metadata(image, given), **options))
    except CodecError as e:
        raise ValueError(str(e)) from e


def _save_all(image, fp: IO[bytes], filename: str | bytes) -> None:
    frames = getattr(image, "n_frames", 1) + len(list(image.encoderinfo.get("append_images") or ()))
    if frames > 1:
        raise ValueError(f"an .aej file holds one image, not {frames}; save them one by one")
    _save(image, fp, filename)


class AejImageFile(ImageFile.ImageFile):
    """Reads header and metadata when opened, decodes when loaded."""

    format = "AEJ"
    format_description = "aejax learned image codec"

    def _open(self):
        try:
            header, metadata = _read_header(self._file())
        except CodecError as e:
            raise SyntaxError(str(e)) from e  # tells Pillow to try the next plugin
        self._size = (header.width, header.height)
        gray, alpha = header.flags & container.GRAY, header.flags & container.ALPHA
        self._mode = ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")
        if header.flags & container.DEEP and gray and not alpha:
            self._mode = "I;16"
        self.info.update(metadata)
        self.tile = [("aej", (0, 0, *self.size), 0, self.mode)]  # pyrefly: ignore

    def _file(self) -> IO[bytes]:
        if self.fp is None:
            raise ValueError("the image is closed")
        return self.fp

    def _data(self) -> bytes:
        self._file().seek(0)
        return self._file().read()

    def load(self):
        if self.tile and self.tile[0][0] == "aej":
            limit = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else NO_LIMIT
            try:
                decoded = codec.read(self._data(), max_pixels=limit)
            except CodecError as e:
                raise OSError(str(e)) from e
            if not decoded.complete:
                message = "the file was truncated: the image is coarser"
                warnings.warn(message, codec.CutFile, stacklevel=2)
            if self._exclusive_fp:
                self._file().close()
            self.fp = io.BytesIO(from_array(decoded.image).tobytes())
            self.tile = [("raw", (0, 0, *self.size), 0, self.mode)]  # pyrefly: ignore
        return super().load()

    def load_read(self, count: int) -> bytes:
        """Reads decoded pixels. Without this method Pillow would memory-map the file."""
        return self._file().read(count)

    def verify(self):
        try:
            codec.verify(self._data())
        except CodecError as e:
            raise OSError(str(e)) from e
        finally:
            super().verify()


def register() -> None:
    """Registers .aej with Pillow: Image.open, and Image.save(quality=, bpp=, size=, psnr=, effort=,
    metric=, lossless=, icc_profile=, exif=, xmp=). Calling it again has no effect."""
    if "AEJ" in Image.OPEN:
        return
    Image.register_open("AEJ", AejImageFile, lambda start: start[:8] == container.MAGIC)
    Image.register_save("AEJ", _save)
    Image.register_save_all("AEJ", _save_all)
    Image.register_extension("AEJ", ".aej")
    Image.register_mime("AEJ", "image/x-aej")
