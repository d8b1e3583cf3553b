"""Figures of a report, drawn by matplotlib without a display, in a light and a dark theme.

Each line has its name at its end instead of in a legend, its own marker, and a colour that
colour-blind readers can distinguish (Okabe and Ito 2008).
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, TypedDict

import numpy as np

from aejax.result import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Theme(TypedDict):
    """Colours of the background, text, secondary text, grid, and of the lines in order."""

    paper: str
    ink: str
    quiet: str
    rule: str
    lines: tuple[str, ...]


LIGHT: Theme = {
    "paper": "#ffffff",
    "ink": "#1c1c1e",
    "quiet": "#6e6e73",
    "rule": "#e4e4e8",
    "lines": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7b5ea7"),
}
DARK: Theme = {
    "paper": "#16171a",
    "ink": "#f0f0f2",
    "quiet": "#a0a0a8",
    "rule": "#33343a",
    "lines": ("#5aaee6", "#f2864a", "#33c79b", "#e29ac4", "#f0c04a", "#8fd0f7", "#b49ae0"),
}
MARKERS = "osD^vPX"
PngFile = str | pathlib.Path | BinaryIO  # the path or open file that a figure is written to


@dataclasses.dataclass
class FigureFile:
    """A PNG file of the report.

    Attributes:
      title, note: parts of its caption.
      dark: the bytes of a PNG of the same figure in the dark theme, for the page.
    """

    path: pathlib.Path
    title: str
    dark: bytes = b""
    note: str = ""


@dataclasses.dataclass
class Line:
    """One line of a panel.

    Attributes:
      x, y: its points, in order of x.
      spread: standard deviation of each y over repetitions; () = none.
      baseline: drawn dashed, without markers.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()
    baseline: bool = False


@dataclasses.dataclass
class Panel:
    """Lines in one pair of axes.

    Attributes:
      x, y: labels of the axes.
      larger_is_better: of y; None if y is not ranked.
      front: draws unconnected points and their Pareto front instead of lines.
    """

    title: str
    lines: Sequence[Line]
    x: str
    y: str
    larger_is_better: bool | None = None
    front: bool = False


@contextlib.contextmanager
def figure(
    theme: Theme, width: float, height: float, panels: int = 1
) -> Generator[tuple["Figure", list["Axes"]]]:
    """A context with (figure, [axes of each panel]) in the theme; sizes in inches."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.color": theme["ink"],
        "axes.labelcolor": theme["quiet"],
        "axes.edgecolor": theme["rule"],
        "xtick.color": theme["quiet"],
        "ytick.color": theme["quiet"],
        "figure.facecolor": theme["paper"],
        "axes.facecolor": theme["paper"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme["rule"],
        "grid.linewidth": 0.6,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "axes.linewidth": 0.8,
    }
    with matplotlib.rc_context(style):
        fig = Figure(figsize=(width, height), dpi=160)
        FigureCanvasAgg(fig)
        axes = fig.subplots(1, panels, squeeze=False)[0]
        yield fig, list(axes)


def save(fig: "Figure", path: PngFile) -> None:
    """Writes a PNG, cropped to the drawing; equal figures give equal bytes."""
    fig.savefig(path, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def curves(panels: Sequence[Panel], path: PngFile, theme: Theme = LIGHT) -> None:
    """Draws panels side by side; lines of one name have one colour and marker in all of them."""
    lines = [line for panel in panels for line in panel.lines]
    names = list(dict.fromkeys(line.name for line in lines if not line.baseline))
    styles = {
        name: (theme["lines"][i % 7], MARKERS[(i + i // 7) % 7]) for i, name in enumerate(names)
    }
    styles |= {line.name: (theme["quiet"], "") for line in lines if line.baseline}
    with figure(theme, 5.4 * len(panels), 3.7, len(panels)) as (fig, axes):
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel, styles, theme)
        fig.subplots_adjust(wspace=0.55)
        save(fig, path)


def _draw(axis: "Axes", panel: Panel, styles: Mapping[str, tuple[str, str]], theme: Theme) -> None:
    """Draws one panel. `styles`: (colour, marker) of each name."""
    ends = []
    for line in panel.lines:
        colour, marker = styles[line.name]
        x, y = np.asarray(line.x, float), np.asarray(line.y, float)
        spread = np.asarray(line.spread if len(line.spread) else np.zeros(len(y)), float)
        if line.baseline:
            axis.plot(x, y, color=colour, linewidth=1.4, linestyle=(0, (4, 2.5)), zorder=4)
        elif panel.front:
            axis.scatter(x, y, s=26, color=colour, marker=marker, linewidths=0, zorder=3)
            axis.errorbar(x, y, spread, fmt="none", ecolor=colour, elinewidth=1, alpha=0.6)
        else:
            axis.errorbar(
                x, y, spread if spread.any() else None, color=colour, marker=marker, markersize=4.5,
                linewidth=1.8, elinewidth=1.1, capsize=2.5, zorder=3, markeredgewidth=0,
            )  # fmt: skip
        if len(x):
            ends.append((float(y[-1]), float(x[-1]), line.name, colour))
    _scales(axis, panel)
    if panel.front:
        _front(axis, panel, theme)
    axis.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold", pad=10)
    axis.set_xlabel(panel.x)
    axis.set_ylabel(panel.y)
    _labels(axis, ends, panel.front)


def _scales(axis: "Axes", panel: Panel) -> None:
    """Logarithmic axes where values span a factor of 6 (x) or 30 (y); a tick at each x if few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    values = sorted({float(v) for line in panel.lines for v in line.x if math.isfinite(v)})
    if values and values[0] > 0 and values[-1] / values[0] >= 6:
        axis.set_xscale("log")
        ticks = values
        if panel.front or len(values) > 12 or any(v != round(v) for v in values):
            low, high = math.floor(math.log10(values[0])), math.ceil(math.log10(values[-1]))
            ticks = [m * 10.0**e for e in range(low, high + 1) for m in (1, 2, 5)]
            ticks = [t for t in ticks if values[0] * 0.8 <= t <= values[-1] * 1.25]
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        axis.margins(x=0.06)
    elif 0 < len(values) <= 9:
        axis.set_xticks(values, [short(v) for v in values])
    ys = [v for line in panel.lines for v in line.y if v > 0]
    if ys and len(ys) == sum(len(line.y) for line in panel.lines) and max(ys) / min(ys) > 30:
        axis.set_yscale("log")


