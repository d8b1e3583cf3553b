"""Training curves of a report: an SVG of the loss and one of the metric, against the step."""

import dataclasses
import html
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from aejax.study.definition import Results

POINTS = 120  # the most points of a line
WIDTH, HEIGHT = 460, 250  # of a panel, in the units of the SVG
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34  # margins around the plot, for the numbers of the axes


@dataclasses.dataclass
class Curve:
    """One run's (step, value) points; `name` is its tooltip, `group` decides its colour."""

    name: str
    group: str
    points: list[tuple[float, float]]


def read(workdir: str | pathlib.Path, column: str) -> list[tuple[float, float]]:
    """(step, value) of a column of a run's log.jsonl, at most POINTS of them. Of a step that was
    logged twice (before and after a resume) the later value is kept."""
    values: dict[float, float] = {}
    try:
        lines = (pathlib.Path(workdir) / "log.jsonl").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the line that a killed run was writing
            continue
        value = row.get(column)
        if isinstance(value, int | float) and math.isfinite(value):
            values[row["step"]] = float(value)
    return thinned(sorted(values.items()))


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS of `points`, evenly chosen, with the first and the last."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(i * (len(points) - 1) / (POINTS - 1))] for i in range(POINTS)]


def panel(title: str, curves: Iterable[Curve], colours: Mapping[str, int]) -> str:
    """An SVG with a line for each curve, or a dot for one with a single point; "" without points.
    The y axis is logarithmic if values are positive and span more than a factor of 20.

    Args:
      colours: group -> number of its colour, as in the page's CSS classes c0, c1, ...
    """
    curves = [c for c in curves if c.points]
    if not curves:
        return ""
    ys = [y for c in curves for _, y in c.points]
    low, high = min(ys), max(ys)
    log = low > 0 and high / low > 20
    low, high = (math.log10(low), math.log10(high)) if log else (low, high)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    last = max(x for c in curves for x, _ in c.points) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        y = math.log10(y) if log else y
        svg_x = LEFT + x / last * (WIDTH - LEFT - RIGHT)
        svg_y = HEIGHT - BOTTOM - (y - low) / (high - low) * _plot_height()
        return round(svg_x, 1), round(svg_y, 1)

    parts = [_axes(low, high, last, log)]
    for curve in curves:
        colour, name = colours.get(curve.group, 0), html.escape(curve.name)
        places = [place(x, y) for x, y in curve.points]
        if len(places) == 1:
            (x, y), *_ = places
            drawn = f'<circle class="c{colour}" cx="{x}" cy="{y}" r="3.5">'
            parts.append(f"{drawn}<title>{name}</title></circle>")
        else:
            line = " ".join(f"{x:g},{y:g}" for x, y in places)
            drawn = f'<polyline class="c{colour}" points="{line}">'
            parts.append(f"{drawn}<title>{name}</title></polyline>")
    return (
        f'<figure class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)} against step">{"".join(parts)}</svg>'
        f"<figcaption>{html.escape(title)} against step</figcaption></figure>"
    )


def _plot_height() -> int:
    return HEIGHT - TOP - BOTTOM


def _axes(low: float, high: float, last: float, log: bool) -> str:
    """Four horizontal grid lines with their values, and the first, middle and last step."""
    parts = []
    for i in range(4):
        value = low + (high - low) * i / 3
        y = HEIGHT - BOTTOM - i / 3 * _plot_height()
        text = f"{10**value if log else value:.3g}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{text}</text>')
    for i in range(3):
        x = LEFT + i / 2 * (WIDTH - LEFT - RIGHT)
        anchor = ("start", "middle", "end")[i]
        step = f"{round(last * i / 2):,}"
        parts.append(f'<text x="{x:g}" y="{HEIGHT - 12}" text-anchor="{anchor}">{step}</text>')
    return "".join(parts)


def section(
    results: Results,
    names: Sequence[str],
    groups: Sequence[str],
    metric: str,
    header: str,
    colours: Mapping[str, int],
) -> str:
    """HTML with the loss and a metric of every run against the step, and a key of the colours; ""
    if no run has a log. A metric without two values in any run is left out.

    Args:
      names, groups: of each of `results`: its tooltip, and the group that decides its colour.
      metric: "test/psnr"; `header` is its name in words.
      colours: group -> number of its colour, the same in all sections of a page.
    """
    logged_metric = metric.replace("test/", "eval/", 1)
    panels = []
    for title, column in (
        ("Training loss", "loss"),
        (f"{header} of the test split", logged_metric),
    ):
        lines = [
            Curve(name, group, read(r["directory"], column))
            for r, name, group in zip(results, names, groups, strict=True)
        ]
        if any(len(line.points) > 1 for line in lines):
            panels.append(panel(title, lines, colours))
    if not any(panels):
        return ""
    key = "".join(
        f'<li><i class="c{colours[group]}"></i>{html.escape(group)}</li>'
        for group in dict.fromkeys(groups)
        if group
    )
    key = f'<ul class="key">{key}</ul>' if key else ""
    return f'<div class="curves">{"".join(panels)}</div>{key}'
