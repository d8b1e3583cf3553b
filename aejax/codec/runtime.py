"""A frozen codec at work: weights, tables, and the compiled parts that a tile goes through.

Analysis and synthesis run in windows of a few fixed shapes, so that photographs of any size are
compiled for once and large ones need little memory. The entropy model runs on tiles of at most
96x96 latents, padded with zeros to one of the same shapes; that padding is part of the format, as
it reaches the levels.
"""

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.codec import container, nets
from aejax.codec.container import Chunk, Header
from aejax.codec.entropy import MAX_SYMBOL, CodedWrong, Decoder, Encoder, Tables
from aejax.codec.errors import CodecError

SHAPES = (4, 8, 16, 32, 48, 64, 80, 96)  # sides of a padded tile
# Large images pass the transforms in cores smaller than a tile: a window of a whole one takes
# 240 MB of temporaries, and malloc keeps several of them.
CORE = (48, 96)
# Latents around a core that its window holds too. The transforms that ship see 6 and 4, but what
# the outer ones do is small: at most 0.002 of a grey level of 256, and 0.0007 of a latent's step.
HALO = 3
STRIDE = nets.STRIDE


def fit(n: int, sides: tuple[int, ...]) -> int:
    """The smallest side that holds n."""
    return next(s for s in sides if s >= n)


def reach(blocks: tuple[int, int]) -> int:
    """Latents that a transform is shown around a core: half of one for a block at 1/8, one for a
    block at 1/16, as far as they matter."""
    return min(math.ceil(blocks[0] / 2 + blocks[1]), HALO)


def window(start: int, size: int, total: int, halo: int, core: int) -> tuple[int, int]:
    """(first, length) of the window that a side of a core needs: the whole side if that is one
    shape; else the core and its halo, moved to lie inside."""
    if total <= SHAPES[-1]:
        return 0, fit(total, SHAPES)
    first, last = max(start - halo, 0), min(start + size + halo, total)
    whole = core + 2 * halo
    length = fit(last - first, (*(s for s in SHAPES if s < whole), whole))
    return min(first, total - length), length


def cores(tile: tuple[int, int, int, int], grid: tuple[int, int], halo: int):
    """The parts in which a tile passes a transform that is shown `halo` latents more: (top, left,
    height, width) of each, and its window's (top, height), (left, width)."""
    i, j, h, w = tile
    rows, cols = (c if total > SHAPES[-1] else total for c, total in zip(CORE, grid, strict=True))
    for a in range(i, i + h, rows):
        for b in range(j, j + w, cols):
            high, wide = min(rows, i + h - a), min(cols, j + w - b)
            down, right = window(a, high, grid[0], halo, rows), window(b, wide, grid[1], halo, cols)
            yield (a, b, high, wide), down, right


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Weights whose entropy model is integers times powers of two, the tables, and who they are.

    Attributes:
      params: of nets.Codec(frozen=True).
      fields: the Codec's attributes.
      meta: provenance.
    """

    params: Any
    tables: Tables
    fields: dict[str, Any]
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def id(self) -> bytes:
        """4 bytes that a stream carries: of all weights, the tables and the fields."""
        digest = digest_of(self.fields, self.params)
        digest.update(self.tables.frequencies.astype("<u4").tobytes())
        return digest.digest()[:4]

    @functools.cached_property
    def model(self) -> nets.Codec:
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in self.fields.items()}
        return nets.Codec(**fields, frozen=True)

    @property
    def slices(self) -> tuple[int, ...]:
        return tuple(self.model.slices)


def digest_of(fields: dict[str, Any], params: Any) -> Any:
    """A SHA-256 object over a model's attributes and all its weights: what its id is made of."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for path, leaf in sorted(flatten(params).items()):
        value = np.asarray(leaf, np.float32) + np.float32(0)  # no negative zeros
        digest.update(path.encode() + value.tobytes())
    return digest


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> {"a/b/c": leaf}."""
    out = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        out |= flatten(value, path + "/") if hasattr(value, "items") else {path: value}
    return out


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    out: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        at = out
        for folder in folders:
            at = at.setdefault(folder, {})
        at[name] = value
    return out


# --- compiled parts -------------------------------------------------------------------------------


def unit(pixels):
    """uint8 or uint16 -> float32 in [0, 1]; floats as they are."""
    top = {np.dtype("uint8"): 255.0, np.dtype("uint16"): 65535.0}.get(pixels.dtype, 1.0)
    return pixels.astype(np.float32) / top


def analyse(model, m_vars, pixels, quality):
    """uint8, uint16 or float [1, H, W, 3] -> y [1, H/16, W/16, M]."""
    cond = {"quality": quality}

    def run(m, x):
        return m.bottleneck.gained(m.f_E(x, cond), cond)

    return model.apply(m_vars, unit(pixels), method=run)


def synthesise(model, m_vars, y_hat, quality):
    """y_hat [1, h, w, M] -> float [1, 16 h, 16 w, 3], not clipped."""
    cond = {"quality": quality}

    def run(m, y_hat):
        return m.f_D(m.bottleneck.ungained(y_hat, cond), cond)

    return model.apply(m_vars, y_hat, method=run)


def paint(model, m_vars, y_hat, quality, flags):
    """y_hat [1, h, w, M] -> samples by the flags of a file: uint8 or uint16, [1, 16 h, 16 w, 3] or,
    gray, [1, 16 h, 16 w]."""
    x = jnp.clip(synthesise(model, m_vars, y_hat, quality), 0.0, 1.0)
    x = x.mean(-1) if flags & container.GRAY else x
    if flags & container.DEEP:
        return jnp.floor(x * 65535.0 + 0.5).astype(jnp.uint16)
    return jnp.floor(x * 255.0 + 0.5).astype(jnp.uint8)


def hyper_symbols(model, m_vars, y, mask, quality):
    """y of a padded tile -> symbols of z (z_hat - mean), int32 [h/2, w/2, N]; mask as z."""
    cond = {"quality": quality}

    def run(m, y):
        mean, level = m.bottleneck.z_prior(cond)
        s = jnp.floor(m.bottleneck.hyper_analysis(y, cond) - mean + 0.5)
        s = jnp.clip(s, -MAX_SYMBOL, MAX_SYMBOL) * (level > 0)
        return s[0].astype(jnp.int32) * mask

    return model.apply(m_vars, y, method=run)


def begin(model, m_vars, z_symbols, mask, quality):
    """Symbols of z [h/2, w/2, N] -> (features, base levels) for the passes of a tile."""
    cond = {"quality": quality}

    def run(m, s):
        mean, _ = m.bottleneck.z_prior(cond)
        z_hat = (s.astype(jnp.float32) + mean) * mask
        shape = (2 * s.shape[0], 2 * s.shape[1])
        return m.bottleneck.hyper_synthesis(z_hat, shape, cond), m.bottleneck.base_levels(cond)

    return model.apply(m_vars, z_symbols, method=run)


def z_levels(model, m_vars, quality):
    """Levels of z's channels, uint8 [N]."""

    def run(m):
        return m.bottleneck.z_prior({"quality": quality})[1][0, 0, 0].astype(jnp.uint8)

    return model.apply(m_vars, method=run)


