"""The codec: arrays <-> .aej bytes.

    >>> data = aejax.codec.encode(photo, quality=50)
    >>> aejax.codec.decode(data).shape
    (64, 96, 3)

Arrays are uint8 or uint16, [h, w], [h, w, 1] (gray), [h, w, 2] (gray, alpha), [h, w, 3] (RGB) or
[h, w, 4] (RGB, alpha), of any size from 1x1. What is decoded has the dtype and the channels of what
was encoded; alpha is exact. Large images are coded in tiles of 1536 pixels, without seams.
`encode(array, lossless=True)` keeps every sample; `decode` reads both kinds of files.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from aejax.codec import container
from aejax.codec.container import Chunk, Header, Reader
from aejax.codec.errors import CodecError
from aejax.codec.freeze import load
from aejax.codec.lossless import files as lossless_files
from aejax.codec.lossless.layout import is_lossless
from aejax.codec.lossless.layout import parse as parse_lossless
from aejax.codec.runtime import SHAPES, Frozen, Runtime, cores
from aejax.machine.allocator import release_memory
from aejax.weights import FOLDER

__all__ = ["CodecError", "CutFile", "Decoded", "TargetMissed", "encode", "decode", "read", "info",
           "use", "verify"]  # fmt: skip

METRICS = {"mse": "codec", "ms-ssim": "codec-ms-ssim"}  # metric -> weights
MAX_PIXELS = 1 << 27  # unless told otherwise: what a hostile header can make us allocate
STRIDE = container.STRIDE

_extra: dict[bytes, Runtime] = {}


@functools.cache
def _shipped(name: str) -> Runtime:
    return Runtime(load(name))


def use(weights: str | pathlib.Path | Frozen) -> Runtime:
    """Weights of one's own, for `encode(..., runtime=...)`; streams made with them are then
    decoded too, as they name their model."""
    frozen = weights if isinstance(weights, Frozen) else load(weights)
    runtime = _extra.get(frozen.id) or Runtime(frozen)
    _extra[frozen.id] = runtime
    return runtime


def use_any(weights: str | pathlib.Path) -> None:
    """Makes files of these weights readable: of the lossy or of the lossless codec."""
    from aejax import weights as stored

    fields = stored.load(weights)[1].get("fields", {})
    (use if "latent" in fields else lossless_files.use)(weights)


def runtime_for(metric: str = "mse") -> Runtime:
    """The shipped model for a metric.

    Raises:
      CodecError: no such metric, or no weights for it.
    """
    if metric not in METRICS:
        raise CodecError(f'metric "{metric}" is unknown; known: {", ".join(METRICS)}')
    if not (FOLDER / f"{METRICS[metric]}.safetensors").exists():
        raise CodecError(f'no weights for metric "{metric}" in this installation')
    return _shipped(METRICS[metric])


def _runtime_of(model: bytes) -> Runtime:
    if model in _extra:
        return _extra[model]
    import json

    for name in METRICS.values():
        path = FOLDER / f"{name}.json"
        if path.exists() and json.loads(path.read_text())["id"] == model.hex():
            return _shipped(name)
    raise CodecError(
        f"the file was made with model {model.hex()}, which this installation does not have; "
        "install the version of aejax that has it, or give its weights to aejax.codec.use"
    )


# --- arrays ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Planes:
    """An image as the codec sees it: rgb [h, w, 3], alpha [h, w] or None, flags."""

    rgb: np.ndarray
    alpha: np.ndarray | None
    flags: int


def _picture(image) -> tuple[np.ndarray, dict[str, bytes]]:
    """The array of a Pillow image, upright, and its metadata.

    Raises:
      CodecError: floating point or 32 bits.
    """
    from aejax.data import images

    try:
        x, meta = images.picture_of(image)
    except images.Unsupported as e:
        raise CodecError(f"the image {e}") from e
    return x, {"icc_profile": meta.icc, "exif": meta.exif, "xmp": meta.xmp}


def _checked(image) -> np.ndarray:
    """uint8 or uint16 [h, w, 1 to 4].

    Raises:
      CodecError: it is something else.
    """
    image = np.asarray(image)
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        scale = ": from [0, 1], np.round(255 * x).astype(np.uint8)" * (image.dtype.kind == "f")
        raise CodecError(f"images are uint8 or uint16 arrays, not {image.dtype}{scale}")
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or 0 in image.shape:
        last = "; move the channels to the end" * (image.ndim == 3 and image.shape[0] in (1, 3))
        raise CodecError(f"images are [h, w] or [h, w, 1 to 4], not {list(image.shape)}{last}")
    return image


def _planes(image: np.ndarray) -> Planes:
    image = _checked(image)
    c = image.shape[2]
    flags = container.DEEP if image.dtype == np.uint16 else 0
    flags |= (container.GRAY if c < 3 else 0) | (container.ALPHA if c in (2, 4) else 0)
    rgb = image[..., :3] if c >= 3 else np.broadcast_to(image[..., :1], (*image.shape[:2], 3))
    return Planes(rgb, image[..., -1] if c in (2, 4) else None, flags)


# --- encode ---------------------------------------------------------------------------------------


def encode(
    image,
    quality: float | None = None,
    *,
    bpp: float | None = None,
    size: int | None = None,
    psnr: float | None = None,
    effort: int = 0,
    metric: str = "mse",
    lossless: bool = False,
    metadata: Mapping[str, bytes] | None = None,
    runtime=None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """An image as the bytes of an .aej file.

    Args:
      image: uint8 or uint16 array, see the module, or a Pillow image of any mode, which is encoded
        as it is meant to be seen: palette and CMYK as colour, turned as its EXIF says.
      quality: 0 to 100, the default 50. At most one of quality, bpp, size and psnr is given.
      bpp: bits per pixel of the whole file; size: bytes of it; psnr: dB of what is decoded, on the
        8-bit scale. Hit within 2 % (psnr: 0.1 dB) in at most 5 encodes where the range of
        qualities allows it, else as near as can be with the warning `TargetMissed`.
      effort: 0 to 9: gradient steps on this image's latents, which cost time and save bits; the
        decoder does not notice. Used for images of one tile.
      metric: "mse" or "ms-ssim": the model.
      lossless: every sample is kept; takes no quality, bpp, size, psnr or effort.
      metadata: "icc_profile", "exif", "xmp" -> bytes to carry; by default what a Pillow image has.
      runtime: of weights of one's own: of `use`, or, for lossless files, of
        `lossless.files.use`.
      progress: called with the share of the work that is done.

    Raises:
      CodecError: what was asked for cannot be.

    >>> data = aejax.codec.encode(photo, quality=30)
    >>> len(data) < photo.size // 8
    True
    """
    if hasattr(image, "getexif"):  # Pillow's
        image, own = _picture(image)
        metadata = own if metadata is None else metadata
    metadata = {k: v for k, v in (metadata or {}).items() if v}
    targets = {"quality": quality, "bpp": bpp, "size": size, "psnr": psnr}
    given = {name: v for name, v in targets.items() if v is not None}
    if lossless:
        if given or effort:
            raise CodecError(f"lossless takes no {', '.join(given) or 'effort'}")
        return lossless_files.encode(_checked(image), metadata, runtime, progress)
    planes = _planes(image)
    runtime = runtime or runtime_for(metric)
    if len(given) > 1:
        raise CodecError(f"give one of {', '.join(given)}, not {len(given)}")
    name, value = next(iter(given.items()), ("quality", 50.0))
    if not (math.isfinite(value) and (value > 0 or name == "quality" and value == 0)):
        raise CodecError(f"{name} = {value} is not possible")
    if not (isinstance(effort, int) and 0 <= effort <= 9):
        raise CodecError(f"effort is 0 to 9, not {effort}")

    def at(byte: int) -> bytes:
        return _encode(planes, byte, metadata, runtime, effort, progress)

    if name == "quality":
        if value > 100:
            raise CodecError(f"quality is 0 to 100, not {value}")
        return at(int(math.floor(value * 2.55 + 0.5)))
    pixels = planes.rgb.shape[0] * planes.rgb.shape[1]
    if name == "psnr":
        data, reached = _seek(at, lambda data: _psnr(planes, decode(data)), value, 0.1)
        return _warned(data, abs(reached - value) <= 0.1, f"{value:g} dB", f"{reached:.2f} dB")
    target = value * pixels / 8 if name == "bpp" else value
    data, reached = _seek(at, len, target, 0.02 * target)
    asked = f"{value:g} bpp" if name == "bpp" else f"{value:,} bytes"
    got = f"{8 * reached / pixels:.3f} bpp" if name == "bpp" else f"{reached:,.0f} bytes"
    return _warned(data, abs(reached - target) <= 0.02 * target, asked, got)


def _warned(data: bytes, reached: bool, asked: str, got: str) -> bytes:
    """The file, with a warning if it is not what was asked for."""
    if not reached:
        import warnings

        warnings.warn(
            f"{asked} cannot be reached; the nearest file has {got}", TargetMissed, stacklevel=3
        )
    return data


def _psnr(planes: Planes, decoded: np.ndarray) -> float:
    top = 65535.0 if decoded.dtype == np.uint16 else 255.0
    colour = _planes(decoded).rgb
    error = (colour.astype(np.float32) - planes.rgb.astype(np.float32)) / top
    return -10.0 * math.log10(float(np.mean(np.square(error))) + 1e-12)


def _seek(at, measure, target: float, tolerance: float, tries: int = 5):
    """(file, measure) whose measure is nearest to the target: at most five encodes.

    Log bytes, or dB, are nearly straight in the quality (lambda is its exponential): the first
    step has the usual slope, the next ones that of the two nearest files as far as it is likely;
    once there is a bracket, the straight line between its ends.
    """
    line = math.log if measure is len else float
    usual = (3.3 if measure is len else 14.0) / 255.0
    found: dict[int, tuple[float, bytes]] = {}
    byte = 128
    while len(found) < tries:
        data = at(byte)
        found[byte] = measure(data), data
        if abs(found[byte][0] - target) <= 0.2 * tolerance:
            break
        gap = {b: line(v) - line(target) for b, (v, _) in found.items()}
        low = max((b for b in gap if gap[b] <= 0), default=-1)
        high = min((b for b in gap if gap[b] > 0), default=256)
        if low in gap and high in gap:
            guess = round(low - gap[low] * (high - low) / (gap[high] - gap[low]))
        else:
            near = sorted(gap, key=lambda b: abs(gap[b]))[:2]
            found_slope = usual
            if len(near) == 2:
                found_slope = (gap[near[0]] - gap[near[1]]) / (near[0] - near[1])
            # two near files may differ by chance alone
            slope = min(max(found_slope, usual / 2), usual * 2)
            guess = round(near[0] - gap[near[0]] / slope)
        if high - low <= 1:
            break
        byte = min(max(guess, low + 1, 0), high - 1, 255)
    reached, data = min(found.values(), key=lambda f: abs(f[0] - target))
    return data, reached


def _encode(planes: Planes, byte: int, metadata, runtime, effort, progress) -> bytes:
    height, width = planes.rgb.shape[:2]
    flags = planes.flags | (container.METADATA if metadata else 0)
    header = Header(runtime.frozen.id, byte, width, height, flags)
    coded = []
    for n, tile in enumerate(header.tiles):
        y = runtime.latents(planes.rgb, tile, header)
        if effort and len(header.tiles) == 1:
            from aejax.codec.effort import refine

            y = refine(runtime, planes.rgb, y, byte, effort)
        coded.append([c.pack() for c in runtime.encode_tile(y, byte)[0]])
        if len(header.tiles) > 1:
            release_memory()
        if progress:
            progress((n + 1) / len(header.tiles))
    out = [header.pack()]
    if metadata:
        kinds = {v: k for k, v in container.NAMES.items()}
        for name, content in metadata.items():
            if name not in kinds or name == "alpha":
                raise CodecError(f'metadata "{name}" is not carried; known: icc_profile, exif, xmp')
            if len(content) > container.SECTION_LIMIT:
                raise CodecError(f"{name} has more than {container.SECTION_LIMIT} bytes")
            out.append(container.pack_section(kinds[name], bytes(content)))
        out.append(b"\0")
    out += [tile[scan] for scan in range(len(runtime.frozen.slices)) for tile in coded]
    if planes.alpha is not None:
        plane = container.pack_plane(planes.alpha)
        out.append(container.pack_section(container.ALPHA_PLANE, plane))
    return b"".join(out)


# --- decode ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a file holds.

    Attributes:
      image: uint8 or uint16 [h, w] or [h, w, 2 to 4].
      complete: False if the file was cut, and the image is coarser than it was.
      scans: how many of the file's `of_scans` scans were there, of the tile that has fewest.
      metadata: "icc_profile", "exif", "xmp" -> bytes.
    """

    image: np.ndarray
    complete: bool
    scans: int
    metadata: dict[str, bytes]
    header: Header
    of_scans: int


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, strict: bool = False) -> np.ndarray:
    """The image of an .aej file. A file that was cut gives a coarser one and a warning.

    Args:
      max_pixels: refuse larger images; a strip of more than 1536 pixels counts as 64 wide.
      strict: refuse files that were cut.

    Raises:
      CodecError: the file is damaged, and how.

    >>> aejax.codec.decode(aejax.codec.encode(photo, lossless=True)).shape
    (64, 96, 3)
    """
    found = read(data, max_pixels=max_pixels)
    if not found.complete:
        if strict:
            raise CodecError("the file was cut; strict=False decodes what is there")
        import warnings

        warnings.warn(
            f"the file was cut: the image is a coarser one ({found.scans} of {found.of_scans} "
            "scans)",
            CutFile,
            stacklevel=2,
        )
    return found.image


