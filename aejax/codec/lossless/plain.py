"""Lossless coding without a network, for drawings, screenshots and scans of text: the filters of
PNG (ISO/IEC 15948) and deflate, with a palette if there are few colours.

The first byte of the content is 0 (rows of samples) or 1 (a palette and rows of indices).
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from aejax.codec.errors import CodecError

FILTERS = 5  # none, sub, up, average, Paeth
# What is tried on an image: (filter, or None to choose one per row; strategy of deflate).
CHOICES = (
    (0, zlib.Z_DEFAULT_STRATEGY),
    (None, zlib.Z_DEFAULT_STRATEGY),
    (None, zlib.Z_FILTERED),
    (2, zlib.Z_FILTERED),
    (4, zlib.Z_FILTERED),
)
COLOURS = 256  # of a palette, at most
STRIP = 64  # rows that are processed at a time, which bounds the memory


def _rows(image: np.ndarray) -> np.ndarray:
    """The bytes of each row, uint8 [h, n]; 16-bit samples have the high byte first."""
    data = image.astype(">u2").view(np.uint8) if image.dtype == np.uint16 else image
    return np.ascontiguousarray(data).reshape(len(image), -1)


def _paeth(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The Paeth predictor of left a, above b and above left c, int16."""
    pa, pb, pc = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))


def _predicted(rows: np.ndarray, above: np.ndarray, bpp: int) -> np.ndarray:
    """The predictions of all filters, uint8 [FILTERS, h, n].

    Args:
      rows: bytes [h, n].
      above: the row before them [n].
      bpp: bytes per pixel.
    """
    x = rows.astype(np.int16)
    left, up, corner = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    up[0], up[1:] = above, x[:-1]
    left[:, bpp:], corner[:, bpp:] = x[:, :-bpp], up[:, :-bpp]
    predictions = (np.zeros_like(x), left, up, (left + up) >> 1, _paeth(left, up, corner))
    return np.stack(predictions).astype(np.uint8)


def filtered(
    rows: np.ndarray, above: np.ndarray, bpp: int, kinds: Sequence[int | None]
) -> list[bytes]:
    """Filtered rows, each after a byte with the number of its filter; one result for each of
    `kinds`.

    Args:
      rows, above, bpp: as of `_predicted`.
      kinds: a filter for all rows, or None for the filter with the smallest sum of absolute
        differences in each row.
    """
    residuals = rows - _predicted(rows, above, bpp)
    size = np.abs(residuals.view(np.int8).astype(np.int16)).sum(2, dtype=np.int64)
    results = []
    for kind in kinds:
        chosen = size.argmin(0) if kind is None else np.full(len(rows), kind)
        differences = residuals[chosen, np.arange(len(rows))]
        with_numbers = np.concatenate([chosen[:, None].astype(np.uint8), differences], 1)
        results.append(with_numbers.tobytes())
    return results


def unfiltered(data: bytes, h: int, n: int, bpp: int) -> np.ndarray:
    """The inverse of `filtered` for an image without rows above: uint8 [h, n].

    Raises:
      CodecError: the data are damaged.
    """
    if len(data) != h * (n + 1):
        raise CodecError("the pixel data do not fit the image; the file is damaged")
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
    """Undoes the filters average (3) and Paeth (4) in place; they depend on the byte to the
    left."""
    x, up = row.tolist(), above.tolist()
    for i in range(len(x)):
        a, c = (x[i - bpp], up[i - bpp]) if i >= bpp else (0, 0)
        b = up[i]
        if kind == 3:
            prediction = (a + b) >> 1
        else:
            pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
            prediction = a if pa <= pb and pa <= pc else b if pb <= pc else c
        x[i] = (x[i] + prediction) & 255
    row[...] = x


def _smallest(strips: Iterable[np.ndarray], bpp: int) -> bytes:
    """Strips of rows, filtered and deflated with the best of CHOICES."""
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
    """Bits per index of a palette of so many colours."""
    return next(b for b in (1, 2, 4, 8) if colours <= 1 << b)


def _strips(image: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(image), STRIP):
        yield image[start : start + STRIP]