def known(model, m_vars, features, earlier, i):
    """What both colours of slice i share."""

    def run(m):
        return m.bottleneck.known(i, features, earlier)

    return model.apply(m_vars, method=run)


def levels(model, m_vars, shared, base, own, i):
    """(mu [1, h, w, c], level uint8 [h, w, c]) of slice i; own: y_hat of the first colour, or
    None."""

    def run(m):
        start = sum(model.slices[:i])
        part = base[..., start : start + model.slices[i]]
        mu, level = m.bottleneck.parameters(i, shared, part, own)
        return mu, level[0].astype(jnp.uint8)

    return model.apply(m_vars, method=run)


def first_pass(model, m_vars, features, base, earlier, i):
    """The decoder's way into slice i: (shared, mu, level) of its first colour."""
    shared = known(model, m_vars, features, earlier, i)
    return shared, *levels(model, m_vars, shared, base, None, i)


def second_pass(model, m_vars, shared, base, mu, symbols, first, i):
    """With the first colour's symbols [h w, c]: (its y_hat, mu, level) of the second."""
    own = settled(jnp.zeros_like(mu), mu, symbols, first)
    return own, *levels(model, m_vars, shared, base, own, i)


def settled(own, mu, symbols, colour):
    """y_hat [1, h, w, c] of a slice with one colour more: symbols [h w, c] are zero elsewhere, and
    colour [h, w, 1] is 1 on it."""
    return own + (symbols.reshape(mu.shape).astype(jnp.float32) + mu) * colour


