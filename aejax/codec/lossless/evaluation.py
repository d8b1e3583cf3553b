"""`aejax eval-codec DIR --lossless`: sizes and times of lossless codecs on the same images. Whole
files are counted, and each is decoded and compared with the image.

PNG is Pillow's with optimize=True, the smallest of its RGB, palette, gray and 1-bit modes that hold
the image; WebP is lossless with quality 100, method 6; JPEG XL (by imagecodecs, if installed) has
efforts 7 and 9.
"""

import csv
import dataclasses
import io
import json
import pathlib
import time
from collections.abc import Callable

import numpy as np

from aejax import files
from aejax.errors import UserError

Codec = tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]


def png(x: np.ndarray) -> bytes:
    """The smallest PNG file that Pillow writes of an image, uint8 [h, w] or [h, w, 3 or 4]."""
    from PIL import Image

    image = Image.fromarray(x)
    forms = [image]
    if x.ndim == 2 and np.isin(x, (0, 255)).all():
        forms.append(image.convert("1", dither=Image.Dither.NONE))
    colours = image.getcolors(256) if image.mode == "RGB" else None
    if colours:
        palette = np.array([c for _, c in sorted(colours, reverse=True)], np.uint8)
        keys = palette.astype(np.uint32) @ [1, 256, 65536]
        order = np.argsort(keys)
        index = order[np.searchsorted(keys[order], x.astype(np.uint32) @ [1, 256, 65536])]
        indexed = Image.fromarray(index.astype(np.uint8), "L")
        indexed.putpalette(palette.tobytes())
        forms.append(indexed)
    return min((_saved(form, "PNG", optimize=True) for form in forms), key=len)


def _saved(image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _opened(data: bytes) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert({"1": "L", "P": "RGB"}.get(image.mode, image.mode)))


def contenders(runtime=None) -> dict[str, Codec]:
    """name -> (encode, decode) of the installed codecs.

    Args:
      runtime: of other weights for aejax, from `installed.use`.
    """
    from PIL import Image, features

    from aejax.codec import api as codec

    def ours(x):
        return codec.encode(x, lossless=True, runtime=runtime)

    out: dict[str, Codec] = {"aejax": (ours, codec.decode), "png": (png, _opened)}
    if features.check("webp"):

        def webp(x):
            return _saved(Image.fromarray(x), "WEBP", lossless=True, quality=100, method=6)

        out["webp"] = (webp, _opened)
    try:
        import imagecodecs
    except ImportError:
        return out
    if imagecodecs.JPEGXL.available:
        for effort in (7, 9):

            def jpegxl(x, effort=effort):
                return imagecodecs.jpegxl_encode(x, lossless=True, effort=effort)

            out[f"jpeg xl {effort}"] = (jpegxl, imagecodecs.jpegxl_decode)
    return out


def read_images(folder: str, limit: int = 0) -> dict[str, np.ndarray]:
    """file name -> uint8 [h, w] or [h, w, 3 or 4].

    Args:
      limit: only the first so many; 0 = all.

    Raises:
      UserError: the folder has no images.
    """
    from aejax.data.images import read_image
    from aejax.data.walk import images_in

    named = images_in(folder)[: limit or None]
    return {f.name: np.squeeze(read_image(f)[0]) for f in named}