class CutFile(UserWarning):
    """The file was cut."""


class TargetMissed(UserWarning):
    """A size, rate or PSNR that no quality gives; the message says what the nearest file has."""


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A file's parts, none decoded."""

    header: Header
    metadata: dict[str, bytes]
    tiles: list[list[Chunk]]
    alpha: bytes | None
    complete: bool
    sizes: dict[str, int]


def _computed(header: Header) -> int:
    """Pixels to compute: those of the image, and of a strip longer than a tile as many as of one
    with the smallest window's width, or a header could ask for 64 times the work it seems to."""
    short, long = sorted((header.width, header.height))
    return max(short, SHAPES[0] * STRIDE if long > container.TILE * STRIDE else 0) * long


def parse(data: bytes, scans: Callable[[bytes], int], max_pixels: int = MAX_PIXELS) -> Parsed:
    """Takes a file apart and checks every byte of it.

    Args:
      scans: model id -> its number of scans.
    """
    reader = Reader(bytes(data))
    header = container.unpack_header(reader)
    pixels = _computed(header)
    if pixels > max_pixels:
        raise CodecError(
            f"an image of {header.width} x {header.height} is as much to compute as "
            f"{pixels} pixels, more than the limit of {max_pixels}; raise max_pixels if you trust "
            "the file"
        )
    count = scans(header.model)
    sizes = {"header": reader.at}
    metadata: dict[str, bytes] = {}
    alpha, complete = None, False
    tiles: list[list[Chunk]] = [[] for _ in header.tiles]
    try:
        if header.flags & container.METADATA:
            container.read_metadata(reader, metadata)
        sizes["metadata"] = reader.at - sizes["header"]
        for scan in range(count):
            start = reader.at
            for n, tile in enumerate(tiles):
                where = f"scan {scan + 1}" + (f" of tile {n + 1}" if len(tiles) > 1 else "")
                tile.append(container.read_chunk(reader, where))
            sizes[f"scan {scan + 1}"] = reader.at - start
        if header.flags & container.ALPHA:
            start = reader.at
            limit = header.width * header.height * (2 if header.flags & container.DEEP else 1)
            kind, alpha = container.read_section(reader, limit)
            if kind != container.ALPHA_PLANE:
                raise CodecError("the alpha section is missing; the file is damaged")
            sizes["alpha"] = reader.at - start
        complete = True
    except container.EndOfData:
        pass
    if complete and reader.at != len(data):
        raise CodecError(f"{len(data) - reader.at} bytes too many at the end; the file is damaged")
    return Parsed(header, metadata, tiles, alpha, complete, sizes)


