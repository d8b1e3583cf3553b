"""Decodes lossy files to arrays; layout.py splits the bytes into parts."""

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
    """The number of scans in files of the model with this id.

    Raises:
      CodecError: the model is not installed.
    """
    return len(runtime_of(model).frozen.slices)


def read(data: bytes, max_pixels: int) -> Decoded:
    """Decodes a lossy file.

    Raises:
      CodecError: the file is damaged, larger than `max_pixels`, or its model is not installed.
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
    """The alpha plane [h, w]; opaque if the file was truncated before it."""
    header = parsed.header
    if parsed.alpha is None:
        return np.full((header.height, header.width), np.iinfo(dtype).max, dtype)
    deep = bool(header.flags & container.DEEP)
    return container.unpack_plane(parsed.alpha, header.height, header.width, deep)


def info(data: bytes) -> JsonObject:
    """Describes a lossy file without decoding it, see `api.info`. Without the file's model there is
    no "complete", "parts" and "metadata"."""
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
    """Decodes y_hat of rows of tiles, each once, and keeps a row while windows overlap it."""

    def __init__(self, parsed: Parsed, runtime: Runtime):
        self.parsed, self.runtime, self.tiles = parsed, runtime, parsed.header.tiles
        self.starts = sorted({tile[0] for tile in self.tiles})  # first latent row of each tile row
        self._decoded: dict[int, np.ndarray] = {}  # start -> [h, grid width, M]

    def has_data(self, start: int) -> bool:
        """Whether the file has a chunk of the row of tiles that begins at latent row `start`, or of
        a row next to it."""
        return any(
            chunks and abs(tile[0] - start) <= container.TILE
            for tile, chunks in zip(self.tiles, self.parsed.tiles, strict=True)
        )

    def around(self, start: int) -> tuple[np.ndarray, int]:
        """Rows of latents in the windows of the row of tiles that begins at `start`.

        Returns:
          (y_hat [n, grid width, M], number of its first row).
        """
        n, grid = self.starts.index(start), self.parsed.header.grid
        neighbours = self.starts[max(0, n - 1) : n + 2]
        for old in [s for s in self._decoded if s < neighbours[0]]:
            del self._decoded[old]
        tile = next(tile for tile in self.tiles if tile[0] == start)
        windows = [rows for _, (rows, _) in cores(tile, grid, self.runtime.halos[1])]
        low, high = (
            min(first for first, _ in windows),
            max(first + length for first, length in windows),
        )
        parts = [self._row(s)[max(low - s, 0) : high - s] for s in neighbours if s < high]
        return np.concatenate(parts), max(low, neighbours[0])

    def _row(self, start: int) -> np.ndarray:
        """y_hat [h, grid width, M] of a row of tiles; zero for tiles without chunks."""
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
    """Colour samples [h, w, 3], or [h, w] if gray. Tiles missing from a truncated file are
    mid-gray."""
    header = parsed.header
    deep, gray = bool(header.flags & container.DEEP), bool(header.flags & container.GRAY)
    shape = (header.height, header.width)
    middle = np.uint16(1 << 15) if deep else np.uint8(1 << 7)
    out = np.full(shape if gray else (*shape, 3), middle)
    rows = _TileRows(parsed, runtime)
    for start in filter(rows.has_data, rows.starts):
        y_hat, first = rows.around(start)
        for tile in (tile for tile in rows.tiles if tile[0] == start):
            x = runtime.pixels(y_hat, first, tile, header)
            top, left = tile[0] * STRIDE, tile[1] * STRIDE
            target = out[top : top + tile[2] * STRIDE, left : left + tile[3] * STRIDE]
            target[...] = x[: target.shape[0], : target.shape[1]]
            if len(rows.tiles) > 1:
                release_memory()
    return out
