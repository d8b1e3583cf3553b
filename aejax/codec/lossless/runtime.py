"""Frozen networks at work: tiles of whole numbers <-> chunks.

A tile has levels: level 0 is the tile, each next one the even rows and columns of the one before,
until both sides are at most COARSEST. Chunk 0 holds the samples of the last level as they are; the
others, from coarse to fine, what each level has beyond the next: three passes, and in each Y, then
Co, then Cg. The networks compute on grids of a few fixed sizes; what pads them is part of the
format, as they look at neighbours: planes repeat their edges.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from aejax.codec import container
from aejax.codec.container import Chunk
from aejax.codec.errors import CodecError
from aejax.codec.frozen import Fields, Params, as_fields, digest_of
from aejax.codec.lossless import nets
from aejax.codec.lossless.mixture import CodedWrong, Decoder, Encoder, Mixture
from aejax.codec.windows import fit
from aejax.weights import Metadata

TILE = 512  # pixels per side
SIDES = (16, 64, 128, 256)  # of a padded grid of positions
COARSEST = 8


def count_levels(height: int, width: int) -> int:
    """How many levels of a tile are predicted."""
    n = 0
    while max(height, width) > COARSEST:
        height, width, n = -(-height // 2), -(-width // 2), n + 1
    return n


@dataclasses.dataclass(frozen=True)
class Weights:
    """A model whose kernels and biases are integers times powers of two, and who it is.

    Attributes:
      params: of nets.Lossless(frozen=True).
      fields: its attributes.
      meta: where they came from.
    """

    params: Params
    fields: Fields
    meta: Metadata = dataclasses.field(default_factory=Metadata)

    @functools.cached_property
    def id(self) -> bytes:
        """4 bytes that a stream carries: of all weights and the fields."""
        return digest_of(self.fields, self.params).digest()[:4]

    @functools.cached_property
    def model(self) -> nets.Lossless:
        """The Flax module."""
        return nets.Lossless(**as_fields(self.fields), frozen=True)


# --- compiled parts -------------------------------------------------------------------------------


def features(model, m_vars, planes, kind, i):
    """Known planes [1, h, w, 3] of pass i -> (features [1, h, w, n], base [1, h, w, 3])."""

    def run(m):
        base = nets.base_of(planes, i)
        return m.passes[i].features(planes, base, kind), base

    return model.apply(m_vars, method=run)


def parameters(model, m_vars, u, base, before, i):
    """int32 [3, K, h, w]: positions in 1/16, scales' numbers, log2 weights in quarters of the
    channel that comes after `before`, the samples [1, h, w, c] of the channels before it."""

    def run(m):
        earlier = [before[..., c] - base[..., c] for c in range(before.shape[-1])]
        at, scale, weight = m.passes[i].parameters(u, base, earlier)
        mixture = jnp.stack([at * 16.0, scale, weight / nets.WEIGHT_UNIT])
        return jnp.moveaxis(mixture[:, 0], -1, 1).astype(jnp.int32)

    return model.apply(m_vars, method=run)


def filled(plane: np.ndarray, shape: tuple[int, int], k: np.ndarray) -> np.ndarray:
    """A plane [h, w, 3] as the networks take it, [1, *shape, 3]: its edges repeated. One without
    samples is taken to be as k."""
    plane = plane if plane.size else k
    pad = ((0, shape[0] - plane.shape[0]), (0, shape[1] - plane.shape[1]), (0, 0))
    return np.pad(plane, pad, mode="edge").astype(np.float32)[None]


class Runtime:
    """The compiled parts of one frozen model. jit=False runs everything eagerly, which must give
    the same integers."""

    def __init__(self, weights: Weights, jit: bool = True):
        self.weights, model = weights, weights.model
        self.variables = {"params": jax.tree.map(jnp.asarray, weights.params)}

        def part(f, *static):
            call = functools.partial(f, model)
            return jax.jit(call, static_argnums=static) if jit else call

        self.features, self.parameters = part(features, 3), part(parameters, 4)

    def _level(self, planes: list[np.ndarray], level: int, gray: bool, code: Callable) -> None:
        """Walks through the samples of one level, and writes what `code` gives into `planes`.

        Args:
          planes: k, t0, t1, t2, int32 [h, w, 3] each.
          code: (mixture, samples as they stand in `planes`, int32 [n]) -> the samples.
        """
        k = planes[0]
        shape = fit(k.shape[0], SIDES), fit(k.shape[1], SIDES)
        kind = np.int32(min(level, nets.KINDS - 1))
        known = [filled(k, shape, k)]
        for i in range(3):
            target = planes[i + 1]
            h, w = target.shape[:2]
            if target.size:
                u, base = self.features(self.variables, tuple(known), kind, i)
                whole = np.zeros((1, *shape, 3), np.float32)
                for c in range(1 if gray else 3):
                    before = whole[..., :c].copy()
                    mixture = np.asarray(self.parameters(self.variables, u, base, before, i))
                    at, scale, weight = mixture[:, :, :h, :w].reshape(3, nets.K, -1)
                    x = code(Mixture.of(at, scale, weight, c), target[..., c].reshape(-1))
                    target[..., c] = x.reshape(h, w)
                    whole[0, :h, :w, c] = target[..., c]
            known.append(filled(target, shape, k))

    def encode_tile(self, ycc: np.ndarray, gray: bool) -> list[Chunk]:
        """int32 [h, w, 3], at most TILE x TILE; gray: only Y is coded, the rest is zero."""
        levels = [ycc]
        for _ in range(count_levels(*ycc.shape[:2])):
            levels.append(levels[-1][::2, ::2])
        coarse = packed(levels[-1], gray)
        chunks = [Chunk(coarse, container.crc16(coarse))]
        for n in reversed(range(len(levels) - 1)):
            coder, digest = Encoder(), []

            def code(mixture, x, coder=coder, digest=digest):
                coder.write(x, mixture)
                digest.append(x)
                return x

            planes = [levels[n][i::2, j::2].copy() for i, j in nets.PARITY]
            self._level(planes, n, gray, code)
            chunks.append(Chunk(coder.bytes() or b"\0", hash_of(digest)))
        return chunks

    def decode_tile(
        self, chunks: list[Chunk], h: int, w: int, gray: bool, name: str = "the stream"
    ) -> np.ndarray:
        """The chunks of a tile, fewer if the file was cut -> int32 [h, w, 3]. What is not there
        is interpolated.

        Raises:
          CodecError: damaged, or these are not the samples that were written.
        """
        sizes = [(h, w)]
        for _ in range(count_levels(h, w)):
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        if not chunks:
            return np.broadcast_to(np.array([128, 0, 0], np.int32), (h, w, 3)).copy()
        x = unpacked(chunks[0].data, *sizes[-1], gray, name)
        for number, n in enumerate(reversed(range(len(sizes) - 1)), 1):
            finer = np.zeros((*sizes[n], 3), np.int32)
            finer[::2, ::2] = x
            planes = [finer[i::2, j::2] for i, j in nets.PARITY]
            if number < len(chunks):
                self._decode_level(planes, n, gray, chunks[number], name)
            else:
                interpolate(planes)
            x = finer
        return x

    def _decode_level(self, planes, n: int, gray: bool, chunk: Chunk, name: str) -> None:
        coder, digest = Decoder(chunk.data), []

        def code(mixture, _):
            digest.append(coder.read(mixture))
            return digest[-1]

        try:
            self._level(planes, n, gray, code)
        except CodedWrong as e:
            raise CodecError(f"{name} is damaged: {e}") from None
        if hash_of(digest) != chunk.symbols:
            raise CodecError(
                f"{name} did not decode to the samples that were written; it is damaged, or "
                "this machine does not compute integers exactly"
            )


def hash_of(parts: list[np.ndarray]) -> int:
    """crc16 of samples as little-endian int16."""
    return container.crc16(np.concatenate(parts).astype("<i2").tobytes() if parts else b"")


def packed(ycc: np.ndarray, gray: bool) -> bytes:
    """The samples of the coarsest level as they are: Y or RGB, a byte each."""
    return (ycc[..., 0] if gray else nets.rgb(ycc)).astype(np.uint8).tobytes()


def unpacked(data: bytes, h: int, w: int, gray: bool, name: str) -> np.ndarray:
    """The inverse of `packed`."""
    if len(data) != h * w * (1 if gray else 3):
        raise CodecError(f"{name} is damaged: its coarsest samples are not as many as they must be")
    samples = np.frombuffer(data, np.uint8).astype(np.int32)
    if not gray:
        return np.asarray(nets.ycocg(samples.reshape(h, w, 3)))
    return np.stack([samples.reshape(h, w)] + 2 * [np.zeros((h, w), np.int32)], -1)


def interpolate(planes: list[np.ndarray]) -> None:
    """Fills t0, t1, t2 with the mean of the nearest samples."""
    k = planes[0]
    known = [k.astype(np.float32)[None]]
    for i in range(3):
        target = planes[i + 1]
        h, w = target.shape[:2]
        mean = np.floor(np.asarray(nets.base_of(known, i))[0] + 0.5)
        target[...] = mean[:h, :w]
        known.append(mean[None])