def _front(axis: "Axes", panel: Panel, theme: Theme) -> None:
    """Draws a line through the points of the Pareto front: less x, better y."""
    points = [(x, y) for line in panel.lines for x, y in zip(line.x, line.y, strict=True)]
    best = pareto(points, panel.larger_is_better is not False)
    if best:
        axis.plot(*zip(*best, strict=True), color=theme["quiet"], linewidth=1, zorder=1)


def pareto(
    points: Sequence[tuple[float, float]], larger_is_better: bool = True
) -> list[tuple[float, float]]:
    """The Pareto front of points (cost, quality): those better than all that cost no more.

    Example:
      >>> pareto([(1, 20.0), (2, 19.0), (3, 25.0)])
      [(1, 20.0), (3, 25.0)]
    """
    score = Metric("quality", larger_is_better).score
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -score(p[1]))):
        if not front or score(y) > score(front[-1][1]):
            front.append((x, y))
    return front


def _labels(axis: "Axes", ends: Sequence[tuple[float, float, str, str]], front: bool) -> None:
    """Writes the names of lines at the right, moved apart where lines end close to each other;
    with `front` beside the last point of each. `ends`: (y, x, name, colour)."""
    axis.figure.canvas.draw()
    to_axes = axis.transAxes.inverted()
    places = [to_axes.transform(axis.transData.transform((x, y))) for y, x, *_ in ends]
    order = sorted(range(len(ends)), key=lambda i: places[i][1])
    gap, heights = 0.062, [float(places[i][1]) for i in order]
    for _ in range(60):  # pushes neighbours apart until none are closer than `gap`
        moved = False
        for k in range(len(heights) - 1):
            close = gap - (heights[k + 1] - heights[k])
            if close > 1e-3:
                heights[k] -= close / 2
                heights[k + 1] += close / 2
                moved = True
        if not moved:
            break
    heights = _within(heights, gap)
    for i, height in zip(order, heights, strict=True):
        _, _, name, colour = ends[i]
        if front:
            axis.annotate(
                name, (ends[i][1], ends[i][0]), (7, -8), textcoords="offset points",
                color=colour, va="center", fontsize=9.5, annotation_clip=False,
            )  # fmt: skip
            continue
        axis.annotate(
            name, (min(1.0, places[i][0]), places[i][1]), (1.035, height), "axes fraction",
            "axes fraction", color=colour, va="center", ha="left", fontsize=9.5,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6,
                        "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip


def _within(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending `heights` moved to be at least `gap` apart and, if there is room, within 0 to 1."""
    spaced, lowest = list(heights), 0.0
    for k in range(len(spaced)):
        spaced[k] = max(spaced[k], lowest)
        lowest = spaced[k] + gap
    highest = 1.0
    for k in reversed(range(len(spaced))):
        spaced[k] = min(spaced[k], highest)
        highest = spaced[k] - gap
    return spaced


def dots(panels: Sequence[Panel], path: PngFile, theme: Theme = LIGHT) -> None:
    """Draws one row per line, its single value as a dot with its spread: for an x without order."""
    rows = max(len(p.lines) for p in panels)
    with figure(theme, 4.6 * len(panels), 0.9 + 0.32 * rows, len(panels)) as (fig, axes):
        for axis, panel in zip(axes, panels, strict=True):
            for k, line in enumerate(panel.lines):
                colour = theme["quiet"] if line.baseline else theme["lines"][0]
                spread = line.spread[0] if len(line.spread) else 0
                axis.errorbar(
                    line.y[0], k, xerr=spread or None, color=colour, marker="D" if line.baseline
                    else "o", markersize=5, elinewidth=1.2, capsize=2.5, markeredgewidth=0,
                )  # fmt: skip
            axis.set_yticks(range(len(panel.lines)), [line.name for line in panel.lines])
            axis.tick_params(axis="y", labelcolor=theme["ink"])
            axis.set_ylim(len(panel.lines) - 0.5, -0.5)
            axis.grid(axis="y", visible=False)
            axis.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold")
            axis.set_xlabel(panel.y)
        fig.subplots_adjust(wspace=0.6)
        save(fig, path)


def short(value: float) -> str:
    """A number for the ticks of an axis.

    Example:
      >>> [short(v) for v in (0.05, 1500, 15000, 2.5e6)]
      ['0.05', '1500', '15k', '2.5M']
    """
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit * 10 or (abs(value) >= unit and unit > 1e3):
            return f"{value / unit:.3g}{name}"
    return f"{value:.4g}"
