"""Runs a frozen lossless model: tiles of integers <-> chunks of a file.

A tile has levels (nets.py), until both sides are at most COARSEST. The first chunk holds the
samples of the last level, uncompressed; each following one a level, from coarse to fine, given the
one before: three passes, and in each Y, then Co, then Cg. The networks compute on grids of a few
fixed sizes, padded by repeating the edges of the planes. The padding affects the predictions, so it
is part of the format.
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
from aejax.codec.lossless.mixture import Decoder, Encoder, Mixture
from aejax.codec.range_coder import CorruptStream
from aejax.codec.windows import fit
from aejax.types import Variables
from aejax.weights import Metadata

Code = Callable[[Mixture, np.ndarray], np.ndarray]

TILE = 512  # pixels per side
SIDES = (16, 64, 128, 256)  # sides of a padded plane
COARSEST = 8  # largest side of the last level


def count_levels(height: int, width: int) -> int:
    """The number of levels of a tile that are predicted: all but the last one.

    >>> count_levels(512, 300)
    6
    """
    n = 0
    while max(height, width) > COARSEST:
        height, width, n = -(-height // 2), -(-width // 2), n + 1
    return n


@dataclasses.dataclass(frozen=True)
class Weights:
    """A frozen model: kernels and biases are integers times powers of two.

    Attributes:
      params: of nets.Lossless(frozen=True).
      fields: attributes of the Lossless.
      meta: where the weights come from.
    """

    params: Params
    fields: Fields
    meta: Metadata = dataclasses.field(default_factory=Metadata)

    @functools.cached_property
    def id(self) -> bytes:
        """The model id in the header of files, 4 bytes: a hash of fields and weights."""
        return digest_of(self.fields, self.params).digest()[:4]

    @functools.cached_property
    def model(self) -> nets.Lossless:
        """The Flax module."""
        return nets.Lossless(**as_fields(self.fields), frozen=True)


# --- compiled parts -------------------------------------------------------------------------------


def features(model: nets.Lossless, variables: Variables, planes, kind, i: int):
    """(features [1, h, w, n], base [1, h, w, 3]) of pass i; arguments as of `Pass.features`."""

    def run(m):
        base = nets.base_of(planes, i)
        return m.passes[i].features(planes, base, kind), base

    return model.apply(variables, method=run)


def parameters(model: nets.Lossless, variables: Variables, u, base, earlier_samples, i: int):
    """The mixtures of channel c of pass i, int32 [3, K, h, w]: positions in 1/16, numbers of
    scales, log2 weights in quarters.

    Args:
      u, base: of `features`.
      earlier_samples: of the channels before c, [1, h, w, c].
    """

    def run(m):
        channels = range(earlier_samples.shape[-1])
        earlier = [earlier_samples[..., c] - base[..., c] for c in channels]
        position, scale, weight = m.passes[i].parameters(u, base, earlier)
        mixture = jnp.stack([position * 16.0, scale, weight / nets.WEIGHT_UNIT])
        return jnp.moveaxis(mixture[:, 0], -1, 1).astype(jnp.int32)

    return model.apply(variables, method=run)


def padded_plane(plane: np.ndarray, shape: tuple[int, int], k: np.ndarray) -> np.ndarray:
    """A plane [h, w, 3] padded to [1, *shape, 3] by repeating its edges; k in place of an empty
    one."""
    plane = plane if plane.size else k
    pad = ((0, shape[0] - plane.shape[0]), (0, shape[1] - plane.shape[1]), (0, 0))
    return np.pad(plane, pad, mode="edge").astype(np.float32)[None]


class Runtime:
    """The compiled functions of one frozen model, and the coding of tiles.

    Args:
      weights: the model.
      jit: False runs all functions eagerly, with the same integers as a result.
    """

    def __init__(self, weights: Weights, jit: bool = True):
        self.weights, model = weights, weights.model
        self.variables = {"params": jax.tree.map(jnp.asarray, weights.params)}

        def compiled(function: Callable, *static: int) -> Callable:
            of_model = functools.partial(function, model)
            return jax.jit(of_model, static_argnums=static) if jit else of_model

        self.features, self.parameters = compiled(features, 3), compiled(parameters, 4)

    def _code_level(self, planes: list[np.ndarray], level: int, gray: bool, code: Code) -> None:
        """Encodes or decodes the samples of one level in order.

        Args:
          planes: k, t0, t1, t2, int32 [h, w, 3] each; what `code` returns is written into the last
            three.
          level: its number.
          gray: code only Y.
          code: (mixtures, samples int32 [n], which the decoder ignores) -> samples.
        """
        k = planes[0]
        shape = fit(k.shape[0], SIDES), fit(k.shape[1], SIDES)
        kind = np.int32(min(level, nets.KINDS - 1))
        known = [padded_plane(k, shape, k)]
        for i in range(3):
            target = planes[i + 1]
            h, w = target.shape[:2]
            if target.size:
                u, base = self.features(self.variables, tuple(known), kind, i)
                padded = np.zeros((1, *shape, 3), np.float32)  # the samples coded so far
                for c in range(1 if gray else 3):
                    earlier = padded[..., :c].copy()
                    mixture = np.asarray(self.parameters(self.variables, u, base, earlier, i))
                    position, scale, weight = mixture[:, :, :h, :w].reshape(3, nets.K, -1)
                    x = code(Mixture.of(position, scale, weight, c), target[..., c].reshape(-1))
                    target[..., c] = x.reshape(h, w)
                    padded[0, :h, :w, c] = target[..., c]
            known.append(padded_plane(target, shape, k))

    def encode_tile(self, ycc: np.ndarray, gray: bool) -> list[Chunk]:
        """Y, Co, Cg of a tile, int32 [h, w, 3], at most TILE x TILE -> its chunks; gray: code only
        Y, since Co and Cg are zero."""
        levels = [ycc]
        for _ in range(count_levels(*ycc.shape[:2])):
            levels.append(levels[-1][::2, ::2])
        coarse = packed(levels[-1], gray)
        chunks = [Chunk(coarse, container.crc16(coarse))]
        for n in reversed(range(len(levels) - 1)):
            coder, coded = Encoder(), []

            def code(mixture, x, coder=coder, coded=coded):
                coder.write(x, mixture)
                coded.append(x)
                return x

            planes = [levels[n][i::2, j::2].copy() for i, j in nets.PARITY]
            self._code_level(planes, n, gray, code)
            chunks.append(Chunk(coder.bytes() or b"\0", hash_of(coded)))
        return chunks

    def decode_tile(
        self, chunks: list[Chunk], h: int, w: int, gray: bool, name: str = "the stream"
    ) -> np.ndarray:
        """The chunks of a tile -> Y, Co, Cg, int32 [h, w, 3]. Levels without a chunk, in truncated
        files, are interpolated.

        Args:
          name: of the tile, for errors.

        Raises:
          CodecError: a chunk is damaged, or the decoded samples are not those that were written.
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
        """Fills t0, t1, t2 of level n; planes: as of `_code_level`."""
        coder, decoded = Decoder(chunk.data), []

        def code(mixture, _):
            decoded.append(coder.read(mixture))
            return decoded[-1]

        try:
            self._code_level(planes, n, gray, code)
        except CorruptStream as e:
            raise CodecError(f"{name} is damaged: {e}") from None
        if hash_of(decoded) != chunk.symbols:
            raise CodecError(
                f"{name} did not decode to the samples that were written; it is damaged, or "
                "this machine does not compute integers exactly"
            )


