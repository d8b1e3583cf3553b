"""Arrays -> lossless files, version 2 of the format; what the bytes are is in layout.py."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from aejax.codec import container
from aejax.codec.container import Header
from aejax.codec.lossless import nets, plain
from aejax.codec.lossless.installed import is_installed, shipped
from aejax.codec.lossless.layout import GRAY_NETWORK, NETWORK, PLAIN, scans_of, tiles_of
from aejax.codec.lossless.runtime import Runtime
from aejax.codec.lossless.tiles import colours_of, crc_of, each_tile
from aejax.codec.planes import flags_of

NO_MODEL = bytes(4)
# Bytes per byte by a quick deflate of a picture's middle: below, deflating the whole may pay.
PLAIN_MAY_PAY = 0.45
# Bytes per byte of the whole: below, a network is not tried.
NETWORK_CANNOT_PAY = 0.02


def lossless_file(
    image: np.ndarray,
    metadata: Mapping[str, bytes] | None = None,
    runtime: Runtime | None = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """uint8 or uint16 [h, w, 1 to 4] -> the bytes of a file that gives it back exactly.

    Photographs are predicted by networks; drawings and the like, and everything in an installation
    without the networks' weights, are deflated: whichever is smaller.

    Args:
      runtime: of weights of one's own, from `installed.use`.
      progress: called with the share of the tiles that are done.
    """
    if runtime is None and is_installed():
        runtime = shipped()
    return file_by(runtime, image, metadata, progress)


def file_by(
    runtime: Runtime | None,
    image: np.ndarray,
    metadata: Mapping[str, bytes] | None = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """`lossless_file` by the networks of `runtime`; None: without networks."""
    candidates: list[tuple[int, bytes, bytes]] = []  # (mode, model, body)
    tiny = False
    if runtime is None or image.dtype == np.uint16 or plain.estimate(image) < PLAIN_MAY_PAY:
        body = plain.encode(image)
        tiny = len(body) < NETWORK_CANNOT_PAY * image.nbytes
        size = container.base128(len(body)) + zlib.crc32(body).to_bytes(4, "little")
        candidates.append((PLAIN, NO_MODEL, size + body))
    if runtime is not None and not tiny:
        mode, body = _predicted(image, runtime, progress)
        candidates.append((mode, runtime.weights.id, body))
    mode, model, body = min(candidates, key=lambda candidate: len(candidate[2]))
    if progress:
        progress(1.0)
    return _front(image, mode, model, metadata or {}) + body


def _front(image: np.ndarray, mode: int, model: bytes, metadata: Mapping[str, bytes]) -> bytes:
    """Header, crc of the pixels, metadata."""
    flags = flags_of(image) | (container.METADATA if metadata else 0)
    h, w = image.shape[:2]
    header = Header(model, mode, w, h, flags, container.LOSSLESS)
    sections = container.pack_metadata(metadata) if metadata else b""
    return header.pack() + sections + crc_of(image).to_bytes(4, "little")


def _predicted(
    image: np.ndarray, runtime: Runtime, progress: Callable[[float], None] | None
) -> tuple[int, bytes]:
    """(mode, chunks and what is beside them)."""
    colours = colours_of(image)
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
    for tile in each_tile(len(tiles), one):
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
    if part.shape[2] == 1:
        zero = np.zeros_like(part)
        return np.concatenate([part, zero, zero], -1)
    return np.asarray(nets.ycocg(part))


def _pack_low(colours: np.ndarray) -> bytes:
    """The section of the low bytes of 16-bit samples: a kind (0: as they are, 1: minus the high
    byte), then the bytes; the smaller of the two."""
    low, high = (colours & 255).astype(np.uint8), (colours >> 8).astype(np.uint8)
    kinds = (bytes([n]) + v.tobytes() for n, v in enumerate((low, low - high)))
    return min((container.pack_section(container.LOW_BYTES, v) for v in kinds), key=len)
