"""A finished study as something to read, and to cite: tables, figures, pictures, one page.

    table.md  table.tex     the means over seeds, with the baseline beside each
    results.csv             every run on a line, with everything that was measured
    *.png                   figures, and originals over reconstructions
    report.html             all of it in one file that needs no other and no network

Everything is read from the directories of studies (manifest.json, ID/result.json, baselines.json),
so a report can be written again at any time, and several studies can be joined in one.
"""

import dataclasses
import io
import math
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aejax import files
from aejax.errors import UserError
from aejax.page import Figure, to_html
from aejax.tables import (
    BASELINES,
    Collection,
    Row,
    collect,
    comparison_table,
    facets,
    label_columns,
    print_table,
    provenance,
    repetition,
    spelled,
    tables,
    to_csv,
    to_latex,
    to_markdown,
)

PICTURES = 10  # images in a row of the sheet of reconstructions
SHEET_ROWS = 14  # models in a sheet; of more sizes of h, evenly chosen ones are shown


# --- figures and pictures -------------------------------------------------------------------------


def make_figures(collection: Collection, out: pathlib.Path) -> list[Figure]:
    """Curves of y against x, then what the study asks for as Pareto fronts."""
    from aejax import figures

    settings = collection.settings
    asked = [(settings["x"], settings["y"], False)]
    asked += [(x, y, True) for x, y in settings["pareto"]]
    made = []
    for x, y, front in asked:
        panels = [p for p in (_panel(collection, *f, x, y, front) for f in facets(collection)) if p]
        if not panels:
            continue
        name = "-".join(c.lstrip("@").replace("test/", "") for c in (y, x))
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in name) + ".png"
        draw = figures.dots if panels[0].x == "" else figures.curves
        draw(panels, out / name)
        dark = io.BytesIO()
        draw(panels, dark, figures.DARK)
        what = " against ".join(w.replace(",", " in") for w in (panels[0].y, panels[0].x) if w)
        made.append(Figure(out / name, what, dark.getvalue(), _figure_note(collection, front)))
    return made


def _figure_note(collection: Collection, front: bool) -> str:
    notes = []
    if any(len(row.results) > 1 for _, rows in facets(collection) for row in rows):
        every = [row for _, rows in facets(collection) for row in rows]
        repeated = repetition(every, collection.settings["over"])
        notes.append(f"bars: standard deviation over {repeated}")
    if front:
        notes.append("line: the Pareto front")
    return "; ".join(notes)


def _panel(collection: Collection, facet: str, rows: Sequence[Row], x: str, y: str, front: bool):
    from aejax.figures import Line, Panel

    settings = collection.settings
    rows = [row for row in rows if row.mean(y) is not None and math.isfinite(row.mean(y))]
    if not rows:
        return None
    several = len(facets(collection)) > 1
    title = facet if several else ""
    by = settings["by"]
    ordered = all(isinstance(row.first(x), int | float) for row in rows)
    if not ordered or len({row.first(x) for row in rows}) == 1 and not front:
        labels = label_columns(collection)
        lines = []
        for row in rows:
            name = ", ".join(str(row.first(c)) for c in labels if row.first(c) is not None)
            spread = row.spread(y)
            lines.append(Line(name, [0], [row.mean(y)], [spread] if spread else []))
        for name in settings["baselines"]:
            values = {row.mean(f"{name}:{y}") for row in rows} - {None}
            lines += [Line(BASELINES[name], [0], [v], baseline=True) for v in sorted(values)]
        return Panel(title, lines, "", spelled(y)[0], spelled(y)[2])
    names = [c for c in label_columns(collection) if c not in (x, settings["facet"])]
    names = [by] if any(row.first(by) is not None for row in rows) else names
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        name = ", ".join(str(row.first(c)) for c in names if row.first(c) is not None)
        point = (float(row.mean(x) or row.first(x)), row.mean(y), row.spread(y) or 0.0)
        lines.setdefault(name or spelled(y)[0], []).append(point)
    drawn = [Line(name, *zip(*sorted(points), strict=True)) for name, points in lines.items()]
    for name in settings["baselines"]:
        points = {
            float(row.first(x)): row.mean(f"{name}:{y}")
            for row in rows
            if x == "latent_size" and row.mean(f"{name}:{y}") is not None
        }
        if len(points) > 1:
            xs = sorted(points)
            drawn.append(Line(BASELINES[name], xs, [points[v] for v in xs], baseline=True))
    header, _, better = spelled(y)
    words = {"latent_size": "size of h", "parameters": "parameters"}
    return Panel(title, drawn, words.get(x, spelled(x)[0]), header, better, front)


