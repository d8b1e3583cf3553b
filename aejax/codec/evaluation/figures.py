"""The figures of an evaluation: rate-distortion curves, and crops at equal file size."""

import math
import pathlib

import numpy as np

from aejax.codec.evaluation.contenders import Contender
from aejax.codec.evaluation.curves import Curves, decibels
from aejax.codec.evaluation.measure import psnr_of


def rd_figure(measured: Curves, path: pathlib.Path, published: Curves) -> None:
    """Writes rate-distortion curves to `path`, the published ones dashed."""
    from aejax.report.figures import Line, Panel
    from aejax.report.figures import curves as draw

    shown = ("BPG 4:4:4 (x265)", "VTM (VVC)", "mbt2018-mean (MSE)")
    panels = []
    for key, label, scale in (
        ("psnr", "PSNR, dB", float),
        ("ms_ssim", "MS-SSIM, dB", decibels),
    ):
        lines = []
        of_both = measured | {name: published[name] for name in shown if name in published}
        for name, points in of_both.items():
            known = [(p.bpp, getattr(p, key)) for p in points if not math.isnan(getattr(p, key))]
            near = [(bpp, scale(value)) for bpp, value in known if 0.05 <= bpp <= 2.0]
            if len(near) > 1:
                x, y = (list(values) for values in zip(*near, strict=True))
                lines.append(Line(name, x, y, baseline=name in published))
        panels.append(
            Panel(label, lines, "bits per pixel, whole files", label, larger_is_better=True)
        )
    draw(panels, path)


def crops(
    images: dict[str, np.ndarray],
    ours: Contender,
    jpeg: Contender,
    path: pathlib.Path,
    count: int = 3,
) -> None:
    """Writes centre crops of 256x256 pixels of `count` images to `path`: original, JPEG of quality
    20, and aejax at the same file size."""
    from PIL import Image, ImageDraw

    sheet = []
    for name in list(images)[:: max(1, len(images) // count)][:count]:
        x = images[name]
        jpeg_file = jpeg.encode(x, 20)
        size = len(jpeg_file)
        our_file = ours.sized(x, size) if ours.sized else ours.encode(x, ours.settings[0])
        row = []
        for title, data, y in (
            (name, None, x),
            ("JPEG", jpeg_file, jpeg.decode(jpeg_file)),
            ("aejax", our_file, ours.decode(our_file)),
        ):
            top, left = max(0, (x.shape[0] - 256) // 2), max(0, (x.shape[1] - 256) // 2)
            tile = Image.fromarray(np.ascontiguousarray(y[top : top + 256, left : left + 256]))
            if data is not None:
                title = f"{title}: {len(data):,} bytes, {psnr_of(x, y):.2f} dB"
            canvas = Image.new("RGB", (256, 274), "white")
            canvas.paste(tile, (0, 18))
            ImageDraw.Draw(canvas).text((4, 3), title, fill="black")
            row.append(np.asarray(canvas))
        sheet.append(np.concatenate(row, axis=1))
    Image.fromarray(np.concatenate(sheet)).save(path)
