"""`aejax eval-codec`: every codec at hand on the same images, whole files counted.

BD-rate (Bjontegaard) as the field's reference tables have it: the natural log of bpp as a function
of PSNR, or of -10 log10(1 - MS-SSIM), monotone cubic (PCHIP) through the points of each codec
(those that do not increase in both dropped), its difference integrated over the range that both
curves cover, minus one. "JPEG" is Pillow's at its defaults (4:2:0), with file headers.
"""

import csv
import dataclasses
import io
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from aejax import files
from aejax.errors import UserError
from aejax.weights import FOLDER

Points = Sequence[tuple[float, float]]  # (bpp, dB)
RANGE = (0.15, 1.5)  # bpp: where the main figures are taken


# --- BD-rate --------------------------------------------------------------------------------------


def monotone(points: Points) -> list[tuple[float, float]]:
    """The points in order of bpp without those that do not rise in both."""
    out: list[tuple[float, float]] = []
    for rate, quality in sorted(points):
        if not out or (rate > out[-1][0] and quality > out[-1][1]):
            out.append((rate, quality))
    return out


def bd_rate(anchor: Points, points: Points, bpp: tuple[float, float] | None = None) -> float:
    """Per cent of bits more (+) or fewer (-) than the anchor at equal quality.

    Args:
      bpp: only qualities that both codecs reach at rates in this range.

    Returns:
      nan if the common range is below 0.5 dB.
    """
    from scipy.interpolate import PchipInterpolator

    curves = [monotone(anchor), monotone(points)]
    if min(map(len, curves)) < 2:
        return math.nan
    rates, lows, highs = [], [], []
    for curve in curves:
        x, y = np.log([p[0] for p in curve]), np.array([p[1] for p in curve])
        low, high = y[0], y[-1]
        if bpp:
            quality = PchipInterpolator(x, y)
            low, high = (float(quality(np.clip(np.log(b), x[0], x[-1]))) for b in bpp)
        rates.append(PchipInterpolator(y, x))
        lows.append(low)
        highs.append(high)
    low, high = max(lows), min(highs)
    if high - low < 0.5:
        return math.nan
    area = [r.integrate(low, high) for r in rates]
    return 100.0 * (math.exp(float(area[1] - area[0]) / (high - low)) - 1.0)


def decibels(ms_ssim: float) -> float:
    """MS-SSIM on the scale its curves are drawn in."""
    return -10.0 * math.log10(max(1.0 - ms_ssim, 1e-6))


# --- codecs ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Contender:
    """A codec: its settings from low to high quality, its two directions, and, if it can, a file
    of a given number of bytes."""

    settings: Sequence[Any]
    encode: Callable[[np.ndarray, Any], bytes]
    decode: Callable[[bytes], np.ndarray]
    sized: Callable[[np.ndarray, int], bytes] | None = None


def _pillow(kind: str, settings, options: Callable[[Any], dict]) -> Contender:
    from PIL import Image

    def encode(x, setting):
        out = io.BytesIO()
        Image.fromarray(x).save(out, kind, **options(setting))
        return out.getvalue()

    def decode(data):
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    return Contender(settings, encode, decode)


