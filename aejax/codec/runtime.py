"""A frozen codec at work: pixels <-> latents in windows (windows.py), latents <-> chunks."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aejax.codec import container, parts
from aejax.codec.container import Chunk, Header
from aejax.codec.entropy import CodedWrong, Decoder, Encoder
from aejax.codec.errors import CodecError
from aejax.codec.frozen import Frozen
from aejax.codec.passes import COLOURS, in_order, order, settled
from aejax.codec.transforms import STRIDE
from aejax.codec.windows import Tile, colours, cores, half, padded, reach

Coded = tuple[np.ndarray, np.ndarray]  # (symbols int32 [n], levels uint8 [n])


class Runtime:
    """The compiled parts of one frozen model.

    jit=False runs everything eagerly, which must give the same symbols.
    """

    def __init__(self, frozen: Frozen, jit: bool = True):
        self.frozen, self.model = frozen, frozen.model
        self.halos = reach(self.model.encoder), reach(self.model.decoder)
        self.variables = {"params": jax.tree.map(jnp.asarray, frozen.params)}

        def part(function: Callable, *static: int) -> Callable:
            call = functools.partial(function, self.model)
            return jax.jit(call, static_argnums=static) if jit else call

        self.analyse, self.synthesise = part(parts.analyse), part(parts.synthesise)
        self.paint = part(parts.paint, 3)
        self.hyper_symbols, self.begin = part(parts.hyper_symbols), part(parts.begin)
        self.z_levels, self.symbols_of = part(parts.z_levels), part(parts.symbols_of)
        self.known, self.levels = part(parts.known, 3), part(parts.levels, 4)
        self.settled = jax.jit(settled) if jit else settled

    # --- latents of one tile <-> symbols <-> chunks ---

    def tile_symbols(
        self, y: np.ndarray, quality: int
    ) -> tuple[Coded, np.ndarray, np.ndarray, np.ndarray]:
        """y [h, w, M], h and w at most 96 -> (z, symbols, levels, y_hat): z's symbols and levels
        flat, in the order of a file; of y [h, w, M] each, int32, uint8 and float32."""
        h, w = y.shape[:2]
        q = parts.as_quality(quality)
        shape, mask, z_mask = padded(h, w)
        full = np.zeros((1, *shape, y.shape[-1]), np.float32)
        full[0, :h, :w] = y
        z = self.hyper_symbols(self.variables, full, z_mask, q)
        features, base = self.begin(self.variables, z, z_mask, q)
        symbols, levels, y_hat = self.symbols_of(self.variables, full, features, base, mask)
        zh, zw = half(h, w)
        z_levels = np.tile(np.asarray(self.z_levels(self.variables, q)), zh * zw)
        of_z = np.asarray(z)[:zh, :zw].reshape(-1), z_levels
        symbols, levels, y_hat = (np.asarray(a) for a in (symbols, levels, y_hat))
        return of_z, symbols[:h, :w], levels[:h, :w], y_hat[0, :h, :w]

    def encode_tile(self, y: np.ndarray, quality: int) -> tuple[list[Chunk], np.ndarray]:
        """y [h, w, M], h and w at most 96 -> (a chunk for each scan, y_hat [h, w, M])."""
        of_z, symbols, levels, y_hat = self.tile_symbols(y, quality)
        h, w, latent = y.shape
        symbols, levels = symbols.reshape(-1, latent), levels.reshape(-1, latent)
        places = colours(h, w, w)
        chunks, scan = [], [of_z]
        for _, channels, colour in order(self.frozen.slices):
            at = places[colour], channels
            scan.append((symbols[at].reshape(-1), levels[at].reshape(-1)))
            if colour == COLOURS - 1:
                chunks.append(self._chunk(scan))
                scan = []
        return chunks, y_hat

    def _chunk(self, scan: Sequence[Coded]) -> Chunk:
        if not any(symbols.any() for symbols, _ in scan):
            return Chunk(b"", 0)
        coder = Encoder(self.frozen.tables)
        for symbols, levels in scan:
            coder.write(symbols, levels)
        return Chunk(coder.bytes(), hash_of([symbols for symbols, _ in scan]))

    def decode_tile(
        self, chunks: list[Chunk], h: int, w: int, quality: int, name: str = "the stream"
    ) -> np.ndarray:
        """The chunks of a tile, fewer if the file was cut -> y_hat [h, w, M].

        Raises:
          CodecError: damaged, or these are not the symbols that were written.
        """
        q, v = parts.as_quality(quality), self.variables
        shape, mask, z_mask = padded(h, w)
        places = colours(h, w, shape[1])
        first = np.zeros((shape[0] * shape[1], 1), np.float32)
        first[places[0]] = 1
        first = first.reshape(mask.shape)
        scans = [_Scan(self.frozen, chunk, name) for chunk in chunks]
        scans += [_Scan(self.frozen, Chunk(b"", 0), name)] * (len(self.frozen.slices) - len(scans))

        zh, zw = half(h, w)
        z_level = np.asarray(self.z_levels(v, q))
        z = np.zeros((*z_mask.shape[:2], len(z_level)), np.int32)
        z[:zh, :zw] = scans[0].read(np.broadcast_to(z_level, (zh, zw, len(z_level))))
        features, base = self.begin(v, z, z_mask, q)

        def read(i: int, channels: slice, colour: int, mu, level) -> np.ndarray:
            """The symbols of a pass, int32 [h w, c], zero where the other colour is."""
            level = np.asarray(level).reshape(first.size, -1)
            symbols = np.zeros(level.shape, np.int32)
            symbols[places[colour]] = scans[i].read(level[places[colour]])
            if colour == COLOURS - 1:
                scans[i].check()
            return symbols

        y_hat = in_order(
            self.frozen.slices,
            (first, mask - first),
            lambda i, earlier: self.known(v, features, earlier, i),
            lambda i, channels, shared, own: self.levels(v, shared, base, own, i),
            read,
            self.settled,
        )
        return np.concatenate([np.asarray(of_slice)[0, :h, :w] for of_slice in y_hat], axis=-1)

    # --- pixels <-> latents ---

    def latents(self, pixels: np.ndarray, tile: Tile, header: Header) -> np.ndarray:
        """y [h, w, M] of one tile of the image [H, W, 3], uint8 or uint16."""
        out = np.empty((*tile[2:], sum(self.frozen.slices)), np.float32)
        q = parts.as_quality(header.quality)
        for (i, j, h, w), ((top, rows), (left, cols)) in cores(tile, header.grid, self.halos[0]):
            part = pixels[top * STRIDE :, left * STRIDE :][: rows * STRIDE, : cols * STRIDE]
            pad = (rows * STRIDE - part.shape[0], cols * STRIDE - part.shape[1])
            part = np.pad(part, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
            y = np.asarray(self.analyse(self.variables, part[None], q))[0]
            at = out[i - tile[0] :, j - tile[1] :][:h, :w]
            at[...] = y[i - top :, j - left :][:h, :w]
        return out

    def pixels(self, y_hat: np.ndarray, row: int, tile: Tile, header: Header) -> np.ndarray:
        """Samples of one tile as the header's flags have them, [16 h, 16 w, 3] or [16 h, 16 w];
        y_hat holds whole rows of latents from `row` on."""
        flags, gh = header.flags & (container.GRAY | container.DEEP), header.grid[0]
        shape = (tile[2] * STRIDE, tile[3] * STRIDE)
        out = np.empty(
            shape if flags & container.GRAY else (*shape, 3),
            np.uint16 if flags & container.DEEP else np.uint8,
        )
        q = parts.as_quality(header.quality)
        for (i, j, h, w), ((top, rows), (left, cols)) in cores(tile, header.grid, self.halos[1]):
            part = y_hat[top - row : min(top + rows, gh) - row, left : left + cols]
            pad = (rows - part.shape[0], cols - part.shape[1])
            part = np.pad(part, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
            x = np.asarray(self.paint(self.variables, part[None], q, flags))[0]
            at = out[(i - tile[0]) * STRIDE :, (j - tile[1]) * STRIDE :]
            x = x[(i - top) * STRIDE :, (j - left) * STRIDE :][: h * STRIDE, : w * STRIDE]
            at[: h * STRIDE, : w * STRIDE] = x
        return out


class _Scan:
    """Reads the symbols of one chunk; an empty chunk stands for zeros."""

    def __init__(self, frozen: Frozen, chunk: Chunk, name: str):
        self.chunk, self.name = chunk, name
        self.coder = Decoder(frozen.tables, chunk.data) if chunk.data else None
        self.symbols: list[np.ndarray] = []

    def read(self, levels: np.ndarray) -> np.ndarray:
        """levels uint8 of any shape -> symbols int32 of that shape.

        Raises:
          CodecError: damaged in a way that the coder can tell.
        """
        if self.coder is None:
            return np.zeros(levels.shape, np.int32)
        try:
            self.symbols.append(self.coder.read(levels.reshape(-1)))
        except CodedWrong as e:
            raise CodecError(f"{self.name} is damaged: {e}") from None
        return self.symbols[-1].reshape(levels.shape)

    def check(self) -> None:
        """After the last symbol.

        Raises:
          CodecError: they are not those that were written.
        """
        if self.coder is not None and hash_of(self.symbols) != self.chunk.symbols:
            raise CodecError(
                f"{self.name} did not decode to the symbols that were written; it is damaged, or "
                "this machine does not compute integers exactly"
            )


def hash_of(parts: list[np.ndarray]) -> int:
    """crc16 of symbols as little-endian int32."""
    return container.crc16(np.concatenate(parts).astype("<i4").tobytes() if parts else b"")
