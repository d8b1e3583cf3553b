"""`aejax eval-codec`: measures, prints a table, writes results."""

import argparse
import csv
import dataclasses
import io
import json
import math
import pathlib
import time

import numpy as np

from aejax import files
from aejax.codec.evaluation.contenders import Contender, contenders
from aejax.codec.evaluation.curves import (
    RANGE,
    Curves,
    Summary,
    bd_rate,
    curves,
    line,
    reference,
    table,
)
from aejax.codec.evaluation.figures import crops, rd_figure
from aejax.codec.evaluation.measure import Measured, measure, read_images
from aejax.codec.installed import use
from aejax.errors import UserError


def run(args: argparse.Namespace) -> int:
    """`aejax eval-codec DIR`."""
    images = read_images(args.folder, args.images)
    codecs = contenders(use(args.weights) if args.weights else None, args.effort)
    if args.codecs:
        codecs = _chosen(codecs, args.codecs.split(","))
    start = time.perf_counter()
    rows = measure(images, codecs, lambda text: print(f"  {text}", flush=True))
    points = curves(rows)
    results = table(points)
    low, high = RANGE
    print(f"\n{len(images)} images of {args.folder}, BD-rate against jpeg, {low}-{high} bpp")
    print(f"  {'codec':<18} {'PSNR':>8} {'MS-SSIM':>8} {'encode':>9} {'decode':>9}")
    for name, r in results.items():
        print(
            f"  {name:<18} {_percent(r.bd_psnr):>8} {_percent(r.bd_ms_ssim):>8} "
            f"{1000 * r.encode_s:>6.0f} ms {1000 * r.decode_s:>6.0f} ms"
        )
    for name in points:
        if " effort " in name:
            gain = bd_rate(line(points["aejax"], "psnr"), line(points[name], "psnr"))
            print(f"  {name} against aejax: {_percent(gain)}")
            results[name] = dataclasses.replace(results[name], bd_psnr_against_aejax=gain)
    if args.out:
        write(args, rows, points, results, images, codecs, time.perf_counter() - start)
    return 0


def _chosen(codecs: dict[str, Contender], names: list[str]) -> dict[str, Contender]:
    """The codecs of these names and those that they are compared with: jpeg, and aejax for an
    effort.

    Raises:
      UserError: an unknown codec.
    """
    for name in names:
        if name not in codecs:
            raise UserError(f'unknown codec "{name}"; known: {", ".join(codecs)}')
    ours = ["aejax"] if any(" effort " in name for name in names) else []
    return {name: codecs[name] for name in dict.fromkeys([*ours, *names, "jpeg"])}


def _percent(v: float) -> str:
    return "-" if math.isnan(v) else f"{v:+.1f} %"


def outputs(out: str | pathlib.Path) -> list[pathlib.Path]:
    """The files that `write` writes: results, rows, figures of curves and of crops.

    Raises:
      UserError: the name does not end in .json.
    """
    return files.results_and(out, ".csv", ".png", "-crops.png")


def write(
    args: argparse.Namespace,
    rows: list[Measured],
    points: Curves,
    results: dict[str, Summary],
    images: dict[str, np.ndarray],
    codecs: dict[str, Contender],
    seconds: float,
) -> None:
    """Writes the results to args.out, and beside it all rows as CSV and the figures.

    Args:
      rows, points, results: of `measure`, `curves`, `table`.
      seconds: the measurement took.
    """
    from aejax.machine.provenance import provenance

    out = pathlib.Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = {
        "folder": pathlib.Path(args.folder).name,
        "images": list(images),
        "bd_rate": {name: r.to_dict() for name, r in results.items()},
        "curves": {name: [*map(dataclasses.asdict, line)] for name, line in points.items()},
        "seconds": seconds,
        **provenance(),
    }
    files.write_atomically(out, json.dumps(text, indent=1) + "\n")
    lines = io.StringIO()
    names = [field.name for field in dataclasses.fields(Measured)]
    writer = csv.DictWriter(lines, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, rows))
    files.write_atomically(out.with_suffix(".csv"), lines.getvalue())
    kodak = len(images) == 24 and all(name.startswith("kodim") for name in images)
    with files.replacing(out.with_suffix(".png")) as part:
        rd_figure(points, part, reference() if kodak else {})
    ours = next((name for name in codecs if name.startswith("aejax")), None)
    if ours and "jpeg" in codecs:
        with files.replacing(out.with_name(f"{out.stem}-crops.png")) as part:
            crops(images, codecs[ours], codecs["jpeg"], part)
    print(f"  {out}, {out.with_suffix('.png').name}, {out.stem}-crops.png")
