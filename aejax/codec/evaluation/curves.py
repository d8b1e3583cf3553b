"""Rate-distortion curves and the BD-rate between two of them."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from aejax.codec.evaluation.measure import Measured

Points = Sequence[tuple[float, float]]  # (bpp, dB)
RANGE = (0.15, 1.5)  # bpp, of the BD-rates in the table


@dataclasses.dataclass(frozen=True)
class Point:
    """A codec at one setting, means over the images; nan where a published curve has no value.

    Attributes:
      bpp: bits per pixel.
      psnr: in dB; ms_ssim: 0 to 1.
      encode_s, decode_s: seconds per image.
    """

    bpp: float
    psnr: float
    ms_ssim: float = math.nan
    encode_s: float = math.nan
    decode_s: float = math.nan


Curves = dict[str, list[Point]]  # codec -> points in order of bpp


@dataclasses.dataclass(frozen=True)
class Summary:
    """A codec over its settings.

    Attributes:
      bd_psnr, bd_ms_ssim: BD-rate against the anchor in per cent, within RANGE; nan if the curves
        overlap by less than 0.5 dB.
      bd_psnr_full: BD-rate over the whole overlap of the curves.
      encode_s, decode_s: mean seconds per image.
      bd_psnr_against_aejax: BD-rate of an effort against effort 0.
    """

    bd_psnr: float
    bd_psnr_full: float
    bd_ms_ssim: float
    encode_s: float
    decode_s: float
    bd_psnr_against_aejax: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """The entry of a result file; None for nan."""
        values = dataclasses.asdict(self)
        if self.bd_psnr_against_aejax is None:
            del values["bd_psnr_against_aejax"]
        return {k: None if math.isnan(v) else v for k, v in values.items()}


def monotone(points: Points) -> list[tuple[float, float]]:
    """The points in order of bpp, without those whose quality does not exceed the one before.

    >>> monotone([(0.3, 30.0), (0.1, 25.0), (0.2, 24.0)])
    [(0.1, 25.0), (0.3, 30.0)]
    """
    out: list[tuple[float, float]] = []
    for rate, quality in sorted(points):
        if not out or (rate > out[-1][0] and quality > out[-1][1]):
            out.append((rate, quality))
    return out


def bd_rate(anchor: Points, points: Points, bpp: tuple[float, float] | None = None) -> float:
    """BD-rate: bits in per cent more (+) or fewer (-) than the anchor at equal quality
    (Bjontegaard, VCEG-M33, 2001).

    log bpp is interpolated over PSNR, or over -10 log10(1 - MS-SSIM), by a monotone cubic (PCHIP)
    through the points of each codec, see `monotone`; the mean difference over the common range of
    quality gives the ratio of the rates.

    Args:
      anchor, points: (bpp, dB) of each setting.
      bpp: use only qualities that both codecs reach at rates in this range.

    Returns:
      nan if the common range is below 0.5 dB.

    >>> curve = [(0.25, 28.0), (0.5, 32.0), (1.0, 36.0)]
    >>> round(bd_rate(curve, [(0.9 * bpp, db) for bpp, db in curve]), 3)
    -10.0
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
    """MS-SSIM in dB, -10 log10(1 - MS-SSIM), as its curves are usually drawn."""
    return -10.0 * math.log10(max(1.0 - ms_ssim, 1e-6))


def curves(rows: Iterable[Measured]) -> Curves:
    """codec -> points in order of bpp, each the mean over the images at one setting."""
    groups: dict[str, dict[str, list[Measured]]] = {}
    for row in rows:
        groups.setdefault(row.codec, {}).setdefault(str(row.setting), []).append(row)
    keys = [field.name for field in dataclasses.fields(Point)]
    out = {}
    for name, settings in groups.items():
        points = [
            Point(**{key: float(np.mean([getattr(row, key) for row in group])) for key in keys})
            for group in settings.values()
        ]
        out[name] = sorted(points, key=lambda p: p.bpp)
    return out


def line(points: Sequence[Point], key: str) -> list[tuple[float, float]]:
    """(bpp, dB) of each point; key: "psnr" or "ms_ssim"."""
    scale = decibels if key == "ms_ssim" else float
    return [(point.bpp, scale(getattr(point, key))) for point in points]


def table(measured: Curves, anchor: str = "jpeg") -> dict[str, Summary]:
    """codec -> Summary, with BD-rates against the codec named `anchor`."""
    base = {key: line(measured.get(anchor, []), key) for key in ("psnr", "ms_ssim")}
    out = {}
    for name, points in measured.items():
        out[name] = Summary(
            bd_psnr=bd_rate(base["psnr"], line(points, "psnr"), RANGE),
            bd_psnr_full=bd_rate(base["psnr"], line(points, "psnr")),
            bd_ms_ssim=bd_rate(base["ms_ssim"], line(points, "ms_ssim"), RANGE),
            encode_s=float(np.mean([p.encode_s for p in points])),
            decode_s=float(np.mean([p.decode_s for p in points])),
        )
    return out


def reference(name: str = "kodak") -> Curves:
    """Published curves on a data set: codec -> points with bpp, psnr and, where known, ms_ssim."""
    path = pathlib.Path(__file__).parents[1] / "reference" / f"{name}.csv"
    out: Curves = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            point = {k: float(row[k]) for k in ("bpp", "psnr", "ms_ssim") if row[k]}
            out.setdefault(row["codec"], []).append(Point(**point))
    return {k: sorted(v, key=lambda p: p.bpp) for k, v in out.items()}