def hash_of(samples: list[np.ndarray]) -> int:
    """crc16 of samples as little-endian int16."""
    return container.crc16(np.concatenate(samples).astype("<i2").tobytes() if samples else b"")


def packed(ycc: np.ndarray, gray: bool) -> bytes:
    """The samples of the last level, uncompressed: RGB, or Y if gray, a byte each."""
    return (ycc[..., 0] if gray else nets.rgb(ycc)).astype(np.uint8).tobytes()


def unpacked(data: bytes, h: int, w: int, gray: bool, name: str) -> np.ndarray:
    """The inverse of `packed`.

    Raises:
      CodecError: the data have another size.
    """
    if len(data) != h * w * (1 if gray else 3):
        raise CodecError(f"{name} is damaged: its first chunk has a wrong size")
    samples = np.frombuffer(data, np.uint8).astype(np.int32)
    if not gray:
        return np.asarray(nets.ycocg(samples.reshape(h, w, 3)))
    return np.stack([samples.reshape(h, w)] + 2 * [np.zeros((h, w), np.int32)], -1)


def interpolate(planes: list[np.ndarray]) -> None:
    """Fills t0, t1, t2 with the means of the nearest samples; planes: as of `_code_level`."""
    k = planes[0]
    known = [k.astype(np.float32)[None]]
    for i in range(3):
        target = planes[i + 1]
        h, w = target.shape[:2]
        mean = np.floor(np.asarray(nets.base_of(known, i))[0] + 0.5)
        target[...] = mean[:h, :w]
        known.append(mean[None])
