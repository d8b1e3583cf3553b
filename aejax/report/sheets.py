"""Contact sheets of a report: originals above the reconstructions of every model."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax import pictures
from aejax.report.collect import Collection, Row, facets, is_number, label_columns
from aejax.report.columns import BASELINES
from aejax.report.figures import FigureFile

PICTURES = 10  # images in a row of a sheet, at most
SHEET_ROWS = 14  # rows of a sheet, at most; if there are more, some sizes of h are left out


class RowImages(NamedTuple):
    """A row of the table with its first test images x and their outputs y, uint8 [n, h, w, c]."""

    row: Row
    x: np.ndarray
    y: np.ndarray


def make_sheets(collection: Collection, out: pathlib.Path) -> list[FigureFile]:
    """Draws a sheet for each facet whose runs kept pictures, as PNG files in `out`."""
    files = []
    parts = facets(collection)
    for facet, rows in parts:
        stem, title = "reconstructions", "Originals above reconstructions"
        if len(parts) > 1:
            stem += "-" + "".join(c if c.isalnum() else "-" for c in facet.rpartition(":")[2])
            title += f": {facet}"
        shown = [s for row in rows if (s := _first_images(row)) is not None]
        if not shown:
            continue
        shown = [s for s in shown if np.array_equal(s.x, shown[0].x)]
        shown = _thinned(shown, collection.settings.x)
        side = 96 if len(shown) < 5 else 72
        lines = _sheet_lines(collection, shown, side)
        pictures.save(out / f"{stem}.png", pictures.rows_sheet(lines, side))
        dark = io.BytesIO()
        pictures.save(dark, pictures.rows_sheet(lines, side, theme=pictures.DARK))
        note = "the first images of the test split; PSNR is the mean over the whole split"
        files.append(FigureFile(out / f"{stem}.png", title, dark.getvalue(), note))
    return files


def _sheet_lines(collection: Collection, shown: Sequence[RowImages], side: int) -> list[Any]:
    """(name, note, images) of each line of the sheet; None separates groups of equal x."""
    settings = collection.settings
    original = shown[0].x
    columns = max(1, min(PICTURES, 900 // max(original.shape[2], side)))
    lines: list[Any] = [("original", "", original[:columns])]
    labels = [c for c in label_columns(collection) if c != settings.facet]
    for x in dict.fromkeys(s.row.first(settings.x) for s in shown):
        group = [s for s in shown if s.row.first(settings.x) == x]
        lines.append(None)
        for name in settings.baselines if settings.x == "latent_size" else ():
            line = _baseline_line(group[0].row, name, x, columns)
            lines += [line] if line else []
        for s in group:
            words = [str(s.row.first(c)) for c in labels if s.row.first(c) is not None]
            words += [f"{x:,}"] if isinstance(x, int) and settings.x not in labels else []
            lines.append((", ".join(words), _psnr(s.row.results[0]["metrics"]), s.y[:columns]))
    return lines


def _first_images(row: Row) -> RowImages | None:
    """The images that the first run of the row has kept; None if it has none."""
    file = pathlib.Path(row.results[0]["directory"]) / "pictures" / "examples.npz"
    try:
        with np.load(file) as arrays:
            return RowImages(row, arrays["x"], arrays["y"])
    except (OSError, KeyError, ValueError):
        return None


def _thinned(shown: Sequence[RowImages], x: str) -> list[RowImages]:
    """At most SHEET_ROWS rows: those of the smallest and the largest x, and of some between."""
    sizes = list(dict.fromkeys(s.row.first(x) for s in shown))
    if all(map(is_number, sizes)):
        sizes.sort()
    models = max(sum(s.row.first(x) == size for s in shown) for size in sizes) + 1
    count = max(1, SHEET_ROWS // models)
    if count < len(sizes):
        places = np.linspace(0, len(sizes) - 1, count) if count > 1 else [len(sizes) // 2]
        sizes = [sizes[round(p)] for p in places]
    kept = [s for size in sizes for s in shown if s.row.first(x) == size]
    return kept[:SHEET_ROWS]


def _psnr(metrics: Mapping[str, float]) -> str:
    psnr = metrics.get("test/psnr")
    return f"{psnr:.2f} dB" if psnr is not None else ""


def _baseline_line(row: Row, name: str, size: Any, columns: int) -> tuple | None:
    baseline = row.results[0].get("baselines", {}).get(name)
    if not baseline or not baseline["pictures"]:
        return None
    try:
        with np.load(baseline["pictures"]) as arrays:
            images = arrays["y"][:columns]
    except (OSError, KeyError, ValueError):
        return None
    return f"{BASELINES[name]}, {size:,}", _psnr(baseline["metrics"]), images
