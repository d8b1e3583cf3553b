"""Runs a frozen codec: pixels <-> latents in windows (windows.py), latents <-> chunks of a file."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aejax.codec import container, parts
from aejax.codec.container import Chunk, Header
from aejax.codec.entropy import Decoder, Encoder
from aejax.codec.errors import CodecError
from aejax.codec.frozen import Frozen
from aejax.codec.passes import COLOURS, add_colour, code_passes, pass_order
from aejax.codec.range_coder import CorruptStream
from aejax.codec.transforms import STRIDE
from aejax.codec.windows import Tile, colour_indices, cores, halo_of, hyper_size, padded_tile

Coded = tuple[np.ndarray, np.ndarray]  # (symbols int32 [n], levels uint8 [n])


class Runtime:
    """The compiled functions of one frozen model, and the coding of tiles.

    Args:
      frozen: the model.
      jit: False runs all functions eagerly, with the same symbols as a result.
    """

    def __init__(self, frozen: Frozen, jit: bool = True):
        self.frozen, self.model = frozen, frozen.model
        self.halos = halo_of(self.model.encoder), halo_of(self.model.decoder)
        self.variables = {"params": jax.tree.map(jnp.asarray, frozen.params)}

        def compiled(function: Callable, *static: int) -> Callable:
            of_model = functools.partial(function, self.model)
            return jax.jit(of_model, static_argnums=static) if jit else of_model

        self.analyse = compiled(parts.analyse)
        self.synthesise = compiled(parts.synthesise)
        self.to_samples = compiled(parts.to_samples, 3)
        self.hyper_symbols = compiled(parts.hyper_symbols)
        self.hyper_decode = compiled(parts.hyper_decode)
        self.z_levels, self.symbols_of = compiled(parts.z_levels), compiled(parts.symbols_of)
        self.shared = compiled(parts.shared, 3)
        self.slice_parameters = compiled(parts.slice_parameters, 4)
        self.add_colour = jax.jit(add_colour) if jit else add_colour

    # --- latents of one tile <-> symbols <-> chunks ---

    def tile_symbols(
        self, y: np.ndarray, quality: int
    ) -> tuple[Coded, np.ndarray, np.ndarray, np.ndarray]:
        """y [h, w, M], h and w at most 96 -> (z, symbols, levels, y_hat).

        Args:
          quality: the quality byte, 0 to 255.

        Returns:
          Symbols and levels of z, flat, in the order of a file; symbols (int32), levels (uint8) and
          y_hat (float32) of y, each [h, w, M].
        """
        h, w = y.shape[:2]
        q = parts.as_quality(quality)
        shape, mask, z_mask = padded_tile(h, w)
        padded = np.zeros((1, *shape, y.shape[-1]), np.float32)
        padded[0, :h, :w] = y
        z = self.hyper_symbols(self.variables, padded, z_mask, q)
        features, base = self.hyper_decode(self.variables, z, z_mask, q)
        symbols, levels, y_hat = self.symbols_of(self.variables, padded, features, base, mask)
        zh, zw = hyper_size(h, w)
        z_levels = np.tile(np.asarray(self.z_levels(self.variables, q)), zh * zw)
        of_z = np.asarray(z)[:zh, :zw].reshape(-1), z_levels
        symbols, levels, y_hat = (np.asarray(a) for a in (symbols, levels, y_hat))
        return of_z, symbols[:h, :w], levels[:h, :w], y_hat[0, :h, :w]

    def encode_tile(self, y: np.ndarray, quality: int) -> tuple[list[Chunk], np.ndarray]:
        """y [h, w, M], h and w at most 96 -> (one chunk per scan, y_hat [h, w, M]); quality: 0 to
        255."""
        of_z, symbols, levels, y_hat = self.tile_symbols(y, quality)
        h, w, latent = y.shape
        symbols, levels = symbols.reshape(-1, latent), levels.reshape(-1, latent)
        indices = colour_indices(h, w, w)
        chunks, scan = [], [of_z]
        for _, channels, colour in pass_order(self.frozen.slices):
            positions = indices[colour]
            of_pass = symbols[positions, channels], levels[positions, channels]
            scan.append((of_pass[0].reshape(-1), of_pass[1].reshape(-1)))
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
        """The chunks of a tile (fewer than scans if the file was truncated) -> y_hat [h, w, M].

        Args:
          quality: the quality byte, 0 to 255.
          name: of the tile, for errors.

        Raises:
          CodecError: a chunk is damaged, or the decoded symbols are not those that were written.
        """
        q, v = parts.as_quality(quality), self.variables
        shape, mask, z_mask = padded_tile(h, w)
        indices = colour_indices(h, w, shape[1])
        colour0 = np.zeros((shape[0] * shape[1], 1), np.float32)
        colour0[indices[0]] = 1
        colour0 = colour0.reshape(mask.shape)
        scans = [_Scan(self.frozen, chunk, name) for chunk in chunks]
        scans += [_Scan(self.frozen, Chunk(b"", 0), name)] * (len(self.frozen.slices) - len(scans))

        zh, zw = hyper_size(h, w)
        z_level = np.asarray(self.z_levels(v, q))
        z = np.zeros((*z_mask.shape[:2], len(z_level)), np.int32)
        z[:zh, :zw] = scans[0].read(np.broadcast_to(z_level, (zh, zw, len(z_level))))
        features, base = self.hyper_decode(v, z, z_mask, q)

        def read(i: int, channels: slice, colour: int, mu, level) -> np.ndarray:
            """The symbols of a pass, int32 [h w, c], zero at the positions of the other colour."""
            level = np.asarray(level).reshape(colour0.size, -1)
            symbols = np.zeros(level.shape, np.int32)
            symbols[indices[colour]] = scans[i].read(level[indices[colour]])
            if colour == COLOURS - 1:
                scans[i].check()
            return symbols

        y_hat = code_passes(
            self.frozen.slices,
            (colour0, mask - colour0),
            lambda i, earlier: self.shared(v, features, earlier, i),
            lambda i, channels, shared, anchors: self.slice_parameters(v, shared, base, anchors, i),
            read,
            self.add_colour,
        )
        return np.concatenate([np.asarray(of_slice)[0, :h, :w] for of_slice in y_hat], axis=-1)

    # --- pixels <-> latents ---

    def latents(self, pixels: np.ndarray, tile: Tile, header: Header) -> np.ndarray:
        """y [h, w, M] of one tile of the image `pixels`, uint8 or uint16 [H, W, 3]."""
        out = np.empty((*tile[2:], sum(self.frozen.slices)), np.float32)
        q = parts.as_quality(header.quality)
        for (i, j, h, w), ((top, rows), (left, cols)) in cores(tile, header.grid, self.halos[0]):
            window = pixels[top * STRIDE :, left * STRIDE :][: rows * STRIDE, : cols * STRIDE]
            window = _repeat_edges(window, rows * STRIDE, cols * STRIDE)
            y = np.asarray(self.analyse(self.variables, window[None], q))[0]
            core = out[i - tile[0] :, j - tile[1] :][:h, :w]
            core[...] = y[i - top :, j - left :][:h, :w]
        return out

    def pixels(self, y_hat: np.ndarray, row: int, tile: Tile, header: Header) -> np.ndarray:
        """Samples of one tile of the type that the header's flags say, [16 h, 16 w, 3], or
        [16 h, 16 w] if gray.

        Args:
          y_hat: rows of latents over the full width of the image, [n, grid width, M].
          row: number of the first of them.
        """
        flags, gh = header.flags & (container.GRAY | container.DEEP), header.grid[0]
        shape = (tile[2] * STRIDE, tile[3] * STRIDE)
        out = np.empty(
            shape if flags & container.GRAY else (*shape, 3),
            np.uint16 if flags & container.DEEP else np.uint8,
        )
        q = parts.as_quality(header.quality)
        for (i, j, h, w), ((top, rows), (left, cols)) in cores(tile, header.grid, self.halos[1]):
            window = y_hat[top - row : min(top + rows, gh) - row, left : left + cols]
            window = _repeat_edges(window, rows, cols)
            x = np.asarray(self.to_samples(self.variables, window[None], q, flags))[0]
            core = out[(i - tile[0]) * STRIDE :, (j - tile[1]) * STRIDE :]
            x = x[(i - top) * STRIDE :, (j - left) * STRIDE :][: h * STRIDE, : w * STRIDE]
            core[: h * STRIDE, : w * STRIDE] = x
        return out


def _repeat_edges(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """x [h, w, c] with its last row and column repeated to [height, width, c]."""
    return np.pad(x, ((0, height - x.shape[0]), (0, width - x.shape[1]), (0, 0)), mode="edge")


class _Scan:
    """Reads the symbols of one chunk; those of an empty chunk are all zero."""

    def __init__(self, frozen: Frozen, chunk: Chunk, name: str):
        self.chunk, self.name = chunk, name
        self.coder = Decoder(frozen.tables, chunk.data) if chunk.data else None
        self.symbols: list[np.ndarray] = []

    def read(self, levels: np.ndarray) -> np.ndarray:
        """levels uint8 of any shape -> symbols int32 of that shape.

        Raises:
          CodecError: the chunk is damaged so that decoding fails.
        """
        if self.coder is None:
            return np.zeros(levels.shape, np.int32)
        try:
            self.symbols.append(self.coder.read(levels.reshape(-1)))
        except CorruptStream as e:
            raise CodecError(f"{self.name} is damaged: {e}") from None
        return self.symbols[-1].reshape(levels.shape)

    def check(self) -> None:
        """Compares the hash of all symbols, once the last one is read.

        Raises:
          CodecError: they are not the symbols that were written.
        """
        if self.coder is not None and hash_of(self.symbols) != self.chunk.symbols:
            raise CodecError(
                f"{self.name} did not decode to the symbols that were written; it is damaged, or "
                "this machine does not compute integers exactly"
            )


def hash_of(symbols: list[np.ndarray]) -> int:
    """crc16 of symbols as little-endian int32."""
    return container.crc16(np.concatenate(symbols).astype("<i4").tobytes() if symbols else b"")