def _matches(name: str, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the decoded y equals x; a gray x may be decoded as RGB, since WebP has no gray."""
    if y.ndim == 3 and x.ndim == 2:
        x = np.repeat(x[..., None], 3, -1)
    return np.array_equal(x, y)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One image coded by one codec.

    Attributes:
      bytes: of the whole file; bits_per_sample: of it.
      encode_s, decode_s: seconds.
    """

    codec: str
    image: str
    pixels: int
    bytes: int
    bits_per_sample: float
    encode_s: float
    decode_s: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """A codec over all images.

    Attributes:
      bytes: of all files.
      of: other codec -> ratio of the bytes to its bytes.
      worst_of_png: the largest ratio of the bytes of a file to PNG's over the images.
    """

    bytes: int
    bits_per_sample: float
    of: dict[str, float]
    worst_of_png: float
    encode_s_per_megapixel: float
    decode_s_per_megapixel: float

    def to_dict(self) -> dict[str, float]:
        """The entry of a result file, with `of` as keys "of_png", ..."""
        values = dataclasses.asdict(self)
        ratios = values.pop("of")
        return values | {f"of_{other}": ratio for other, ratio in ratios.items()}


def measure(images: dict[str, np.ndarray], codecs: dict[str, Codec], say) -> list[Measured]:
    """One row per codec and image.

    Args:
      say: called with a line of text after each codec.

    Raises:
      UserError: a decoded image differs from the original.
    """
    rows = []
    for name, (encode, decode) in codecs.items():
        for x in {x.shape: x for x in images.values()}.values():
            decode(encode(x))  # warm-up: loads and compiles
        for image, x in images.items():
            t0 = time.perf_counter()
            data = encode(x)
            t1 = time.perf_counter()
            y = decode(data)
            t2 = time.perf_counter()
            if not _matches(name, x, np.asarray(y)):
                raise UserError(f"{name} is not lossless on {image}")
            rows.append(
                Measured(
                    codec=name,
                    image=image,
                    pixels=x.shape[0] * x.shape[1],
                    bytes=len(data),
                    bits_per_sample=8 * len(data) / x.size,
                    encode_s=t1 - t0,
                    decode_s=t2 - t1,
                )
            )
        say(f"{name}: {len(images)} images")
    return rows


def table(rows: list[Measured]) -> dict[str, Summary]:
    """codec -> Summary of its rows."""
    names = list(dict.fromkeys(r.codec for r in rows))
    by = {name: [r for r in rows if r.codec == name] for name in names}
    total = {name: sum(r.bytes for r in by[name]) for name in names}
    megapixels = sum(r.pixels for r in by[names[0]]) / 1e6
    samples = sum(8 * r.bytes / r.bits_per_sample for r in by[names[0]])
    summaries = {}
    for name in names:
        worst = max(r.bytes / p.bytes for r, p in zip(by[name], by["png"], strict=True))
        summaries[name] = Summary(
            bytes=total[name],
            bits_per_sample=8 * total[name] / samples,
            of={other: total[name] / total[other] for other in names if other != name},
            worst_of_png=worst,
            encode_s_per_megapixel=sum(r.encode_s for r in by[name]) / megapixels,
            decode_s_per_megapixel=sum(r.decode_s for r in by[name]) / megapixels,
        )
    return summaries


def outputs(out: str | pathlib.Path) -> list[pathlib.Path]:
    """The files that `--out` writes: results as JSON, rows as CSV.

    Raises:
      UserError: the name does not end in .json.
    """
    return files.results_and(out, ".csv")


def run(args) -> int:
    """`aejax eval-codec DIR --lossless`."""
    from aejax.codec.lossless.installed import is_installed, use
    from aejax.machine.provenance import provenance

    images = read_images(args.folder, args.images)
    codecs = contenders(use(args.weights) if args.weights else None)
    if args.codecs:
        wanted = args.codecs.split(",")
        for name in wanted:
            if name not in codecs:
                raise UserError(f'unknown lossless codec "{name}"; known: {", ".join(codecs)}')
        codecs = {name: codecs[name] for name in codecs if name in {*wanted, "png"}}
    if not (args.weights or is_installed()):
        print("  the weights of the lossless networks are not installed: aejax uses deflate only")
    start = time.perf_counter()
    rows = measure(images, codecs, lambda text: print(f"  {text}", flush=True))
    results = table(rows)
    print(f"\n{len(images)} images of {args.folder}, whole files, all decoded and compared")
    print(f"  {'codec':<12} {'bytes':>12} {'bits/sample':>11} {'of png':>7} {'worst':>6} "
          f"{'encode':>8} {'decode':>8}  (s per megapixel)")  # fmt: skip
    for name, r in results.items():
        print(
            f"  {name:<12} {r.bytes:>12,} {r.bits_per_sample:>11.3f} "
            f"{r.of.get('png', 1.0):>7.3f} {r.worst_of_png:>6.3f} "
            f"{r.encode_s_per_megapixel:>8.2f} {r.decode_s_per_megapixel:>8.2f}"
        )
    if args.out:
        out, rows_file = outputs(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        text = {
            "folder": pathlib.Path(args.folder).name,
            "images": list(images),
            "results": {name: r.to_dict() for name, r in results.items()},
            "seconds": time.perf_counter() - start,
            **provenance(),
        }
        files.write_atomically(out, json.dumps(text, indent=1) + "\n")
        lines = io.StringIO()
        names = [field.name for field in dataclasses.fields(Measured)]
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, rows))
        files.write_atomically(rows_file, lines.getvalue())
        print(f"  {out}, {rows_file.name}")
    return 0
