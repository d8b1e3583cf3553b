"""Lossless coding without a network, for drawings, screenshots, scans of text: a palette if there
are few colours, predictors like PNG's, deflate.

The content begins with a byte: 0 rows of samples, 1 a palette and rows of indices.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from aejax.codec.errors import CodecError

FILTERS = 5
# What is tried for a whole image: a filter (None: by row) and deflate's strategy.
CHOICES = (
    (0, zlib.Z_DEFAULT_STRATEGY),
    (None, zlib.Z_DEFAULT_STRATEGY),
    (None, zlib.Z_FILTERED),
    (2, zlib.Z_FILTERED),
    (4, zlib.Z_FILTERED),
)
COLOURS = 256
STRIP = 64  # rows at a time


def _rows(image: np.ndarray) -> np.ndarray:
    """Bytes of each row, uint8 [h, n]; 16 bits: high byte first."""
    data = image.astype(">u2").view(np.uint8) if image.dtype == np.uint16 else image
    return np.ascontiguousarray(data).reshape(len(image), -1)


def _paeth(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """PNG's predictor of left a, above b, above left c; int16."""
    pa, pb, pc = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))


def _predicted(rows: np.ndarray, above: np.ndarray, bpp: int) -> np.ndarray:
    """All of PNG's predictions of bytes [h, n] below the row `above`: uint8 [5, h, n]."""
    x = rows.astype(np.int16)
    left, up, corner = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    up[0], up[1:] = above, x[:-1]
    left[:, bpp:], corner[:, bpp:] = x[:, :-bpp], up[:, :-bpp]
    guesses = (np.zeros_like(x), left, up, (left + up) >> 1, _paeth(left, up, corner))
    return np.stack(guesses).astype(np.uint8)


def filtered(
    rows: np.ndarray, above: np.ndarray, bpp: int, kinds: Sequence[int | None]
) -> list[bytes]:
    """Rows as PNG filters them, each behind the number of its filter, by each of `kinds`: a filter,
    or None for the one whose sum of sizes is smallest in each row."""
    rest = rows - _predicted(rows, above, bpp)
    size = np.abs(rest.view(np.int8).astype(np.int16)).sum(2, dtype=np.int64)
    out = []
    for kind in kinds:
        chosen = size.argmin(0) if kind is None else np.full(len(rows), kind)
        differences = rest[chosen, np.arange(len(rows))]
        rows_of_kind = np.concatenate([chosen[:, None].astype(np.uint8), differences], 1)
        out.append(rows_of_kind.tobytes())
    return out


def unfiltered(data: bytes, h: int, n: int, bpp: int) -> np.ndarray:
    """The inverse of `filtered`: uint8 [h, n].

    Raises:
      CodecError: it is damaged.
    """
    if len(data) != h * (n + 1):
        raise CodecError("the pixels do not fit the image; the file is damaged")
    rows = np.frombuffer(data, np.uint8).reshape(h, n + 1)
    if h and rows[:, 0].max() >= FILTERS:
        raise CodecError("an unknown filter; the file is damaged")
    out = rows[:, 1:].copy()
    above = np.zeros(n, np.uint8)
    for kind, row in zip(rows[:, 0], out, strict=True):
        if kind == 1:
            row.reshape(-1, bpp)[...] = np.cumsum(row.reshape(-1, bpp), 0, dtype=np.uint8)
        elif kind == 2:
            row += above
        elif kind > 2:
            _sequential(row, above, bpp, int(kind))
        above = row
    return out


def _sequential(row: np.ndarray, above: np.ndarray, bpp: int, kind: int) -> None:
    """Undoes "average" and "Paeth", which need the byte before."""
    x, up = row.tolist(), above.tolist()
    for i in range(len(x)):
        a, c = (x[i - bpp], up[i - bpp]) if i >= bpp else (0, 0)
        b = up[i]
        if kind == 3:
            guess = (a + b) >> 1
        else:
            pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
            guess = a if pa <= pb and pa <= pc else b if pb <= pc else c
        x[i] = (x[i] + guess) & 255
    row[...] = x


def _smallest(strips: Iterable[np.ndarray], bpp: int) -> bytes:
    """Strips of rows, deflated under the best of the CHOICES."""
    kinds = [kind for kind, _ in CHOICES]
    coders = [zlib.compressobj(9, zlib.DEFLATED, 15, 9, strategy) for _, strategy in CHOICES]
    coded: list[list[bytes]] = [[] for _ in CHOICES]
    above = None
    for rows in strips:
        above = np.zeros_like(rows[0]) if above is None else above
        for coder, parts, data in zip(
            coders, coded, filtered(rows, above, bpp, kinds), strict=True
        ):
            parts.append(coder.compress(data))
        above = rows[-1]
    return min((b"".join([*p, c.flush()]) for p, c in zip(coded, coders, strict=True)), key=len)


def bits_of(colours: int) -> int:
    """Bits of an index into a palette."""
    return next(b for b in (1, 2, 4, 8) if colours <= 1 << b)