def contenders(runtime=None, effort: int = 0) -> dict[str, Contender]:
    """Every codec this installation has, ours first."""
    from PIL import features

    from aejax.codec import api as codec

    out: dict[str, Contender] = {}
    qualities = tuple(range(0, 101, 10))

    def ours(chosen, effort=0):
        def encode(x, quality):
            return codec.encode(x, quality, runtime=chosen, effort=effort)

        def sized(x, size):
            return codec.encode(x, size=size, runtime=chosen)

        # An effort takes a minute for an image: every other point of the curve is enough.
        return Contender(qualities[1::2] if effort else qualities, encode, codec.decode, sized)

    if runtime is not None:
        out["aejax"] = ours(runtime)
    else:
        for metric, name in codec.METRICS.items():
            if (FOLDER / f"{name}.safetensors").exists():
                out["aejax" if metric == "mse" else f"aejax {metric}"] = ours(
                    codec.runtime_for(metric)
                )
    if effort and "aejax" in out:
        out[f"aejax effort {effort}"] = ours(runtime or codec.runtime_for(), effort)
    steps = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
    out["jpeg"] = _pillow("JPEG", steps, lambda q: {"quality": q})
    out["jpeg optimised"] = _pillow(
        "JPEG", steps, lambda q: {"quality": q, "optimize": True, "progressive": True}
    )
    if features.check("jpg_2000"):
        ratios = (240, 160, 100, 70, 48, 32, 24, 16, 12, 8)
        out["jpeg 2000"] = _pillow(
            "JPEG2000",
            ratios,
            lambda r: {
                "quality_mode": "rates",
                "quality_layers": [r],
                "irreversible": True,
                "mct": 1,  # colours decorrelated: off by default
            },
        )
    if features.check("webp"):
        out["webp"] = _pillow(
            "WEBP", (0, 5, 10, 20, 35, 50, 65, 80, 90, 95), lambda q: {"quality": q, "method": 6}
        )
    if features.check("avif"):
        out["avif"] = _pillow(
            "AVIF", (10, 20, 30, 40, 50, 60, 70, 80, 90), lambda q: {"quality": q, "speed": 6}
        )
    try:
        import imagecodecs
    except ImportError:
        imagecodecs = None
    if imagecodecs is not None and imagecodecs.JPEGXL.available:
        out["jpeg xl"] = Contender(
            (12.0, 8.0, 6.0, 4.5, 3.5, 2.5, 1.8, 1.2, 0.7),
            lambda x, d: imagecodecs.jpegxl_encode(x, distance=d, effort=7),
            imagecodecs.jpegxl_decode,
        )
    out["png"] = _pillow("PNG", (0,), lambda _: {"optimize": True})
    return out


# --- measuring ------------------------------------------------------------------------------------


def read_images(folder: str, limit: int = 0) -> dict[str, np.ndarray]:
    """name -> uint8 RGB.

    Raises:
      UserError: none there.
    """
    from aejax.data.decode import flatten
    from aejax.data.images import read_image
    from aejax.data.walk import images_in

    named = images_in(folder)[: limit or None]
    return {f.stem: flatten(read_image(f)[0], 3) for f in named}


def psnr_of(x: np.ndarray, y: np.ndarray) -> float:
    """PSNR in dB of uint8 images."""
    mse = float(np.mean(np.square(x.astype(np.float64) - y.astype(np.float64))))
    return 10.0 * math.log10(255.0**2 / max(mse, 1e-3))


def quality_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(PSNR in dB, MS-SSIM) of uint8 images."""
    import jax
    import jax.numpy as jnp

    from aejax.metrics import image as metrics

    a, b = (jnp.asarray(v[None], jnp.float32) / 255.0 for v in (x, y))
    global _ms_ssim
    _ms_ssim = _ms_ssim or jax.jit(metrics.ms_ssim)
    return psnr_of(x, y), float(_ms_ssim(a, b)[0])


_ms_ssim: Any = None


def measure(
    images: dict[str, np.ndarray], codecs: dict[str, Contender], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row per image, codec and setting: bytes, bpp, psnr, ms_ssim, seconds each way."""
    rows = []
    for name, c in codecs.items():
        quick = dataclasses.replace(c, encode=codecs["aejax"].encode) if "effort" in name else c
        for x in {x.shape: x for x in images.values()}.values():
            c.decode(quick.encode(x, c.settings[0]))  # whatever a codec has to load or compile
        for setting in c.settings:
            for image, x in images.items():
                t0 = time.perf_counter()
                data = c.encode(x, setting)
                t1 = time.perf_counter()
                y = c.decode(data)
                t2 = time.perf_counter()
                psnr, ms_ssim = quality_of(x, y)
                rows.append(
                    {
                        "codec": name,
                        "setting": setting,
                        "image": image,
                        "bytes": len(data),
                        "bpp": 8 * len(data) / (x.shape[0] * x.shape[1]),
                        "psnr": psnr,
                        "ms_ssim": ms_ssim,
                        "encode_s": t1 - t0,
                        "decode_s": t2 - t1,
                    }
                )
        say(f"{name}: {len(c.settings)} settings x {len(images)} images")
    return rows


