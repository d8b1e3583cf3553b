"""Training curves of a report: loss and metric against the step, one small SVG for each."""

import dataclasses
import html
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from aejax.study.definition import Results

POINTS = 120  # of a line, at most
WIDE, HIGH = 460, 250  # of a panel, in the units of the SVG
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34  # what the axes leave around the lines


@dataclasses.dataclass
class Curve:
    """One run's values: `name` for the mouse, `group` for the colour."""

    name: str
    group: str
    points: list[tuple[float, float]]


def read(workdir: str | pathlib.Path, column: str) -> list[tuple[float, float]]:
    """(step, value) of a column of a run's log.jsonl; of a step that comes twice the later one."""
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
    """At most POINTS of them, the first and the last among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(i * (len(points) - 1) / (POINTS - 1))] for i in range(POINTS)]


def panel(title: str, curves: Iterable[Curve], colours: Mapping[str, int]) -> str:
    """An SVG of lines over steps (single values are dots); "" if there is nothing to draw.

    Args:
      colours: the number of each group's colour, of the page's classes c0, c1, ...
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
        across = LEFT + x / last * (WIDE - LEFT - RIGHT)
        return round(across, 1), round(HIGH - BOTTOM - (y - low) / (high - low) * _inside(), 1)

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
        f'<figure class="curve"><svg viewBox="0 0 {WIDE} {HIGH}" role="img" '
        f'aria-label="{html.escape(title)} against step">{"".join(parts)}</svg>'
        f"<figcaption>{html.escape(title)} against step</figcaption></figure>"
    )


def _inside() -> int:
    return HIGH - TOP - BOTTOM


def _axes(low: float, high: float, last: float, log: bool) -> str:
    """Three rules with their values, and the first, middle and last step."""
    parts = []
    for i in range(4):
        value = low + (high - low) * i / 3
        y = HIGH - BOTTOM - i / 3 * _inside()
        text = f"{10**value if log else value:.3g}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{text}</text>')
    for i in range(3):
        x = LEFT + i / 2 * (WIDE - LEFT - RIGHT)
        anchor = ("start", "middle", "end")[i]
        step = f"{round(last * i / 2):,}"
        parts.append(f'<text x="{x:g}" y="{HIGH - 12}" text-anchor="{anchor}">{step}</text>')
    return "".join(parts)


def section(
    results: Results,
    names: Sequence[str],
    groups: Sequence[str],
    metric: str,
    header: str,
    colours: Mapping[str, int],
) -> str:
    """Loss and `metric` ("test/psnr", in words `header`) of every run against its steps, with what
    the colours mean; "" where no run has kept a log, no metric that was measured once alone.

    Args:
      colours: the number of each group's colour, the same in all sections of a page.
    """
    measured = metric.replace("test/", "eval/", 1)
    panels = []
    for title, column in (("Training loss", "loss"), (f"{header}, of the test split,", measured)):
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
