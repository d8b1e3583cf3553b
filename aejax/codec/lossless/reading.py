"""Lossless files -> arrays, version 2 of the format; what the bytes are is in layout.py."""

import numpy as np

from aejax.codec import container
from aejax.codec.decoded import Decoded
from aejax.codec.errors import CodecError
from aejax.codec.layout import MAX_PIXELS, NO_LIMIT
from aejax.codec.lossless import nets, plain
from aejax.codec.lossless.installed import runtime_of
from aejax.codec.lossless.layout import GRAY_NETWORK, PLAIN, Parsed, parse, scans_of, tiles_of
from aejax.codec.lossless.tiles import colours_of, crc_of, each_tile

LOW_KINDS = 2  # of low bytes: as they are, minus the high byte


def read(data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Everything a lossless file holds; a cut one gives a coarser image.

    Raises:
      CodecError: the file is damaged, and how.
    """
    parsed = parse(data, max_pixels)
    header = parsed.header
    c = (1 if header.flags & container.GRAY else 3) + bool(header.flags & container.ALPHA)
    deep = bool(header.flags & container.DEEP)
    shape, dtype = (header.height, header.width, c), np.uint16 if deep else np.uint8
    if header.quality == PLAIN:
        scans, of_scans = int(parsed.complete), 1
        image = plain.decode(parsed.plain or b"", shape, dtype, cut=not parsed.complete)
    else:
        of_scans, first = scans_of(header)
        begun = zip(parsed.tiles, first, strict=True)
        scans = min(len(chunks) + (start if chunks else 0) for chunks, start in begun)
        image = _decoded(parsed, shape, dtype)
    if parsed.complete and crc_of(image) != parsed.crc:
        raise CodecError(
            "the pixels are not those that were written; the file is damaged, or this machine "
            "does not compute integers exactly"
        )
    image = image[..., 0] if c == 1 else image
    return Decoded(image, parsed.complete, scans, parsed.metadata, header, of_scans)


def _decoded(parsed: Parsed, shape: tuple[int, int, int], dtype) -> np.ndarray:
    """The image of a network's file."""
    header, places = parsed.header, tiles_of(parsed.header)
    runtime = runtime_of(header.model)
    deep, gray = dtype == np.uint16, header.quality == GRAY_NETWORK
    image = np.zeros(shape, dtype)
    colours = colours_of(image)

    def one(n: int) -> None:
        (i, j, h, w), name = places[n], f"tile {n + 1}" if len(places) > 1 else "the image"
        ycc = runtime.decode_tile(parsed.tiles[n], h, w, gray, name)
        samples = ycc[..., :1] if gray else nets.rgb(ycc)
        if parsed.complete and ((samples < 0) | (samples > 255)).any():
            raise CodecError(f"{name} is damaged: a sample out of all bounds")
        samples = np.clip(samples, 0, 255).astype(np.uint8)
        colours[i : i + h, j : j + w] = samples.astype(dtype) << 8 if deep else samples

    for _ in each_tile(len(places), one):
        pass
    if deep:
        colours |= _low_bytes(parsed.low, (colours >> 8).astype(np.uint8))
    if header.flags & container.ALPHA:
        top = 65535 if deep else 255
        image[..., -1] = (
            top
            if parsed.alpha is None
            else container.unpack_plane(parsed.alpha, header.height, header.width, deep)
        )
    return image


def _low_bytes(section: bytes | None, high: np.ndarray) -> np.ndarray:
    """uint8 of the shape of `high`, the high bytes, which stand for them if the file was cut."""
    if section is None:
        return high
    kind, low = section[0], np.frombuffer(section, np.uint8, offset=1)
    if kind >= LOW_KINDS:
        raise CodecError("the section of low bytes is damaged")
    return low.reshape(high.shape) + (high if kind else np.uint8(0))


def info(data: bytes) -> dict:
    """What a lossless file says of itself, without decoding it."""
    parsed = parse(data, NO_LIMIT)
    header = parsed.header
    return {
        "version": header.version,
        "lossless": "deflate" if header.quality == PLAIN else f"model {header.model.hex()}",
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "bits": 16 if header.flags & container.DEEP else 8,
        "tiles": len(tiles_of(header)),
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "complete": parsed.complete,
        "parts": parsed.sizes,
        "metadata": {k: len(v) for k, v in parsed.metadata.items()},
    }