def make_sheets(collection: Collection, out: pathlib.Path) -> list[Figure]:
    """Originals over reconstructions, one sheet per facet: the same images for every model."""
    from aejax import pictures

    made = []
    parts = facets(collection)
    for facet, rows in parts:
        file = "reconstructions"
        if len(parts) > 1:
            file += "-" + "".join(c if c.isalnum() else "-" for c in facet.rpartition(":")[2])
        title = "Originals over reconstructions" + (f": {facet}" if len(parts) > 1 else "")
        shown = [(row, found) for row in rows if (found := _examples(row.results[0])) is not None]
        if not shown:
            continue
        original = shown[0][1]["x"]
        shown = [(row, found) for row, found in shown if np.array_equal(found["x"], original)]
        shown = _thinned(shown, collection.settings["x"])
        side = 96 if len(shown) < 5 else 72
        columns = max(1, min(PICTURES, 900 // max(original.shape[2], side)))
        lines: list[Any] = [("original", "", original[:columns])]
        labels = [c for c in label_columns(collection) if c != collection.settings["facet"]]
        x = collection.settings["x"]
        for at in dict.fromkeys(row.first(x) for row, _ in shown):
            group = [(row, found) for row, found in shown if row.first(x) == at]
            lines.append(None)
            for name in collection.settings["baselines"]:
                line = _baseline_line(group[0][0], name, x, at, columns)
                lines += [line] if line else []
            for row, found in group:
                words = [str(row.first(c)) for c in labels if row.first(c) is not None]
                words += [f"{at:,}"] if isinstance(at, int) and x not in labels else []
                lines.append((", ".join(words), _note(row.results[0]["metrics"]),
                              found["y"][:columns]))  # fmt: skip
        pictures.save(out / f"{file}.png", pictures.rows_sheet(lines, side))
        dark = io.BytesIO()
        pictures.save(dark, pictures.rows_sheet(lines, side, theme=pictures.DARK))
        note = "the first images of the test split; PSNR is the mean over the whole split"
        made.append(Figure(out / f"{file}.png", title, dark.getvalue(), note))
    return made


def _examples(result: Mapping[str, Any]) -> Mapping[str, np.ndarray] | None:
    try:
        with np.load(pathlib.Path(result["directory"]) / "pictures" / "examples.npz") as file:
            return {"x": file["x"], "y": file["y"]}
    except (OSError, KeyError, ValueError):
        return None


def _thinned(shown, x: str):
    """At most SHEET_ROWS rows: of the sizes of h the smallest, the largest and some between."""
    sizes = list(dict.fromkeys(row.first(x) for row, _ in shown))
    if all(isinstance(s, int | float) for s in sizes):
        sizes.sort()
    models = max(sum(row.first(x) == s for row, _ in shown) for s in sizes) + 1
    count = max(1, SHEET_ROWS // models)
    if count < len(sizes):
        places = np.linspace(0, len(sizes) - 1, count) if count > 1 else [len(sizes) // 2]
        sizes = [sizes[round(p)] for p in places]
    kept = [(row, found) for s in sizes for row, found in shown if row.first(x) == s]
    return kept[:SHEET_ROWS]


def _note(metrics: Mapping[str, float]) -> str:
    psnr = metrics.get("test/psnr")
    return f"{psnr:.2f} dB" if psnr is not None else ""


def _baseline_line(row: Row, name: str, x: str, at: Any, columns: int):
    baseline = row.results[0].get("baselines", {}).get(name)
    if not baseline or not baseline["pictures"] or x != "latent_size":
        return None
    try:
        with np.load(baseline["pictures"]) as file:
            images = file["y"][:columns]
    except (OSError, KeyError, ValueError):
        return None
    return f"{BASELINES[name]}, {at:,}", _note(baseline["metrics"]), images


WRITTEN = ("report.html", "table.md", "table.tex", "results.csv")  # and figures beside them

# --- writing --------------------------------------------------------------------------------------


def write(
    directories: Sequence[str | pathlib.Path], out: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Writes the report of studies to `out` (the study's own directory, or "report" beside them).

    Files are made elsewhere and put in place whole: several processes may do this at once.

    Returns:
      the path of report.html.

    Raises:
      UserError: nothing to report, or `out` cannot be written.
    """
    collection = collect(directories)
    directories = [pathlib.Path(d) for d in directories]
    if out is None:
        out = directories[0] if len(directories) == 1 else directories[0].parent / "report"
    out = pathlib.Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as draft:
            folder = pathlib.Path(draft)
            made = make_figures(collection, folder)
            sheets = make_sheets(collection, folder)
            title = collection.settings["title"] or collection.settings["name"]
            found = tables(collection)
            compared = comparison_table(collection)
            text = to_markdown(found, title)
            if compared:
                text += "\n" + to_markdown([dataclasses.replace(compared, title="Comparison")])
            for items in provenance(collection):
                text += "\n" + "".join(f"- {name}: {value}\n" for name, value in items.items())
            (folder / "table.md").write_text(text)
            (folder / "table.tex").write_text(to_latex(found, title, collection.settings["name"]))
            (folder / "results.csv").write_text(to_csv(collection))
            (folder / "report.html").write_text(to_html(collection, out, made, sheets))
            for file in folder.iterdir():
                file.replace(out / file.name)
    except OSError as e:
        raise UserError(f"cannot write the report to {out}: {e.strerror or e}") from e
    return out / "report.html"


def run_command(args: Any) -> int:
    """`aejax report DIR... [-o OUT]`."""
    if args.out:  # a study's own folder is the report's own; any other may hold files of the user
        files.check_outputs([pathlib.Path(args.out, name) for name in WRITTEN], force=args.force)
    page = write(args.directories, args.out)
    print_table(args.directories)
    print(f"\n{page}")
    return 0