def _scans_of(model: bytes) -> int:
    return len(_runtime_of(model).frozen.slices)


def verify(data: bytes) -> None:
    """Checks every checksum of a file without decoding it.

    Raises:
      CodecError: the file is damaged or was cut, and how.
    """
    if is_lossless(data):
        complete = parse_lossless(data, 1 << 40).complete
    else:
        complete = parse(data, _scans_of, max_pixels=1 << 40).complete
    if not complete:
        raise CodecError("the file was cut")


def read(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Everything an .aej file holds.

    Raises:
      CodecError: the file is damaged, and how.
    """
    if is_lossless(data):
        return _read_lossless(data, max_pixels)
    parsed = parse(data, _scans_of, max_pixels)
    header, runtime = parsed.header, _runtime_of(parsed.header.model)
    image = _pixels(parsed, runtime)
    if header.flags & container.GRAY:
        image = image[..., None]
    if header.flags & container.ALPHA:
        deep = bool(header.flags & container.DEEP)
        if parsed.alpha is None:
            plane = np.full(image.shape[:2], 65535 if deep else 255, image.dtype)
        else:
            plane = container.unpack_plane(parsed.alpha, header.height, header.width, deep)
        image = np.concatenate([image, plane[..., None]], axis=-1)
    if image.shape[-1] == 1:
        image = image[..., 0]
    scans = min(len(chunks) for chunks in parsed.tiles)
    of_scans = len(runtime.frozen.slices)
    return Decoded(image, parsed.complete, scans, parsed.metadata, header, of_scans)


def _read_lossless(data: bytes, max_pixels: int) -> Decoded:
    found = lossless_files.read(data, max_pixels)
    image = found.image[..., 0] if found.image.shape[2] == 1 else found.image
    return Decoded(image, found.complete, found.scans, found.metadata, found.header, found.of_scans)


def _pixels(parsed: Parsed, runtime: Runtime) -> np.ndarray:
    """Tile by tile; latents are kept of three rows of tiles."""
    header = parsed.header
    deep, gray = bool(header.flags & container.DEEP), bool(header.flags & container.GRAY)
    shape = (header.height, header.width)
    middle = np.uint16(1 << 15) if deep else np.uint8(1 << 7)
    out = np.full(shape if gray else (*shape, 3), middle)
    rows: dict[int, dict[int, np.ndarray]] = {}
    tiles = header.tiles
    starts = sorted({t[0] for t in tiles})
    gh, gw = header.grid
    latent = sum(runtime.frozen.slices)

    def latents(top_row: int) -> np.ndarray:
        """y_hat of one row of tiles, decoded once."""
        if top_row not in rows:
            height = min(container.TILE, gh - top_row)
            line = np.zeros((height, gw, latent), np.float32)
            for n, (i, j, h, w) in enumerate(tiles):
                if i == top_row and parsed.tiles[n]:
                    name = f"tile {n + 1}" if len(tiles) > 1 else "the image"
                    line[:, j : j + w] = runtime.decode_tile(
                        parsed.tiles[n], h, w, header.quality, name
                    )
            rows[top_row] = line
        return rows[top_row]

    for n, start in enumerate(starts):
        if not any(parsed.tiles[k] for k, t in enumerate(tiles) if abs(t[0] - start) <= 96):
            continue  # nothing of it has come: it stays gray
        near = starts[max(0, n - 1) : n + 2]
        for old in [s for s in rows if s < near[0]]:
            del rows[old]
        here = [tile for tile in tiles if tile[0] == start]
        # Of the rows above and below what the windows reach.
        reach = [down for _, down, _ in cores(here[0], header.grid, runtime.halos[1])]
        low, high = min(a for a, _ in reach), max(a + size for a, size in reach)
        block = np.concatenate([latents(s)[max(low - s, 0) : high - s] for s in near if s < high])
        for tile in here:
            x = runtime.pixels(block, max(low, near[0]), tile, header)
            a, b = tile[0] * STRIDE, tile[1] * STRIDE
            part = out[a : a + tile[2] * STRIDE, b : b + tile[3] * STRIDE]
            part[...] = x[: part.shape[0], : part.shape[1]]
            if len(tiles) > 1:
                release_memory()
    return out


def info(data: bytes) -> dict:
    """What an .aej file says of itself, without decoding it: sizes of its parts, too.

    Raises:
      CodecError: not an .aej file, or damaged.
    """
    if is_lossless(data):
        return lossless_files.info(data)
    reader = Reader(bytes(data))
    header = container.unpack_header(reader)
    try:
        slices = len(_runtime_of(header.model).frozen.slices)
    except CodecError:
        slices = None
    channels = {0: "RGB", 1: "gray", 2: "RGB + alpha", 3: "gray + alpha"}[header.flags & 3]
    out = {
        "version": header.version,
        "model": header.model.hex() + ("" if slices else " (not installed)"),
        "width": header.width,
        "height": header.height,
        "channels": channels,
        "bits": 16 if header.flags & container.DEEP else 8,
        "quality": round(header.quality / 2.55, 1),
        "tiles": len(header.tiles),
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
    }
    if slices:
        parsed = parse(data, lambda _: slices, max_pixels=1 << 40)
        out |= {"complete": parsed.complete, "parts": parsed.sizes}
        out["metadata"] = {k: len(v) for k, v in parsed.metadata.items()}
    return out
