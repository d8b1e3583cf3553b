"""Lossy files -> arrays; what the bytes are is in layout.py."""

import numpy as np

from aejax.codec import container
from aejax.codec.decoded import Decoded
from aejax.codec.errors import CodecError
from aejax.codec.installed import runtime_of
from aejax.codec.layout import NO_LIMIT, Parsed, parse
from aejax.codec.runtime import Runtime
from aejax.codec.transforms import STRIDE
from aejax.codec.windows import cores
from aejax.files import JsonObject
from aejax.machine.allocator import release_memory


def scans_of(model: bytes) -> int:
    """The number of scans of a file that this model made.

    Raises:
      CodecError: the model is not installed.
    """
    return len(runtime_of(model).frozen.slices)


def read(data: bytes, max_pixels: int) -> Decoded:
    """Everything a lossy file holds.

    Raises:
      CodecError: the file is damaged, and how.
    """
    parsed = parse(data, scans_of, max_pixels)
    header, runtime = parsed.header, runtime_of(parsed.header.model)
    image = _pixels(parsed, runtime)
    if header.flags & container.GRAY:
        image = image[..., None]
    if header.flags & container.ALPHA:
        image = np.concatenate([image, _alpha(parsed, image.dtype)[..., None]], axis=-1)
    if image.shape[-1] == 1:
        image = image[..., 0]
    scans, of_scans = min(len(chunks) for chunks in parsed.tiles), len(runtime.frozen.slices)
    return Decoded(image, parsed.complete, scans, parsed.metadata, header, of_scans)


def _alpha(parsed: Parsed, dtype: np.dtype) -> np.ndarray:
    """[h, w]; opaque if the file was cut before it."""
    header = parsed.header
    if parsed.alpha is None:
        return np.full((header.height, header.width), np.iinfo(dtype).max, dtype)
    deep = bool(header.flags & container.DEEP)
    return container.unpack_plane(parsed.alpha, header.height, header.width, deep)


def info(data: bytes) -> JsonObject:
    """What a lossy file says of itself, without decoding it; parts of an installed model's only."""
    header = container.unpack_header(container.Reader(bytes(data)))
    try:
        scans = scans_of(header.model)
    except CodecError:
        scans = None
    out: JsonObject = {
        "version": header.version,
        "model": header.model.hex() + ("" if scans else " (not installed)"),
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "bits": 16 if header.flags & container.DEEP else 8,
        "quality": round(header.quality / 2.55, 1),
        "tiles": len(header.tiles),
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
    }
    if scans:
        parsed = parse(data, lambda _: scans, NO_LIMIT)
        out |= {"complete": parsed.complete, "parts": parsed.sizes}
        out["metadata"] = {k: len(v) for k, v in parsed.metadata.items()}
    return out


class _TileRows:
    """y_hat of the rows of tiles, each decoded once and kept while a window may still need it."""

    def __init__(self, parsed: Parsed, runtime: Runtime):
        self.parsed, self.runtime, self.tiles = parsed, runtime, parsed.header.tiles
        self.starts = sorted({tile[0] for tile in self.tiles})  # first latents of the rows
        self._decoded: dict[int, np.ndarray] = {}  # start -> [h, grid width, M]

    def is_there(self, start: int) -> bool:
        """Whether the file has anything of the row, or of those above and below it."""
        return any(
            chunks and abs(tile[0] - start) <= container.TILE
            for tile, chunks in zip(self.tiles, self.parsed.tiles, strict=True)
        )

    def around(self, start: int) -> tuple[np.ndarray, int]:
        """(the rows of latents that the windows of a row of tiles hold, the first one's number)."""
        n, grid = self.starts.index(start), self.parsed.header.grid
        near = self.starts[max(0, n - 1) : n + 2]
        for old in [s for s in self._decoded if s < near[0]]:
            del self._decoded[old]
        tile = next(tile for tile in self.tiles if tile[0] == start)
        sides = [rows for _, (rows, _) in cores(tile, grid, self.runtime.halos[1])]
        low, high = min(a for a, _ in sides), max(a + size for a, size in sides)
        parts = [self._row(s)[max(low - s, 0) : high - s] for s in near if s < high]
        return np.concatenate(parts), max(low, near[0])

    def _row(self, start: int) -> np.ndarray:
        if start not in self._decoded:
            header = self.parsed.header
            height = min(container.TILE, header.grid[0] - start)
            row = np.zeros((height, header.grid[1], sum(self.runtime.frozen.slices)), np.float32)
            for n, (i, j, h, w) in enumerate(self.tiles):
                if i == start and self.parsed.tiles[n]:
                    name = f"tile {n + 1}" if len(self.tiles) > 1 else "the image"
                    row[:, j : j + w] = self.runtime.decode_tile(
                        self.parsed.tiles[n], h, w, header.quality, name
                    )
            self._decoded[start] = row
        return self._decoded[start]


def _pixels(parsed: Parsed, runtime: Runtime) -> np.ndarray:
    """[h, w, 3] or, gray, [h, w], tile by tile; what is not in a file that was cut stays gray."""
    header = parsed.header
    deep, gray = bool(header.flags & container.DEEP), bool(header.flags & container.GRAY)
    shape = (header.height, header.width)
    middle = np.uint16(1 << 15) if deep else np.uint8(1 << 7)
    out = np.full(shape if gray else (*shape, 3), middle)
    rows = _TileRows(parsed, runtime)
    for start in filter(rows.is_there, rows.starts):
        y_hat, first = rows.around(start)
        for tile in (tile for tile in rows.tiles if tile[0] == start):
            x = runtime.pixels(y_hat, first, tile, header)
            top, left = tile[0] * STRIDE, tile[1] * STRIDE
            part = out[top : top + tile[2] * STRIDE, left : left + tile[3] * STRIDE]
            part[...] = x[: part.shape[0], : part.shape[1]]
            if len(rows.tiles) > 1:
                release_memory()
    return out
