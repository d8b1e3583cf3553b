"""Lossless .aej files, version 2 of the format: arrays <-> bytes; see docs/aej-format.md.

header, with the mode where a lossy file has its quality; crc of the pixels (4)
metadata sections, if flagged
mode NETWORK, GRAY_NETWORK: chunks, scan by scan and within it tile by tile;
                            16 bits: the low bytes; alpha, if flagged
mode PLAIN: length (base 128), crc (4), what plain.py makes of all channels
"""

import collections
import dataclasses
import functools
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from aejax.codec import container
from aejax.codec.container import Header
from aejax.codec.errors import CodecError
from aejax.codec.lossless import plain
from aejax.codec.lossless.layout import (
    GRAY_NETWORK,
    NETWORK,
    PLAIN,
    Parsed,
    parse,
    scans_of,
    tiles_of,
)
from aejax.machine.allocator import release_memory
from aejax.weights import FOLDER

SHIPPED = "lossless"  # weights
NO_MODEL = bytes(4)
# Bytes per byte by a quick deflate of a picture's middle: below, deflating the whole may pay.
PLAIN_MAY_PAY = 0.45
# Bytes per byte of the whole: below, a network is not tried.
NETWORK_CANNOT_PAY = 0.02
LOW_KINDS = ("as they are", "minus the high byte")  # of low bytes

