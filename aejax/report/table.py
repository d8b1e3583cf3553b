"""The table of a report: means over repetitions, baselines beside them, the best in bold."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from aejax.files import JsonObject
from aejax.report.collect import (
    Collection,
    Row,
    facets,
    is_number,
    label_columns,
    repetition,
    value_of,
)
from aejax.report.columns import GLOSSARY, column_of
from aejax.result import Metric


@dataclasses.dataclass
class Cell:
    """A cell of a table.

    Attributes:
      text: as it is shown.
      value: what it is sorted by, if it is a number.
      best: whether it is shown in bold: the best of its column among rows of equal x.
    """

    text: str
    value: Any = None
    best: bool = False

    @property
    def sort(self) -> str | None:
        """The number that the page sorts by, as text; None if the cell has no number."""
        return repr(self.value) if is_number(self.value) else None


@dataclasses.dataclass
class Table:
    """One table.

    Attributes:
      title: the facet, or "" if there is only one.
      headers: one for each column.
      aligned: "l" or "r" for each column, as in LaTeX.
      cells: the rows.
      notes: printed below it.
    """

    title: str
    headers: list[str]
    aligned: str
    cells: list[list[Cell]]
    notes: list[str]


def table_columns(collection: Collection) -> list[str]:
    """The columns: labels, then `Settings.columns`, each metric followed by its baselines. Columns
    without a value in any result are left out."""
    columns = label_columns(collection)
    names = collection.settings.baselines
    for column in collection.settings.columns:
        if any(value_of(r, column) is not None for r in collection.results):
            columns.append(column)
        for name in names if column.startswith("test/") else ():
            if any(value_of(r, f"{name}:{column}") is not None for r in collection.results):
                columns.append(f"{name}:{column}")
    return list(dict.fromkeys(columns))


def tables(collection: Collection) -> list[Table]:
    """A table for each facet."""
    columns = table_columns(collection)
    parts = facets(collection)
    return [
        _table(collection, name if len(parts) > 1 else "", name, rows, columns)
        for name, rows in parts
    ]


def _table(
    collection: Collection, title: str, facet: str, rows: Sequence[Row], columns: Sequence[str]
) -> Table:
    settings, labels = collection.settings, set(label_columns(collection))
    cells = [[_cell(row, column, column in labels) for column in columns] for row in rows]
    notes = []
    if max(len(row.results) for row in rows) > 1:
        notes.append(f"mean ± standard deviation over {repetition(rows, settings.repeats)}")
    if settings.search:
        _mark_winner(rows, cells, settings.search)
    else:
        _mark_best(rows, cells, columns, settings.x)
    sources: dict[str, list[str]] = {}
    for entry in settings.published:
        if str(entry.get("facet", facet)) == facet:
            cells.append([_published_cell(entry, c, i == 0) for i, c in enumerate(columns)])
            sources.setdefault(entry.get("source", "published"), []).append(entry["name"])
    notes += [f"{'; '.join(names)}: {source}" for source, names in sources.items()]
    if settings.search:
        metric = column_of(settings.search["metric"]).header
        notes.append(f"in bold: the best of the search by {metric}")
    if "latent_size" in columns and any(_is_spatial(row) for row in rows):
        notes.append(GLOSSARY)
    numeric = [any(isinstance(r[i].value, float) for r in cells) for i in range(len(columns))]
    aligned = "".join("r" if n else "l" for n in numeric)
    return Table(title, [column_of(c).header for c in columns], aligned, cells, notes)


def _cell(row: Row, column: str, is_label: bool) -> Cell:
    form = column_of(column).format
    first = row.first(column)
    if is_label and is_number(first):
        return Cell(f"{first:g}", float(first))
    mean = None if is_label else row.mean(column)
    if mean is None:
        return Cell("" if first is None else str(first), first)
    if not math.isfinite(mean):
        return Cell(str(mean), mean)
    text, spread = format(mean, form), row.spread(column)
    if spread is not None and ("/" in column and ":" not in column):
        text += f" ± {spread_text(spread, form)}"
    return Cell(text, mean)


def spread_text(spread: float, form: str) -> str:
    """A standard deviation, with as many decimals as `form` gives its mean, or else two significant
    digits.

    Example:
      >>> spread_text(0.1234, ".2f"), spread_text(0.1234, ".4g")
      ('0.12', '0.12')
    """
    return format(spread, form if form.endswith("f") else ".2g")


def _published_cell(entry: JsonObject, column: str, is_first: bool) -> Cell:
    if is_first and column not in entry:
        return Cell(f"{entry['name']} (published)", entry["name"])
    value = entry.get(column, entry.get(column.lstrip("@")))
    if isinstance(value, int | float):
        return Cell(format(value, column_of(column).format), float(value))
    return Cell("" if value is None else str(value), value)


def _is_spatial(row: Row) -> bool:
    """Whether h has more numbers than channels."""
    channels = row.first("model.latent")
    return isinstance(channels, int) and row.first("latent_size") not in (None, 0, channels)


def _mark_winner(rows: Sequence[Row], cells: Sequence[Sequence[Cell]], search: Mapping) -> None:
    """Marks the cells of the search's best row."""
    metric = Metric(search["metric"], search["larger_is_better"])
    means = [row.mean(metric.name) for row in rows]
    scores = [
        (metric.score(m), i) for i, m in enumerate(means) if m is not None and math.isfinite(m)
    ]
    for cell in cells[max(scores)[1]] if len(scores) > 1 else ():
        cell.best = bool(cell.text)


def _mark_best(rows: Sequence[Row], cells, columns: Sequence[str], x: str) -> None:
    """Marks the best of each metric among rows of equal x and their baselines; none if all are
    equal as printed."""
    for column in columns:
        larger_is_better = column_of(column).larger_is_better
        if larger_is_better is None or ":" in column or "/" not in column:
            continue
        metric = Metric(column, larger_is_better)
        places = [i for i, c in enumerate(columns) if c.rpartition(":")[2] == column]
        groups: dict[Any, list[Cell]] = {}
        for row, line in zip(rows, cells, strict=True):
            numbers = (line[i] for i in places if isinstance(line[i].value, float))
            finite = [cell for cell in numbers if math.isfinite(cell.value)]
            groups.setdefault(row.first(x), []).extend(finite)
        for members in groups.values():
            if len(members) > 1:
                top = max(members, key=lambda cell: metric.score(cell.value))
                tied = [c for c in members if c.text.split(" ")[0] == top.text.split(" ")[0]]
                for cell in tied if len(tied) < len(members) else ():
                    cell.best = True