def encode(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 or uint16 [h, w, c]."""
    bpp = image.shape[2] * image.dtype.itemsize
    bodies = [b"\0" + _smallest(map(_rows, _strips(image)), bpp)]
    palette = _palette(image, bpp)
    if palette is not None:
        bodies.append(b"\1" + _indexed(image, palette, bpp))
    return min(bodies, key=len)


def estimate(image: np.ndarray) -> float:
    """Estimated size after deflate as a fraction of the image's bytes, from its middle 256x256."""
    h, w = image.shape[:2]
    top, left = max(0, (h - 256) // 2), max(0, (w - 256) // 2)
    rows = _rows(image[top : top + 256, left : left + 256])
    bpp = image.shape[2] * image.dtype.itemsize
    data = filtered(rows, np.zeros_like(rows[0]), bpp, [None])[0]
    return len(zlib.compress(data, 1)) / len(data)


def _keys(image: np.ndarray, bpp: int) -> np.ndarray:
    """The bytes of each pixel as one integer, uint64 [h, w]."""
    keys = np.zeros(image.shape[:2], np.uint64)
    for column in np.moveaxis(_rows(image).reshape(*image.shape[:2], bpp), -1, 0):
        keys = keys << np.uint64(8) | column
    return keys


def _palette(image: np.ndarray, bpp: int) -> np.ndarray | None:
    """The colours of the image as sorted keys, uint64; None if there are more than COLOURS."""
    colours = np.zeros(0, np.uint64)
    for strip in _strips(image):
        colours = np.union1d(colours, _keys(strip, bpp))
        if len(colours) > COLOURS:
            return None
    return colours


def _indexed(image: np.ndarray, palette: np.ndarray, bpp: int) -> bytes:
    """Content of kind 1 after its first byte: number of colours - 1, the colours, deflated rows of
    indices."""
    bits = bits_of(len(palette))
    colours = palette.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - bpp :]

    def packed(strip):
        return _packed(np.searchsorted(palette, _keys(strip, bpp)).astype(np.uint8), bits)

    return bytes([len(palette) - 1]) + colours.tobytes() + _smallest(map(packed, _strips(image)), 1)


def _packed(index: np.ndarray, bits: int) -> np.ndarray:
    """Indices [h, w] -> bytes [h, ceil(w bits / 8)], the leftmost index in the highest bits."""
    digits = np.unpackbits(index[..., None], axis=2)[..., 8 - bits :]
    return np.packbits(digits.reshape(len(index), -1), axis=1)


def _inflate(data: bytes, size: int, cut: bool) -> bytes:
    """Inflates to `size` bytes, or fewer if the data are truncated (cut)."""
    coder = zlib.decompressobj()
    try:
        content = coder.decompress(data, size + 1)
    except zlib.error:
        raise CodecError("the pixel data are damaged") from None
    is_incomplete = len(content) < size or not coder.eof or bool(coder.unused_data)
    if len(content) > size or not cut and is_incomplete:
        raise CodecError("the pixel data do not fit the image; the file is damaged")
    return content


def decode(data: bytes, shape: tuple[int, int, int], dtype, cut: bool = False) -> np.ndarray:
    """The inverse of `encode`.

    Args:
      shape: (h, w, c) of the image.
      cut: the data may be truncated; missing rows are mid-gray.

    Raises:
      CodecError: the data are damaged.
    """
    h, w, c = shape
    bpp = c * np.dtype(dtype).itemsize
    kind, n, start, palette = 0, w * bpp, 1, None
    if data and data[0]:
        count = data[1] + 1 if len(data) > 1 else 0
        kind, start = data[0], 2 + count * bpp
        if kind > 1 or not cut and not count:
            raise CodecError("the pixel data are damaged")
        palette, n = np.frombuffer(data[2:start], np.uint8), -(-w * bits_of(max(count, 1)) // 8)
        if len(palette) < count * bpp:
            data = b""
    content = _inflate(data[start:], h * (n + 1), cut) if data[start:] or not cut else b""
    count_rows = len(content) // (n + 1)
    rows = unfiltered(content[: count_rows * (n + 1)], count_rows, n, 1 if kind else bpp)
    if palette is not None and kind and count_rows:
        rows = _coloured(rows, palette.reshape(-1, bpp), w)
    if np.dtype(dtype) == np.uint16:
        rows = np.ascontiguousarray(rows).view(">u2").astype(np.uint16)
    image = np.full(shape, 1 << (8 * np.dtype(dtype).itemsize - 1), dtype)
    image[:count_rows] = rows.reshape(count_rows, w, c)
    return image


def _coloured(packed: np.ndarray, palette: np.ndarray, width: int) -> np.ndarray:
    """Rows of packed indices -> rows of bytes of their colours."""
    bits = bits_of(len(palette))
    digits = np.unpackbits(packed, axis=1)[:, : width * bits].reshape(len(packed), width, bits)
    index = np.zeros(digits.shape[:2], np.uint8)
    for digit in np.moveaxis(digits, -1, 0):
        index = index << 1 | digit
    if index.max() >= len(palette):
        raise CodecError("an index is not in the palette; the file is damaged")
    return palette[index].reshape(len(packed), -1)