def symbols_of(model, m_vars, y, features, base, mask):
    """The encoder's side of all passes at once: y [1, h, w, M] -> (symbols int32, levels uint8,
    y_hat), each [h, w, M]; mask [h, w, 1] is 1 inside the tile."""
    first = nets.chequer(*y.shape[1:3]) * mask
    second = mask - first
    done, out, start = [], [], 0
    for i, size in enumerate(model.slices):
        own = y[..., start : start + size]
        shared = known(model, m_vars, features, done, i)
        hat = jnp.zeros_like(own)
        for colour, seen in ((first, None), (second, hat)):
            mu, level = levels(model, m_vars, shared, base, hat if seen is not None else None, i)
            s = jnp.floor(own - mu + 0.5)
            s = jnp.clip(s, -MAX_SYMBOL, MAX_SYMBOL) * (level > 0) * colour
            hat = hat + (s + mu) * colour
            if seen is None:
                kept = s, level
        s1, level1 = kept
        out.append((s1 + s, jnp.where(first > 0, level1, level), hat))
        done.append(hat)
        start += size
    s, level, hat = (jnp.concatenate(part, axis=-1) for part in zip(*out, strict=True))
    return s[0].astype(jnp.int32), level, hat


class Runtime:
    """The compiled parts of one frozen model.

    jit=False runs everything eagerly, which must give the same symbols.
    """

    def __init__(self, frozen: Frozen, jit: bool = True):
        self.frozen, self.model = frozen, frozen.model
        self.halos = reach(self.model.encoder), reach(self.model.decoder)
        self.variables = {"params": jax.tree.map(jnp.asarray, frozen.params)}

        def part(f, *static):
            call = functools.partial(f, self.model)
            return jax.jit(call, static_argnums=static) if jit else call

        self.analyse, self.synthesise = part(analyse), part(synthesise)
        self.paint = part(paint, 3)
        self.hyper_symbols, self.begin = part(hyper_symbols), part(begin)
        self.z_levels, self.symbols_of = part(z_levels), part(symbols_of)
        self.first_pass, self.second_pass = part(first_pass, 4), part(second_pass, 6)
        self.settled = jax.jit(settled) if jit else settled

    # --- one tile, symbols <-> chunks ---

    def encode_tile(self, y: np.ndarray, quality: int) -> tuple[list[Chunk], np.ndarray]:
        """y [h, w, M], h and w at most 96 -> (chunks, y_hat [h, w, M])."""
        h, w = y.shape[:2]
        q = as_quality(quality)
        shape, mask, z_mask = padded(h, w)
        full = np.zeros((1, *shape, y.shape[-1]), np.float32)
        full[0, :h, :w] = y
        z = np.asarray(self.hyper_symbols(self.variables, full, z_mask, q))
        features, base = self.begin(self.variables, z, z_mask, q)
        found = self.symbols_of(self.variables, full, features, base, mask)
        symbols, level, y_hat = (np.asarray(a) for a in found)
        zh, zw = half(h, w)
        z_level = np.asarray(self.z_levels(self.variables, q))
        parts = [(z[:zh, :zw].reshape(-1), np.tile(z_level, zh * zw))]
        rows = [
            (symbols.reshape(-1, y.shape[-1])[at], level.reshape(-1, y.shape[-1])[at])
            for at in colours(h, w, shape[1])
        ]
        chunks, start = [], 0
        for size in self.frozen.slices:
            for s, lv in rows:
                part = slice(start, start + size)
                parts.append((s[:, part].reshape(-1), lv[:, part].reshape(-1)))
            chunks.append(self._chunk(parts))
            parts, start = [], start + size
        return chunks, y_hat[0, :h, :w]

    def _chunk(self, parts) -> Chunk:
        if not any(s.any() for s, _ in parts):
            return Chunk(b"", 0)
        coder = Encoder(self.frozen.tables)
        for s, level in parts:
            coder.write(s, level)
        return Chunk(coder.bytes(), hash_of([s for s, _ in parts]))

    def decode_tile(
        self, chunks: list[Chunk], h: int, w: int, quality: int, name: str = "the stream"
    ) -> np.ndarray:
        """The chunks of a tile, fewer if the file was cut -> y_hat [h, w, M].

        Raises:
          CodecError: damaged, or these are not the symbols that were written.
        """
        q = as_quality(quality)
        shape, mask, z_mask = padded(h, w)
        zh, zw = half(h, w)
        z_level = np.asarray(self.z_levels(self.variables, q))
        places = colours(h, w, shape[1])
        first = np.zeros((shape[0] * shape[1], 1), np.float32)
        first[places[0]] = 1
        first = first.reshape(mask.shape)
        z = np.zeros((*z_mask.shape[:2], len(z_level)), np.int32)
        done: list[jax.Array] = []
        features = base = None
        for i, size in enumerate(self.frozen.slices):
            chunk = chunks[i] if i < len(chunks) else Chunk(b"", 0)
            coder = Decoder(self.frozen.tables, chunk.data) if chunk.data else None
            read = []

            def take(lv, coder=coder, read=read):
                if coder is None:
                    return np.zeros(lv.shape, np.int32)
                try:
                    read.append(coder.read(lv.reshape(-1)))
                except CodedWrong as e:
                    raise CodecError(f"{name} is damaged: {e}") from None
                return read[-1].reshape(lv.shape)

            def spread(level, at, take=take, size=size):
                """Reads one colour's symbols; where they belong they stand, [h w, c]."""
                symbols = np.zeros((shape[0] * shape[1], size), np.int32)
                symbols[at] = take(np.asarray(level).reshape(-1, size)[at])
                return symbols

            if i == 0:
                z[:zh, :zw] = take(np.broadcast_to(z_level, (zh, zw, len(z_level))))
                features, base = self.begin(self.variables, z, z_mask, q)
            shared, mu, level = self.first_pass(self.variables, features, base, tuple(done), i)
            s = spread(level, places[0])
            own, mu, level = self.second_pass(self.variables, shared, base, mu, s, first, i)
            s = spread(level, places[1])
            if coder is not None and hash_of(read) != chunk.symbols:
                raise CodecError(
                    f"{name} did not decode to the symbols that were written; it is damaged, or "
                    "this machine does not compute integers exactly"
                )
            done.append(self.settled(own, mu, s, mask - first))
        return np.concatenate([np.asarray(y_hat)[0, :h, :w] for y_hat in done], axis=-1)

    # --- pixels <-> latents ---

    def latents(self, pixels: np.ndarray, tile, header: Header) -> np.ndarray:
        """y [h, w, M] of one tile of the image [H, W, 3]."""
        out = np.empty((*tile[2:], sum(self.frozen.slices)), np.float32)
        q = as_quality(header.quality)
        for (i, j, h, w), (top, rows), (left, cols) in cores(tile, header.grid, self.halos[0]):
            part = pixels[top * STRIDE :, left * STRIDE :][: rows * STRIDE, : cols * STRIDE]
            pad = (rows * STRIDE - part.shape[0], cols * STRIDE - part.shape[1])
            part = np.pad(part, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
            y = np.asarray(self.analyse(self.variables, part[None], q))[0]
            at = out[i - tile[0] :, j - tile[1] :][:h, :w]
            at[...] = y[i - top :, j - left :][:h, :w]
        return out

    def pixels(self, y_hat: np.ndarray, row: int, tile, header: Header) -> np.ndarray:
        """Samples of one tile as the header's flags have them, [16 h, 16 w, 3] or [16 h, 16 w];
        y_hat holds whole rows of latents from `row` on."""
        flags, gh = header.flags & (container.GRAY | container.DEEP), header.grid[0]
        shape = (tile[2] * STRIDE, tile[3] * STRIDE)
        out = np.empty(
            shape if flags & container.GRAY else (*shape, 3),
            np.uint16 if flags & container.DEEP else np.uint8,
        )
        q = as_quality(header.quality)
        for (i, j, h, w), (top, rows), (left, cols) in cores(tile, header.grid, self.halos[1]):
            part = y_hat[top - row : min(top + rows, gh) - row, left : left + cols]
            pad = (rows - part.shape[0], cols - part.shape[1])
            part = np.pad(part, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
            x = np.asarray(self.paint(self.variables, part[None], q, flags))[0]
            at = out[(i - tile[0]) * STRIDE :, (j - tile[1]) * STRIDE :]
            x = x[(i - top) * STRIDE :, (j - left) * STRIDE :][: h * STRIDE, : w * STRIDE]
            at[: h * STRIDE, : w * STRIDE] = x
        return out


def hash_of(parts: list[np.ndarray]) -> int:
    """crc16 of symbols as little-endian int32."""
    return container.crc16(np.concatenate(parts).astype("<i4").tobytes() if parts else b"")


def colours(h: int, w: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the two colours of an h x w chequerboard stand in rows of `row` positions."""
    at = np.arange(h)[:, None] * row + np.arange(w)
    odd = (np.arange(h)[:, None] + np.arange(w)) % 2 == 1
    return at[~odd], at[odd]


def as_quality(byte: int) -> np.ndarray:
    """[1]: the quality 0 to 100 of the byte in the header."""
    return np.array([byte / 2.55], np.float32)


def half(h: int, w: int) -> tuple[int, int]:
    """The size of z for a y of h x w."""
    return -(-h // 2), -(-w // 2)


def padded(h: int, w: int):
    """(shape, mask of y, mask of z) of the tile in which an h x w one is computed."""
    shape = fit(h, SHAPES), fit(w, SHAPES)
    mask = np.zeros((*shape, 1), np.float32)
    mask[:h, :w] = 1
    z_mask = np.zeros((shape[0] // 2, shape[1] // 2, 1), np.int32)
    zh, zw = half(h, w)
    z_mask[:zh, :zw] = 1
    return shape, mask, z_mask
