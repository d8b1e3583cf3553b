"""A paired test of every model against a reference, repetition by repetition."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from aejax.report.collect import Collection, facets, is_number, repetition, value_of
from aejax.report.columns import column_of
from aejax.report.table import Cell, Table, spread_text


@dataclasses.dataclass
class Comparison:
    """One model against the reference at one x.

    Attributes:
      facet, name, x: which model, on which data, at which value of `Settings.x`.
      mean, spread: of the paired differences (model - reference), in the unit of `Settings.y`;
        spread is their sample standard deviation, None for one pair.
      n: how many pairs.
      p: of the two-sided paired t-test; None if it cannot be computed.
    """

    facet: str
    name: str
    x: Any
    mean: float
    spread: float | None
    n: int
    p: float | None = None


def comparisons(collection: Collection) -> list[Comparison]:
    """Every model against `Settings.reference` at each x, paired by repetition.

    The p-values are corrected after Holm (1979) over all comparisons of a facet.
    """
    settings = collection.settings
    if not settings.reference:
        return []
    all_comparisons = []
    for facet, rows in facets(collection):
        # (model, x) -> repetition -> y
        values: dict[tuple, dict[tuple, float]] = {}
        for result in (r for row in rows for r in row.results):
            y = value_of(result, settings.y)
            if is_number(y):
                repetition_key = tuple(repr(value_of(result, key)) for key in settings.repeats)
                group = (value_of(result, settings.by), value_of(result, settings.x))
                values.setdefault(group, {})[repetition_key] = float(y)
        in_facet = []
        for (name, x), own in values.items():
            reference = values.get((settings.reference, x))
            if name == settings.reference or not reference:
                continue
            differences = [own[k] - reference[k] for k in own.keys() & reference.keys()]
            if differences:
                in_facet.append(compare(facet, name, x, differences))
        _correct_by_holm(in_facet)
        all_comparisons += in_facet
    return all_comparisons


def compare(facet: str, name: Any, x: Any, differences: Sequence[float]) -> Comparison:
    """The paired t-test of `differences`; p is None for one pair, or if all differences are equal.

    Example:
      >>> round(compare("digits", "conv", 16, [0.5, 0.4, 0.6]).p, 4)
      0.0131
    """
    n, mean = len(differences), statistics.fmean(differences)
    spread = statistics.stdev(differences) if n > 1 else None
    p = None
    if spread and spread > 1e-12 * abs(mean):
        from scipy.stats import ttest_1samp

        p = float(ttest_1samp(differences, 0.0).pvalue)
    return Comparison(facet, str(name), x, mean, spread, n, p)


def _correct_by_holm(compared: Sequence[Comparison]) -> None:
    """Multiplies the smallest of m p-values by m, the next by m - 1, and so on; a corrected value
    is not below the one before it, nor above 1."""
    ascending = [(c.p, c) for c in compared if c.p is not None]
    ascending.sort(key=lambda pair: pair[0])
    previous = 0.0
    for rank, (p, comparison) in enumerate(ascending):
        previous = max(previous, min(1.0, p * (len(ascending) - rank)))
        comparison.p = previous


def comparison_table(collection: Collection) -> Table | None:
    """The paired test as a table."""
    compared = comparisons(collection)
    if not compared:
        return None
    settings = collection.settings
    y = column_of(settings.y)
    headers = [column_of(settings.by).header, column_of(settings.x).header]
    headers += [f"difference in {y.header}", "pairs", "p"]
    aligned = "lrrrr"
    has_facets = len({c.facet for c in compared}) > 1
    if has_facets:
        headers, aligned = ["data", *headers], "l" + aligned
    rows = []
    for c in compared:
        text = f"{c.mean:+{y.format}}"
        text += "" if c.spread is None else f" ± {spread_text(c.spread, y.format)}"
        p = "" if c.p is None else ("< 0.0001" if c.p < 1e-4 else f"{c.p:.2g}")
        row = [Cell(c.name, c.name), Cell(f"{c.x:,}" if isinstance(c.x, int) else str(c.x), c.x),
               Cell(text, c.mean), Cell(str(c.n), float(c.n)), Cell(p, c.p)]  # fmt: skip
        rows.append([Cell(c.facet, c.facet), *row] if has_facets else row)
    all_rows = [row for _, rows_of_facet in facets(collection) for row in rows_of_facet]
    repeated = repetition(all_rows, settings.repeats).split(" x ")
    pairs = " and ".join(words.split(" ")[-1].removesuffix("s") for words in repeated)
    note = (
        f"against {settings.reference}, paired by {pairs}; "
        "p of the two-sided paired t-test, Holm-corrected"
    )
    return Table("", headers, aligned, rows, [note])
