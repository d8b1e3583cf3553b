"""Decodes lossless files to arrays; layout.py splits the bytes into parts."""

import numpy as np

from aejax.codec import container
from aejax.codec.decoded import Decoded
from aejax.codec.errors import CodecError
from aejax.codec.layout import MAX_PIXELS, NO_LIMIT
from aejax.codec.lossless import nets, plain
from aejax.codec.lossless.installed import runtime_of
from aejax.codec.lossless.layout import GRAY_NETWORK, PLAIN, Parsed, parse, scans_of, tiles_of
from aejax.codec.lossless.tiles import crc_of, each_tile, without_alpha

LOW_KINDS = 2  # kinds of the section of low bytes, see writing._pack_low


def read(data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decodes a lossless file; a truncated one gives a coarser image.

    Raises:
      CodecError: the file is damaged, larger than `max_pixels`, or its model is not installed.
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
        scans = min(
            len(chunks) + (start if chunks else 0)
            for chunks, start in zip(parsed.tiles, first, strict=True)
        )
        image = _decode_network(parsed, shape, dtype)
    if parsed.complete and crc_of(image) != parsed.crc:
        raise CodecError(
            "the pixels are not those that were encoded; the file is damaged, or this machine does "
            "not compute integers exactly"
        )
    image = image[..., 0] if c == 1 else image
    return Decoded(image, parsed.complete, scans, parsed.metadata, header, of_scans)


def _decode_network(parsed: Parsed, shape: tuple[int, int, int], dtype) -> np.ndarray:
    """The image of a file of a network mode."""
    header, tiles = parsed.header, tiles_of(parsed.header)
    runtime = runtime_of(header.model)
    deep, gray = dtype == np.uint16, header.quality == GRAY_NETWORK
    image = np.zeros(shape, dtype)
    colours = without_alpha(image)

    def decode(n: int) -> None:
        (i, j, h, w), name = tiles[n], f"tile {n + 1}" if len(tiles) > 1 else "the image"
        ycc = runtime.decode_tile(parsed.tiles[n], h, w, gray, name)
        samples = ycc[..., :1] if gray else nets.rgb(ycc)
        if parsed.complete and ((samples < 0) | (samples > 255)).any():
            raise CodecError(f"{name} is damaged: a sample is out of range")
        samples = np.clip(samples, 0, 255).astype(np.uint8)
        colours[i : i + h, j : j + w] = samples.astype(dtype) << 8 if deep else samples

    for _ in each_tile(len(tiles), decode):
        pass
    if deep:
        colours |= _low_bytes(parsed.low, (colours >> 8).astype(np.uint8))
    if header.flags & container.ALPHA:
        opaque = 65535 if deep else 255
        image[..., -1] = (
            opaque
            if parsed.alpha is None
            else container.unpack_plane(parsed.alpha, header.height, header.width, deep)
        )
    return image


def _low_bytes(section: bytes | None, high: np.ndarray) -> np.ndarray:
    """Low bytes, uint8, of the shape of `high`, the high bytes. Without the section (the file was
    truncated) they are taken to equal the high bytes."""
    if section is None:
        return high
    kind, low = section[0], np.frombuffer(section, np.uint8, offset=1)
    if kind >= LOW_KINDS:
        raise CodecError("the section of low bytes is damaged")
    return low.reshape(high.shape) + (high if kind else np.uint8(0))


def info(data: bytes) -> dict:
    """Describes a lossless file without decoding it, see `api.info`."""
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
