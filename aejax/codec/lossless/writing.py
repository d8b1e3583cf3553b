"""Encodes arrays to lossless files, version 2 of docs/aej-format.md."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from aejax.codec import container
from aejax.codec.container import Header
from aejax.codec.lossless import nets, plain
from aejax.codec.lossless.installed import is_installed, shipped
from aejax.codec.lossless.layout import GRAY_NETWORK, NETWORK, PLAIN, scans_of, tiles_of
from aejax.codec.lossless.runtime import Runtime
from aejax.codec.lossless.tiles import crc_of, each_tile, without_alpha
from aejax.codec.planes import flags_of

NO_MODEL = bytes(4)
# If a quick deflate of the middle of an image is below this fraction of its bytes, the whole image
# is deflated too, and the smaller file is kept.
TRY_DEFLATE_BELOW = 0.45
# If the deflated image is below this fraction of its bytes, the network is not tried.
SKIP_NETWORK_BELOW = 0.02


def lossless_file(
    image: np.ndarray,
    metadata: Mapping[str, bytes] | None = None,
    runtime: Runtime | None = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """Encodes an image, uint8 or uint16 [h, w, 1 to 4]; returns the bytes of the file.

    Photographs are coded by the network, drawings and screenshots by deflate (plain.py), whichever
    is smaller. Without the weights of the network, all images are deflated.

    Args:
      metadata: "icc_profile", "exif", "xmp" -> bytes.
      runtime: of other weights, from `installed.use`.
      progress: called with the fraction of tiles that are done.

    Raises:
      CodecError: metadata that a file cannot store.
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
    """`lossless_file` with the network of `runtime`; None: without a network."""
    candidates: list[tuple[int, bytes, bytes]] = []  # (mode, model, body)
    skip_network = False
    if runtime is None or image.dtype == np.uint16 or plain.estimate(image) < TRY_DEFLATE_BELOW:
        body = plain.encode(image)
        skip_network = len(body) < SKIP_NETWORK_BELOW * image.nbytes
        size = container.base128(len(body)) + zlib.crc32(body).to_bytes(4, "little")
        candidates.append((PLAIN, NO_MODEL, size + body))
    if runtime is not None and not skip_network:
        mode, body = _by_network(image, runtime, progress)
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


def _by_network(
    image: np.ndarray, runtime: Runtime, progress: Callable[[float], None] | None
) -> tuple[int, bytes]:
    """(mode, body of the file: chunks, low bytes, alpha)."""
    colours = without_alpha(image)
    gray = colours.shape[2] == 1 or all(
        (row[:, 0] == row[:, 1]).all() and (row[:, 0] == row[:, 2]).all() for row in colours
    )
    header = Header(NO_MODEL, 0, image.shape[1], image.shape[0])
    tiles = tiles_of(header)
    scans, first = scans_of(header)

    def code(n: int) -> list[bytes]:
        i, j, h, w = tiles[n]
        samples = colours[i : i + h, j : j + w]
        samples = (samples >> 8 if samples.dtype == np.uint16 else samples).astype(np.int32)
        chunks = [c.pack() for c in runtime.encode_tile(_to_ycc(samples), gray)]
        return [b"\0"] * first[n] + chunks

    coded = []
    for tile in each_tile(len(tiles), code):
        coded.append(tile)
        if progress:
            progress(len(coded) / len(tiles))
    parts = [tile[scan] for scan in range(scans) for tile in coded]
    if image.dtype == np.uint16:
        parts.append(_pack_low(colours))
    if image.shape[2] in (2, 4):
        alpha = container.pack_plane(image[..., -1])
        parts.append(container.pack_section(container.ALPHA_PLANE, alpha))
    return GRAY_NETWORK if gray else NETWORK, b"".join(parts)


def _to_ycc(samples: np.ndarray) -> np.ndarray:
    """int32 [h, w, 1 or 3] -> Y, Co, Cg [h, w, 3]; gray is Y with Co = Cg = 0."""
    if samples.shape[2] == 1:
        zero = np.zeros_like(samples)
        return np.concatenate([samples, zero, zero], -1)
    return np.asarray(nets.ycocg(samples))


def _pack_low(colours: np.ndarray) -> bytes:
    """The section of the low bytes of 16-bit samples: a byte for the kind (0: as they are, 1: minus
    the high byte), then the bytes. The kind that deflates better is used."""
    low, high = (colours & 255).astype(np.uint8), (colours >> 8).astype(np.uint8)
    kinds = (bytes([n]) + v.tobytes() for n, v in enumerate((low, low - high)))
    return min((container.pack_section(container.LOW_BYTES, v) for v in kinds), key=len)
