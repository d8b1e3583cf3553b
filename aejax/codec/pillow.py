"""Pillow on both sides: images in and out for the command line, and .aej as one of its formats.

>>> aejax.register_pillow()
>>> Image.open("photo.aej"); image.save("photo.aej", quality=50)
"""

import pathlib
import warnings

import numpy as np

from aejax.codec import api as codec
from aejax.codec import container
from aejax.codec.errors import CodecError
from aejax.errors import UserError


def open_array(path: str | pathlib.Path) -> tuple[np.ndarray, dict[str, bytes]]:
    """(uint8 or uint16 array as `codec.encode` takes it, metadata) of an image file.

    Raises:
      UserError: no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return to_array(image), metadata_of(image)
    except UnidentifiedImageError:
        raise UserError(f"{path}: no image that Pillow can read") from None
    except Image.DecompressionBombError as e:
        raise UserError(f"{path}: {e}") from e


def to_array(image) -> np.ndarray:
    """A Pillow image as [h, w] or [h, w, 2 to 4], uint8 or (mode I;16) uint16."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    transparent = "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        gray = image.mode in ("1", "LA", "La")
        image = image.convert(
            ("LA" if transparent else "L") if gray else ("RGBA" if transparent else "RGB")
        )
    elif transparent and image.mode in ("L", "RGB"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    return np.asarray(image)


def metadata_of(image) -> dict[str, bytes]:
    """ICC profile, EXIF and XMP of a Pillow image."""
    out = {}
    for name in ("icc_profile", "exif", "xmp"):
        value = image.info.get(name)
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes) and value:
            out[name] = value
    return out


def from_array(array: np.ndarray):
    """The inverse of `to_array`; 16-bit colour, which Pillow has no mode for, becomes 8-bit."""
    from PIL import Image

    if array.dtype == np.uint16 and array.ndim == 3:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def save_array(array: np.ndarray, path: pathlib.Path, metadata: dict[str, bytes]) -> None:
    """Writes an image in the format of its suffix, with what metadata that format can hold; 16-bit
    colour as 16-bit PNG or TIFF.

    Raises:
      UserError: no such format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.dtype == np.uint16 and array.ndim == 3:
        path.write_bytes(_png16(array, metadata.get("icc_profile")))
        return
    names = ("icc_profile", "exif") + (("xmp",) if path.suffix.lower() != ".png" else ())
    try:
        from_array(array).save(path, **{k: metadata[k] for k in names if k in metadata})
    except (ValueError, OSError, KeyError) as e:
        raise UserError(f"{path} cannot be written: {e}") from e


def _png16(array: np.ndarray, icc: bytes | None) -> bytes:
    """A PNG of 16 bits per sample (ISO/IEC 15948), which Pillow does not write in colour."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    h, w, c = array.shape
    colour = {2: 4, 3: 2, 4: 6}[c]
    rows = array.astype(">u2").reshape(h, -1).view(np.uint8)
    rest = rows.copy()
    rest[1:] -= rows[:-1]  # filter 2: the byte above
    lines = np.concatenate([np.full((h, 1), 2, np.uint8), rest], axis=1)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0))
    if icc:
        out += chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc))
    return out + chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + chunk(b"IEND", b"")


# --- the plugin -----------------------------------------------------------------------------------


def register() -> None:
    """Makes .aej a format of Pillow's: open() and save(quality=, bpp=, size=, psnr=, effort=,
    metric=)."""
    from PIL import Image, ImageFile

    if "AEJ" in Image.OPEN:
        return

    class AejImageFile(ImageFile.ImageFile):
        """Decodes on load, not on open."""

        format = "AEJ"
        format_description = "aejax learned image codec"

        def _open(self):
            try:
                header = container.unpack_header(container.Reader(self.fp.read(64)))
            except CodecError as e:
                raise SyntaxError(str(e)) from e  # Pillow's word for "not mine, or broken"
            self._size = (header.width, header.height)
            gray, alpha = header.flags & container.GRAY, header.flags & container.ALPHA
            self._mode = ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")
            if header.flags & container.DEEP and gray and not alpha:
                self._mode = "I;16"

        def load(self):
            if getattr(self, "_im", None) is not None:
                return super().load()
            self.fp.seek(0)
            try:
                found = codec.read(self.fp.read(), max_pixels=Image.MAX_IMAGE_PIXELS or 1 << 40)
            except CodecError as e:
                raise OSError(str(e)) from e
            if not found.complete:
                warnings.warn("the file was cut: a coarser image", codec.CutFile, stacklevel=2)
            self.info.update(found.metadata)
            image = from_array(found.image)
            self._mode = image.mode
            self.im = image.im
            return Image.Image.load(self)

    def save(image, fp, filename):
        options = {
            k: v
            for k, v in image.encoderinfo.items()
            if k in ("quality", "bpp", "size", "psnr", "effort", "metric")
        }
        metadata = metadata_of(image)
        metadata |= {
            k: v for k, v in image.encoderinfo.items() if k in ("icc_profile", "exif", "xmp")
        }
        fp.write(codec.encode(to_array(image), metadata=metadata, **options))

    Image.register_open("AEJ", AejImageFile, lambda start: start[:8] == container.MAGIC)
    Image.register_save("AEJ", save)
    Image.register_extension("AEJ", ".aej")
    Image.register_mime("AEJ", "image/x-aej")