_extra: dict[bytes, "object"] = {}


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a lossless file holds.

    Attributes:
      image: uint8 or uint16 [h, w, c].
      complete: False if it was cut.
      scans: how many of `of_scans` were there, of the tile that has fewest.
    """

    image: np.ndarray
    complete: bool
    scans: int
    of_scans: int
    metadata: dict[str, bytes]
    header: Header


@functools.cache
def _shipped():
    from aejax.codec.lossless.freeze import load
    from aejax.codec.lossless.runtime import Runtime

    return Runtime(load(SHIPPED))


def use(weights):
    """A Runtime of other weights (a path, a name, or Weights), for `encode(..., runtime=...)`;
    files made with them are then decoded too, as they name their model."""
    from aejax.codec.lossless.freeze import load
    from aejax.codec.lossless.runtime import Runtime, Weights

    weights = weights if isinstance(weights, Weights) else load(weights)
    runtime = _extra.get(weights.id) or Runtime(weights)
    _extra[weights.id] = runtime
    return runtime


def is_installed() -> bool:
    """Whether there are weights for photographs."""
    return (FOLDER / f"{SHIPPED}.safetensors").exists()


def _runtime_of(model: bytes):
    if model in _extra:
        return _extra[model]
    if is_installed():
        import json

        path = pathlib.Path(FOLDER) / f"{SHIPPED}.json"
        if json.loads(path.read_text())["id"] == model.hex():
            return _shipped()
    raise CodecError(
        f"the file was made with model {model.hex()}, which this installation does not have; "
        "install the version of aejax that has it, or give its weights to "
        "aejax.codec.lossless.files.use"
    )


def _each(count: int, one: Callable[[int], Any]) -> Iterator[Any]:
    """one(0), one(1), ... in order, two tiles at a time: while one waits for the coder, which is
    one thread's work, the other's networks have the other cores."""
    if count == 1:
        yield one(0)
        return
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        ahead = collections.deque(pool.submit(one, n) for n in range(min(3, count)))
        for n in range(count):
            yield ahead.popleft().result()
            release_memory()
            if n + 3 < count:
                ahead.append(pool.submit(one, n + 3))


# --- encode ---------------------------------------------------------------------------------------


def encode(
    image: np.ndarray,
    metadata: Mapping[str, bytes] | None = None,
    runtime=None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """uint8 or uint16 [h, w, 1 to 4] -> the bytes of a file that gives it back exactly.

    Photographs are predicted by networks; drawings and the like, and everything in an installation
    without the networks' weights, are deflated: whichever is smaller.
    """
    candidates = []
    if runtime is None and is_installed():
        runtime = _shipped()
    raw = image.nbytes
    if runtime is None or image.dtype == np.uint16 or plain.estimate(image) < PLAIN_MAY_PAY:
        body = plain.encode(image)
        size = container.base128(len(body)) + zlib.crc32(body).to_bytes(4, "little")
        candidates.append((PLAIN, size + body))
    if runtime is not None and not (candidates and len(body) < NETWORK_CANNOT_PAY * raw):
        candidates.append(_predicted(image, runtime, progress))
    mode, body = min(candidates, key=lambda c: len(c[1]))
    if progress:
        progress(1.0)
    model = NO_MODEL if mode == PLAIN else runtime.weights.id
    return _front(image, mode, model, metadata or {}) + body


def _flags(image: np.ndarray) -> int:
    c = image.shape[2]
    flags = container.DEEP if image.dtype == np.uint16 else 0
    return flags | (container.GRAY if c < 3 else 0) | (container.ALPHA if c in (2, 4) else 0)


def _front(image: np.ndarray, mode: int, model: bytes, metadata: Mapping[str, bytes]) -> bytes:
    """Header, crc of the pixels, metadata."""
    flags = _flags(image) | (container.METADATA if metadata else 0)
    h, w = image.shape[:2]
    header = Header(model, mode, w, h, flags, container.LOSSLESS)
    sections = container.pack_metadata(metadata) if metadata else b""
    return header.pack() + sections + crc_of(image).to_bytes(4, "little")


def crc_of(image: np.ndarray) -> int:
    """crc32 of the samples, little-endian, in the order of the array."""
    crc = 0
    for rows in image:
        crc = zlib.crc32(np.ascontiguousarray(rows, f"<u{image.dtype.itemsize}"), crc)
    return crc


def _colours(image: np.ndarray) -> np.ndarray:
    """[h, w, c] without alpha."""
    return image[..., :-1] if image.shape[2] in (2, 4) else image


def _predicted(image: np.ndarray, runtime, progress) -> tuple[int, bytes]:
    """(mode, chunks and what is beside them)."""
    colours = _colours(image)
    gray = colours.shape[2] == 1 or all(
        (row[:, 0] == row[:, 1]).all() and (row[:, 0] == row[:, 2]).all() for row in colours
    )
    header = Header(NO_MODEL, 0, image.shape[1], image.shape[0])
    tiles = tiles_of(header)
    scans, first = scans_of(header)

    def one(n: int) -> list[bytes]:
        i, j, h, w = tiles[n]
        part = colours[i : i + h, j : j + w]
        part = (part >> 8 if part.dtype == np.uint16 else part).astype(np.int32)
        chunks = [c.pack() for c in runtime.encode_tile(_to_ycc(part), gray)]
        return [b"\0"] * first[n] + chunks

    coded = []
    for tile in _each(len(tiles), one):
        coded.append(tile)
        if progress:
            progress(len(coded) / len(tiles))
    out = [tile[scan] for scan in range(scans) for tile in coded]
    if image.dtype == np.uint16:
        out.append(_pack_low(colours))
    if image.shape[2] in (2, 4):
        out.append(
            container.pack_section(container.ALPHA_PLANE, container.pack_plane(image[..., -1]))
        )
    return GRAY_NETWORK if gray else NETWORK, b"".join(out)


def _to_ycc(part: np.ndarray) -> np.ndarray:
    from aejax.codec.lossless import nets

    if part.shape[2] == 1:
        zero = np.zeros_like(part)
        return np.concatenate([part, zero, zero], -1)
    return nets.ycocg(part)


def _pack_low(colours: np.ndarray) -> bytes:
    """The low bytes of 16-bit samples: a kind, then the smaller of LOW_KINDS."""
    low, high = (colours & 255).astype(np.uint8), (colours >> 8).astype(np.uint8)
    found = (bytes([n]) + v.tobytes() for n, v in enumerate((low, low - high)))
    return min((container.pack_section(container.LOW_BYTES, v) for v in found), key=len)


# --- decode ---------------------------------------------------------------------------------------


def read(data: bytes, max_pixels: int = 1 << 27) -> Contents:
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
    return Contents(image, parsed.complete, scans, of_scans, parsed.metadata, header)


def _decoded(parsed: Parsed, shape: tuple[int, int, int], dtype) -> np.ndarray:
    """The image of a network's file."""
    from aejax.codec.lossless import nets

    header, places = parsed.header, tiles_of(parsed.header)
    runtime = _runtime_of(header.model)
    deep, gray = dtype == np.uint16, header.quality == GRAY_NETWORK
    image = np.zeros(shape, dtype)
    colours = _colours(image)

    def one(n: int) -> None:
        (i, j, h, w), name = places[n], f"tile {n + 1}" if len(places) > 1 else "the image"
        ycc = runtime.decode_tile(parsed.tiles[n], h, w, gray, name)
        found = ycc[..., :1] if gray else nets.rgb(ycc)
        if parsed.complete and ((found < 0) | (found > 255)).any():
            raise CodecError(f"{name} is damaged: a sample out of all bounds")
        found = np.clip(found, 0, 255).astype(np.uint8)
        colours[i : i + h, j : j + w] = found.astype(dtype) << 8 if deep else found

    for _ in _each(len(places), one):
        pass
    if deep:
        high = (colours >> 8).astype(np.uint8)
        low = high
        if parsed.low is not None:
            kind, low = parsed.low[0], np.frombuffer(parsed.low, np.uint8, offset=1)
            if kind >= len(LOW_KINDS):
                raise CodecError("the section of low bytes is damaged")
            low = low.reshape(colours.shape) + (high if kind else np.uint8(0))
        colours |= low
    if header.flags & container.ALPHA:
        top = 65535 if deep else 255
        image[..., -1] = (
            top
            if parsed.alpha is None
            else container.unpack_plane(parsed.alpha, header.height, header.width, deep)
        )
    return image


def info(data: bytes) -> dict:
    """What a lossless file says of itself, without decoding it."""
    parsed = parse(data, 1 << 40)
    header = parsed.header
    channels = {0: "RGB", 1: "gray", 2: "RGB + alpha", 3: "gray + alpha"}[header.flags & 3]
    return {
        "version": header.version,
        "lossless": "deflate" if header.quality == PLAIN else f"model {header.model.hex()}",
        "width": header.width,
        "height": header.height,
        "channels": channels,
        "bits": 16 if header.flags & container.DEEP else 8,
        "tiles": len(tiles_of(header)),
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "complete": parsed.complete,
        "parts": parsed.sizes,
        "metadata": {k: len(v) for k, v in parsed.metadata.items()},
    }