def _strips(image: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(image), STRIP):
        yield image[start : start + STRIP]


def encode(image: np.ndarray) -> bytes:
    """uint8 or uint16 [h, w, c] -> bytes."""
    bpp = image.shape[2] * image.dtype.itemsize
    bodies = [b"\0" + _smallest(map(_rows, _strips(image)), bpp)]
    palette = _palette(image, bpp)
    if palette is not None:
        bodies.append(b"\1" + _indexed(image, palette, bpp))
    return min(bodies, key=len)


def estimate(image: np.ndarray) -> float:
    """Bytes per byte of an image, by a quick look at its middle."""
    h, w = image.shape[:2]
    top, left = max(0, (h - 256) // 2), max(0, (w - 256) // 2)
    rows = _rows(image[top : top + 256, left : left + 256])
    bpp = image.shape[2] * image.dtype.itemsize
    data = filtered(rows, np.zeros_like(rows[0]), bpp, [None])[0]
    return len(zlib.compress(data, 1)) / len(data)


def _keys(image: np.ndarray, bpp: int) -> np.ndarray:
    """The bytes of each pixel as one number, uint64 [h, w]."""
    keys = np.zeros(image.shape[:2], np.uint64)
    for column in np.moveaxis(_rows(image).reshape(*image.shape[:2], bpp), -1, 0):
        keys = keys << np.uint64(8) | column
    return keys


def _palette(image: np.ndarray, bpp: int) -> np.ndarray | None:
    """The colours in order, if they are few."""
    colours = np.zeros(0, np.uint64)
    for strip in _strips(image):
        colours = np.union1d(colours, _keys(strip, bpp))
        if len(colours) > COLOURS:
            return None
    return colours


def _indexed(image: np.ndarray, palette: np.ndarray, bpp: int) -> bytes:
    """Number of colours - 1, the colours, then the deflated rows of indices."""
    bits = bits_of(len(palette))
    colours = palette.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - bpp :]

    def packed(strip):
        return _packed(np.searchsorted(palette, _keys(strip, bpp)).astype(np.uint8), bits)

    return bytes([len(palette) - 1]) + colours.tobytes() + _smallest(map(packed, _strips(image)), 1)


def _packed(index: np.ndarray, bits: int) -> np.ndarray:
    """Indices [h, w] -> bytes [h, ceil(w bits / 8)], the leftmost in the highest bits."""
    digits = np.unpackbits(index[..., None], axis=2)[..., 8 - bits :]
    return np.packbits(digits.reshape(len(index), -1), axis=1)


def _inflate(data: bytes, size: int, cut: bool) -> bytes:
    coder = zlib.decompressobj()
    try:
        content = coder.decompress(data, size + 1)
    except zlib.error:
        raise CodecError("the pixels are damaged") from None
    rest = not coder.eof or bool(coder.unused_data)
    if len(content) > size or not cut and (len(content) < size or rest):
        raise CodecError("the pixels do not fit the image; the file is damaged")
    return content


def decode(data: bytes, shape: tuple[int, int, int], dtype, cut: bool = False) -> np.ndarray:
    """The image [h, w, c] of `encode`.

    Args:
      cut: the data may end early; the rows that are not there are mid-gray.

    Raises:
      CodecError: it is damaged.
    """
    h, w, c = shape
    bpp = c * np.dtype(dtype).itemsize
    kind, n, start, palette = 0, w * bpp, 1, None
    if data and data[0]:
        count = data[1] + 1 if len(data) > 1 else 0
        kind, start = data[0], 2 + count * bpp
        if kind > 1 or not cut and not count:
            raise CodecError("the pixels are damaged")
        palette, n = np.frombuffer(data[2:start], np.uint8), -(-w * bits_of(max(count, 1)) // 8)
        if len(palette) < count * bpp:
            data = b""
    content = _inflate(data[start:], h * (n + 1), cut) if data[start:] or not cut else b""
    whole = len(content) // (n + 1)
    rows = unfiltered(content[: whole * (n + 1)], whole, n, 1 if kind else bpp)
    if palette is not None and kind and whole:
        rows = _coloured(rows, palette.reshape(-1, bpp), w)
    if np.dtype(dtype) == np.uint16:
        rows = np.ascontiguousarray(rows).view(">u2").astype(np.uint16)
    out = np.full(shape, 1 << (8 * np.dtype(dtype).itemsize - 1), dtype)
    out[:whole] = rows.reshape(whole, w, c)
    return out


def _coloured(packed: np.ndarray, palette: np.ndarray, width: int) -> np.ndarray:
    """Rows of packed indices -> rows of the palette's bytes."""
    bits = bits_of(len(palette))
    digits = np.unpackbits(packed, axis=1)[:, : width * bits].reshape(len(packed), width, bits)
    index = np.zeros(digits.shape[:2], np.uint8)
    for digit in np.moveaxis(digits, -1, 0):
        index = index << 1 | digit
    if index.max() >= len(palette):
        raise CodecError("a colour that is not in the palette; the file is damaged")
    return palette[index].reshape(len(packed), -1)
