"""Which figures a report has: y against x for every model, and Pareto fronts."""

import io
import math
import pathlib
from collections.abc import Sequence

from aejax.report import figures
from aejax.report.collect import Collection, Row, facets, is_number, label_columns, repetition
from aejax.report.columns import BASELINES, column_of
from aejax.report.figures import FigureFile, Line, Panel

_AXIS_NAMES = {"latent_size": "size of h", "parameters": "parameters"}


def make_figures(collection: Collection, out: pathlib.Path) -> list[FigureFile]:
    """Draws `Settings.y` against `Settings.x` and each of `Settings.pareto`, as PNG files in `out`;
    a figure has a panel for each facet."""
    settings = collection.settings
    axes = [(settings.x, settings.y, False), *((x, y, True) for x, y in settings.pareto)]
    files = []
    for x, y, front in axes:
        panels = [make_panel(collection, *facet, x, y, front) for facet in facets(collection)]
        panels = [panel for panel in panels if panel is not None]
        if not panels:
            continue
        name = "-".join(c.lstrip("@").replace("test/", "") for c in (y, x))
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in name) + ".png"
        draw = figures.dots if panels[0].x == "" else figures.curves
        draw(panels, out / name)
        dark = io.BytesIO()
        draw(panels, dark, figures.DARK)
        axis_names = [w.replace(",", " in") for w in (panels[0].y, panels[0].x) if w]
        note = _note(collection, front)
        files.append(FigureFile(out / name, " against ".join(axis_names), dark.getvalue(), note))
    return files


def _note(collection: Collection, front: bool) -> str:
    """What the error bars and the line of a figure mean, for its caption."""
    notes = []
    rows = [row for _, rows_of_facet in facets(collection) for row in rows_of_facet]
    if any(len(row.results) > 1 for row in rows):
        repeated = repetition(rows, collection.settings.repeats)
        notes.append(f"bars: standard deviation over {repeated}")
    if front:
        notes.append("line: the Pareto front")
    return "; ".join(notes)


def make_panel(
    collection: Collection, facet: str, rows: Sequence[Row], x: str, y: str, front: bool
) -> Panel | None:
    """The panel of one facet; None if no row has a finite y. If x has several numeric values, or
    with `front`, it has a line for each model; else a dot for each row."""
    rows = [row for row in rows if math.isfinite(row.mean_or_nan(y))]
    if not rows:
        return None
    title = facet if len(facets(collection)) > 1 else ""
    column = column_of(y)
    x_values = {row.first(x) for row in rows}
    if not all(map(is_number, x_values)) or (len(x_values) == 1 and not front):
        return Panel(title, _dots(collection, rows, y), "", column.header, column.larger_is_better)
    lines = _lines(collection, rows, x, y)
    if x == "latent_size":
        lines += _baseline_lines(collection, rows, x, y)
    x_name = _AXIS_NAMES.get(x, column_of(x).header)
    return Panel(title, lines, x_name, column.header, column.larger_is_better, front)


def _dots(collection: Collection, rows: Sequence[Row], y: str) -> list[Line]:
    """A line of one point for each row, then one for each value of a baseline."""
    labels = label_columns(collection)
    lines = []
    for row in rows:
        spread = row.spread(y)
        lines.append(
            Line(_name(row, labels), [0], [row.mean_or_nan(y)], [spread] if spread else [])
        )
    for name in collection.settings.baselines:
        means = (row.mean(f"{name}:{y}") for row in rows)
        values = {mean for mean in means if mean is not None}
        lines += [Line(BASELINES[name], [0], [v], baseline=True) for v in sorted(values)]
    return lines


def _lines(collection: Collection, rows: Sequence[Row], x: str, y: str) -> list[Line]:
    """A line for each model, named by the column `by`, or by all labels if no row has it."""
    by = collection.settings.by
    labels = [c for c in label_columns(collection) if c not in (x, collection.settings.facet)]
    labels = [by] if any(row.first(by) is not None for row in rows) else labels
    points: dict[str, list[tuple[float, float, float]]] = {}  # name -> (x, y, spread)
    for row in rows:
        name = _name(row, labels) or column_of(y).header
        point = (float(row.mean(x) or row.first(x)), row.mean_or_nan(y), row.spread(y) or 0.0)
        points.setdefault(name, []).append(point)
    lines = []
    for name, group in points.items():
        at, means, spreads = zip(*sorted(group), strict=True)
        lines.append(Line(name, at, means, spreads))
    return lines


def _baseline_lines(collection: Collection, rows: Sequence[Row], x: str, y: str) -> list[Line]:
    """A line for each baseline that was measured at two or more sizes of h."""
    lines = []
    for name in collection.settings.baselines:
        means = {float(row.first(x)): row.mean(f"{name}:{y}") for row in rows}
        points = sorted((at, mean) for at, mean in means.items() if mean is not None)
        if len(points) > 1:
            at, mean = zip(*points, strict=True)
            lines.append(Line(BASELINES[name], at, mean, baseline=True))
    return lines


def _name(row: Row, labels: Sequence[str]) -> str:
    return ", ".join(str(row.first(c)) for c in labels if row.first(c) is not None)