def curves(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """codec -> points, each the mean over the images at one setting."""
    groups: dict[str, dict[str, list]] = {}
    for row in rows:
        groups.setdefault(row["codec"], {}).setdefault(str(row["setting"]), []).append(row)
    keys = ("bpp", "psnr", "ms_ssim", "encode_s", "decode_s")
    out = {}
    for name, settings in groups.items():
        points = [{k: float(np.mean([r[k] for r in g])) for k in keys} for g in settings.values()]
        out[name] = sorted(points, key=lambda p: p["bpp"])
    return out


def table(found: dict[str, list[dict[str, float]]], anchor: str = "jpeg") -> dict[str, dict]:
    """codec -> BD-rates against the anchor and mean seconds."""
    out = {}
    for name, points in found.items():

        def line(key, points=points):
            scale = decibels if key == "ms_ssim" else float
            return [(p["bpp"], scale(p[key])) for p in points]

        def base(key):
            scale = decibels if key == "ms_ssim" else float
            return [(p["bpp"], scale(p[key])) for p in found.get(anchor, [])]

        out[name] = {
            "bd_psnr": bd_rate(base("psnr"), line("psnr"), RANGE),
            "bd_psnr_full": bd_rate(base("psnr"), line("psnr")),
            "bd_ms_ssim": bd_rate(base("ms_ssim"), line("ms_ssim"), RANGE),
            "encode_s": float(np.mean([p["encode_s"] for p in points])),
            "decode_s": float(np.mean([p["decode_s"] for p in points])),
        }
    return out


def reference(name: str = "kodak") -> dict[str, list[dict[str, float]]]:
    """Published curves, codec -> points with bpp, psnr and, where known, ms_ssim."""
    path = pathlib.Path(__file__).parent / "reference" / f"{name}.csv"
    out: dict[str, list] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            point = {k: float(row[k]) for k in ("bpp", "psnr", "ms_ssim") if row[k]}
            out.setdefault(row["codec"], []).append(point)
    return {k: sorted(v, key=lambda p: p["bpp"]) for k, v in out.items()}


# --- the verb -------------------------------------------------------------------------------------


def run(args) -> int:
    """`aejax eval-codec DIR`."""
    from aejax.codec import api as codec

    images = read_images(args.folder, args.images)
    codecs = contenders(codec.use(args.weights) if args.weights else None, args.effort)
    if args.codecs:
        wanted = args.codecs.split(",")
        for name in wanted:
            if name not in codecs:
                raise UserError(f'no codec "{name}" here; known: {", ".join(codecs)}')
        more = ["aejax"] * any(" effort " in name for name in wanted)
        codecs = {name: codecs[name] for name in dict.fromkeys([*more, *wanted, "jpeg"])}
    began = time.perf_counter()
    rows = measure(images, codecs, lambda text: print(f"  {text}", flush=True))
    found = curves(rows)
    results = table(found)
    low, high = RANGE
    print(f"\n{len(images)} images of {args.folder}, BD-rate against jpeg, {low}-{high} bpp")
    print(f"  {'codec':<18} {'PSNR':>8} {'MS-SSIM':>8} {'encode':>9} {'decode':>9}")
    for name, r in results.items():
        print(
            f"  {name:<18} {_percent(r['bd_psnr']):>8} {_percent(r['bd_ms_ssim']):>8} "
            f"{1000 * r['encode_s']:>6.0f} ms {1000 * r['decode_s']:>6.0f} ms"
        )
    for name in found:
        if " effort " in name:
            gain = bd_rate(*([(p["bpp"], p["psnr"]) for p in found[n]] for n in ("aejax", name)))
            print(f"  {name} against aejax: {_percent(gain)}")
            results[name]["bd_psnr_against_aejax"] = gain
    if args.out:
        write(args, rows, found, results, images, codecs, time.perf_counter() - began)
    return 0


def _percent(v: float) -> str:
    return "-" if math.isnan(v) else f"{v:+.1f} %"


def outputs(out: str | pathlib.Path) -> list[pathlib.Path]:
    """The files that `write` makes: results, rows, the curves, crops.

    Raises:
      UserError: the name does not end in .json.
    """
    out = pathlib.Path(out)
    if out.suffix != ".json":
        raise UserError(f'--out "{out}": name a .json file')
    beside = [out.with_suffix(".csv"), out.with_suffix(".png")]
    return [out, *beside, out.with_name(f"{out.stem}-crops.png")]


def write(args, rows, found, results, images, codecs, seconds: float) -> None:
    """results.json, and beside it every image at every setting as CSV, and the figures."""
    from aejax.machine.provenance import provenance

    def clean(v):
        if isinstance(v, dict):
            return {k: clean(x) for k, x in v.items()}
        return None if isinstance(v, float) and math.isnan(v) else v

    out = pathlib.Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = {
        "folder": pathlib.Path(args.folder).name,
        "images": list(images),
        "bd_rate": clean(results),
        "curves": found,
        "seconds": seconds,
        **provenance(),
    }
    files.write_atomically(out, json.dumps(text, indent=1) + "\n")
    lines = io.StringIO()
    writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_atomically(out.with_suffix(".csv"), lines.getvalue())
    kodak = len(images) == 24 and all(name.startswith("kodim") for name in images)
    with files.replacing(out.with_suffix(".png")) as part:
        rd_figure(found, part, reference() if kodak else {})
    ours = next((name for name in codecs if name.startswith("aejax")), None)
    if ours and "jpeg" in codecs:
        with files.replacing(out.with_name(f"{out.stem}-crops.png")) as part:
            crops(images, codecs[ours], codecs["jpeg"], part)
    print(f"  {out}, {out.with_suffix('.png').name}, {out.stem}-crops.png")


def rd_figure(found, path: pathlib.Path, published) -> None:
    """Rate-distortion curves, the published ones dashed."""
    from aejax.report.figures import Line, Panel
    from aejax.report.figures import curves as draw

    shown = ("BPG 4:4:4 (x265)", "VTM (VVC)", "mbt2018-mean (MSE)")
    panels = []
    for key, label, scale in (
        ("psnr", "PSNR, dB", float),
        ("ms_ssim", "MS-SSIM, dB", decibels),
    ):
        lines = []
        for name, points in [*found.items(), *((n, published[n]) for n in shown if n in published)]:
            near = [p for p in points if 0.05 <= p["bpp"] <= 2.0 and key in p]
            if len(near) > 1:
                x, y = [p["bpp"] for p in near], [scale(p[key]) for p in near]
                lines.append(Line(name, x, y, baseline=name in published))
        panels.append(
            Panel(label, lines, "bits per pixel, whole files", label, larger_is_better=True)
        )
    draw(panels, path)


def crops(images, ours: Contender, jpeg: Contender, path: pathlib.Path, count: int = 3) -> None:
    """Original, JPEG at a low quality, and ours at that file's size: 256 pixels of the middle."""
    from PIL import Image, ImageDraw

    sheet = []
    for name in list(images)[:: max(1, len(images) // count)][:count]:
        x = images[name]
        small = jpeg.encode(x, 20)
        best = ours.sized(x, len(small))
        row = []
        for title, data, back in (
            (name, None, None),
            ("JPEG", small, jpeg.decode),
            ("aejax", best, ours.decode),
        ):
            y = x if data is None else back(data)
            top, left = max(0, (x.shape[0] - 256) // 2), max(0, (x.shape[1] - 256) // 2)
            tile = Image.fromarray(np.ascontiguousarray(y[top : top + 256, left : left + 256]))
            if data is not None:
                title = f"{title}: {len(data):,} bytes, {quality_of(x, y)[0]:.2f} dB"
            canvas = Image.new("RGB", (256, 274), "white")
            canvas.paste(tile, (0, 18))
            ImageDraw.Draw(canvas).text((4, 3), title, fill="black")
            row.append(np.asarray(canvas))
        sheet.append(np.concatenate(row, axis=1))
    Image.fromarray(np.concatenate(sheet)).save(path)
