"""What the runs of studies have measured, as tables: means over repetitions, the baseline beside
each, the best of each column, a paired test against a reference; Markdown, LaTeX, CSV, terminal.

A column is a label ("@model"), a config key, a metric ("test/psnr"), a field of the result
("parameters"), "compression", or the metric of a baseline ("pca:test/psnr").
"""

import csv
import dataclasses
import io
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from aejax.config import split_key
from aejax.errors import UserError
from aejax.study import Study, load_results, read_json, read_result

# column -> (header, format, +1 if more is better, -1 if less is)
COLUMNS = {
    "latent_size": ("size of h", ",.0f", 0),
    "model.latent": ("model.latent", ",.0f", 0),
    "input_size": ("input", ",.0f", 0),
    "parameters": ("parameters", ",.0f", 0),
    "compression": ("compression", ",.1f", 0),
    "examples_per_sec": ("examples/s", ",.0f", 0),
    "steps": ("steps", ",.0f", 0),
    "seconds.total": ("time, s", ",.1f", 0),
    "cost.flops_per_step": ("FLOP/step", ".3g", 0),
    "test/psnr": ("PSNR, dB", ".2f", 1),
    "test/ssim": ("SSIM", ".4f", 1),
    "test/ms_ssim": ("MS-SSIM", ".4f", 1),
    "test/mse": ("MSE", ".5f", -1),
    "test/mae": ("MAE", ".5f", -1),
    "test/bpp": ("bits/pixel", ".4f", -1),
    "test/loss": ("loss", ".5g", -1),
    "test/fid": ("Frechet distance", ".2f", -1),
}
BASELINES = {"pca": "PCA"}
GLOSSARY = "size of h: all numbers of h for one image; model.latent: its channels"


def spelled(column: str) -> tuple[str, str, int]:
    """(header, format, better) of a column."""
    name, _, metric = column.rpartition(":")
    if name in BASELINES:
        header, form, better = spelled(metric)
        return BASELINES[name], form, better
    if column in COLUMNS:
        return COLUMNS[column]
    known = {"lr": "learning rate", "source": "data"}
    tail = column.lstrip("@").rpartition("/" if "/" in column else ".")[2]
    better = -1 if any(word in tail for word in ("loss", "error", "distance", "bits", "nll")) else 1
    return known.get(tail, tail.replace("_", " ")), ".4g", better if "/" in column else 0


# --- reading --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Collection:
    """Results of one or more studies and how they want to be shown."""

    settings: dict[str, Any]
    results: list[dict[str, Any]]
    studies: list[dict[str, Any]]
    sections: list[dict[str, Any]]
    missing: int = 0


def collect(directories: Sequence[str | pathlib.Path]) -> Collection:
    """Everything that stands in directories of studies, or of single runs.

    Raises:
      UserError: nothing stands there.
    """
    results, studies, sections, missing = [], [], [], 0
    for directory in map(pathlib.Path, directories):
        manifest = read_json(directory / "manifest.json")
        if manifest:
            found = load_results(directory)
            missing += len(manifest["runs"]) - len(found)
            for section in read_json(directory / "sections.json") or []:
                picture = section.get("picture")
                section |= {"picture": str(directory / picture)} if picture else {}
                sections.append(section)
        else:
            manifest, found = _single_runs(directory)
        _add_baselines(found, directory)
        for result in found:
            result["study"] = manifest["name"]
        studies.append(manifest | {"directory": str(directory)})
        results += found
    if not results:
        raise UserError(f"no finished run in {', '.join(map(str, directories))}")
    settings = dict(studies[0])
    for other in studies[1:]:
        settings["columns"] = list(dict.fromkeys([*settings["columns"], *other["columns"]]))
        for key in ("published", "pareto", "over"):
            settings[key] = [*settings[key], *(v for v in other[key] if v not in settings[key])]
    if len(studies) > 1:
        settings["title"] = " + ".join(s["title"] or s["name"] for s in studies)
        for result in results:
            result["labels"] = {"study": result["study"]} | result["labels"]
    return Collection(settings, results, studies, sections, missing)


def _single_runs(directory: pathlib.Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A workdir, or a folder of workdirs, as a study of runs named by their folders."""
    folders = [directory, *sorted(p.parent for p in directory.glob("*/result.json"))]
    found = []
    for folder in folders:
        result = read_result(folder)
        if result is not None:
            named = {"id": folder.name, "labels": {"run": folder.name}, "directory": str(folder)}
            found.append({"overrides": {}} | result | named)
    if not found:
        raise UserError(f"{directory} holds no study (manifest.json) and no run (result.json)")
    return Study(directory.name, None, by="@run").settings() | {"runs": []}, found


def _add_baselines(results: list[dict[str, Any]], directory: pathlib.Path) -> None:
    for name, found in (read_json(directory / "baselines.json") or {}).items():
        for result in results:
            key = found["runs"].get(result["id"])
            if key in found["values"]:
                value = dict(found["values"][key])
                pictures = directory / "baselines" / f"{name}-{key}.npz"
                value["pictures"] = str(pictures) if pictures.exists() else ""
                result.setdefault("baselines", {})[name] = value


def value_of(result: Mapping[str, Any], column: str) -> Any:
    """A column of one result; None if it has no such thing."""
    if column.startswith("@"):
        return result["labels"].get(column[1:])
    name, colon, metric = column.partition(":")
    if colon and name in BASELINES:
        baseline = result.get("baselines", {}).get(name)
        return baseline["metrics"].get(metric) if baseline else None
    if column in result["metrics"]:
        return result["metrics"][column]
    if column in result["overrides"]:
        value = result["overrides"][column]
        return value.get("name", str(value)) if isinstance(value, dict) else value
    if column == "compression":
        if result.get("latent_size"):
            return result["input_size"] / result["latent_size"]
        return None
    for root in (result, result.get("config") or {}):
        found: Any = root
        for part in split_key(column):
            found = found.get(part) if isinstance(found, dict) else None
        if found is not None and not isinstance(found, dict):
            return tuple(found) if isinstance(found, list) else found
    return None


# --- the table ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    """Runs that differ in nothing but the repetition."""

    results: list[dict[str, Any]]

    def first(self, column: str) -> Any:
        return value_of(self.results[0], column)

    def numbers(self, column: str) -> list[float]:
        found = [value_of(r, column) for r in self.results]
        return [float(v) for v in found if isinstance(v, int | float) and not isinstance(v, bool)]

    def mean(self, column: str) -> float | None:
        numbers = self.numbers(column)
        return statistics.fmean(numbers) if numbers else None

    def spread(self, column: str) -> float | None:
        """Sample standard deviation; None for one run."""
        numbers = self.numbers(column)
        return statistics.stdev(numbers) if len(numbers) > 1 else None


@dataclasses.dataclass
class Cell:
    """text as shown; value to sort by; best: of its column among rows of one x."""

    text: str
    value: Any = None
    best: bool = False


@dataclasses.dataclass
class Table:
    """One facet's rows. `aligned`: "l" or "r" of each column."""

    title: str
    headers: list[str]
    aligned: str
    cells: list[list[Cell]]
    notes: list[str]


def facets(collection: Collection) -> list[tuple[str, list[Row]]]:
    """(name, rows): the results apart by the facet, repetitions together, in their order."""
    settings = collection.settings
    over = set(settings["over"])
    found: dict[str, dict[str, Row]] = {}
    for result in collection.results:
        facet = value_of(result, settings["facet"]) if settings["facet"] else None
        same = {k: v for k, v in result["overrides"].items() if k not in over}
        key = repr((sorted(result["labels"].items()), sorted(same.items(), key=lambda i: i[0])))
        rows = found.setdefault("" if facet is None else str(facet), {})
        rows.setdefault(key, Row([])).results.append(result)
    return [(name, list(rows.values())) for name, rows in found.items()]


def label_columns(collection: Collection) -> list[str]:
    """Labels, and those overrides without which two rows would look the same."""
    results, settings = collection.results, collection.settings
    labels = list(dict.fromkeys(f"@{name}" for r in results for name in r["labels"]))
    labels = [c for c in labels if c[1:] not in settings["over"]]
    hidden = {*settings["over"], settings["facet"]}
    keys = list(dict.fromkeys(k for r in results for k in r["overrides"] if k not in hidden))
    seen = [*labels, settings["facet"], *(["latent_size"] if "latent_size" in
            settings["columns"] else [])]  # fmt: skip
    for key in keys:
        looks: dict[str, set[str]] = {}
        for result in results:
            look = repr([value_of(result, column) for column in seen])
            looks.setdefault(look, set()).add(repr(result["overrides"].get(key)))
        if any(len(values) > 1 for values in looks.values()):
            labels.append(key)
            seen.append(key)
    return labels


def table_columns(collection: Collection) -> list[str]:
    """Labels, then what the study asks for, each metric followed by its baselines."""
    columns = label_columns(collection)
    names = collection.settings["baselines"]
    for column in collection.settings["columns"]:
        if any(value_of(r, column) is not None for r in collection.results):
            columns.append(column)
        for name in names if column.startswith("test/") else ():
            if any(value_of(r, f"{name}:{column}") is not None for r in collection.results):
                columns.append(f"{name}:{column}")
    return list(dict.fromkeys(columns))


def tables(collection: Collection) -> list[Table]:
    """One table per facet."""
    columns = table_columns(collection)
    labels = set(label_columns(collection))
    parts = facets(collection)
    published = collection.settings["published"]
    found = []
    for name, rows in parts:
        cells = [[_cell(row, column, column in labels) for column in columns] for row in rows]
        search = collection.settings.get("search")
        if search:
            _mark_winner(rows, cells, search)
        else:
            _mark_best(rows, cells, columns, collection.settings["x"])
        sources: dict[str, list[str]] = {}
        for entry in published:
            if str(entry.get("facet", name)) == name:
                cells.append([_published_cell(entry, c, i == 0) for i, c in enumerate(columns)])
                sources.setdefault(entry.get("source", "published"), []).append(entry["name"])
        notes = [f"{'; '.join(names)}: {source}" for source, names in sources.items()]
        numeric = [any(isinstance(r[i].value, float) for r in cells) for i in range(len(columns))]
        counts = {len(row.results) for row in rows}
        if max(counts) > 1:
            what = repetition(rows, collection.settings["over"])
            notes.insert(0, f"mean ± standard deviation over {what}")
        if search:
            notes.append(f"in bold: the best of the search by {spelled(search['metric'])[0]}")
        if "latent_size" in columns and any(_is_spatial(row) for row in rows):
            notes.append(GLOSSARY)
        headers = [spelled(column)[0] for column in columns]
        title = name if len(parts) > 1 else ""
        aligned = "".join("r" if n else "l" for n in numeric)
        found.append(Table(title, headers, aligned, cells, notes))
    return found


def repetition(rows: Sequence[Row], over: Sequence[str]) -> str:
    """What is repeated in a row, in words: "3 seeds", "2 seeds x 5 folds", "1 to 3 seeds"."""
    words = []
    for key in over:
        counts = sorted({len({repr(value_of(r, key)) for r in row.results}) for row in rows})
        if counts[-1] > 1:
            count = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
            words.append(f"{count} {key.rpartition('.')[2]}s")
    most = max((len(row.results) for row in rows), default=1)
    return " x ".join(words) or f"{most} runs"


def _cell(row: Row, column: str, is_label: bool) -> Cell:
    form = spelled(column)[1]
    if is_label:
        value = row.first(column)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Cell(f"{value:g}", float(value))
        return Cell("" if value is None else str(value), value)
    mean = row.mean(column)
    if mean is None:
        value = row.first(column)
        return Cell("" if value is None else str(value), value)
    if not math.isfinite(mean):
        return Cell(str(mean), mean)
    text, spread = format(mean, form), row.spread(column)
    if spread is not None and ("/" in column and ":" not in column):
        text += f" ± {_like(spread, form)}"
    return Cell(text, mean)


def _like(spread: float, form: str) -> str:
    return format(spread, form if form.endswith("f") else ".2g")


def _published_cell(entry: Mapping[str, Any], column: str, is_first: bool) -> Cell:
    if is_first and column not in entry:
        return Cell(f"{entry['name']} (published)", entry["name"])
    value = entry.get(column, entry.get(column.lstrip("@")))
    if isinstance(value, int | float):
        return Cell(format(value, spelled(column)[1]), float(value))
    return Cell("" if value is None else str(value), value)


def _is_spatial(row: Row) -> bool:
    """Whether h has more numbers than channels."""
    channels = row.first("model.latent")
    return isinstance(channels, int) and row.first("latent_size") not in (None, 0, channels)


def _mark_winner(rows: Sequence[Row], cells: Sequence[Sequence[Cell]], search: Mapping) -> None:
    """All of the row that a search was for."""
    metric, better = search["metric"], search["better"]
    found = [(better * row.mean(metric), i) for i, row in enumerate(rows)
             if row.mean(metric) is not None and math.isfinite(row.mean(metric))]  # fmt: skip
    for cell in cells[max(found)[1]] if len(found) > 1 else ():
        cell.best = bool(cell.text)


def _mark_best(rows: Sequence[Row], cells, columns: Sequence[str], x: str) -> None:
    """The best of each metric among rows of the same x and their baselines; none if all tie."""
    for metric in columns:
        better = spelled(metric)[2]
        if not better or ":" in metric or "/" not in metric:
            continue
        places = [i for i, c in enumerate(columns) if c.rpartition(":")[2] == metric]
        groups: dict[Any, list[Cell]] = {}
        for row, line in zip(rows, cells, strict=True):
            numbers = (line[i] for i in places if isinstance(line[i].value, float))
            finite = [cell for cell in numbers if math.isfinite(cell.value)]
            groups.setdefault(row.first(x), []).extend(finite)
        for members in groups.values():
            if len(members) > 1:
                top = max(members, key=lambda cell: better * cell.value)
                tied = [c for c in members if c.text.split(" ")[0] == top.text.split(" ")[0]]
                for cell in tied if len(tied) < len(members) else ():
                    cell.best = True


def to_markdown(found: Sequence[Table], title: str = "") -> str:
    """Markdown, columns padded so that it reads well as plain text too."""
    lines = [f"# {title}", ""] if title else []
    for table in found:
        if table.title:
            lines += [f"## {table.title}", ""]
        rows = [table.headers]
        rows += [[f"**{c.text}**" if c.best else c.text for c in row] for row in table.cells]
        rows = [[text.replace("|", "\\|") for text in row] for row in rows]
        widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(table.headers))]
        for k, row in enumerate(rows):
            padded = [
                text.rjust(w) if a == "r" else text.ljust(w)
                for text, w, a in zip(row, widths, table.aligned, strict=True)
            ]
            lines.append("| " + " | ".join(padded) + " |")
            if k == 0:
                rules = ["-" * (w - 1) + (":" if a == "r" else "-")
                         for w, a in zip(widths, table.aligned, strict=True)]  # fmt: skip
                lines.append("| " + " | ".join(rules) + " |")
        lines.append("")
        lines += [f"{note}  " for note in table.notes] + ([""] if table.notes else [])
    return "\n".join(lines).rstrip() + "\n"


_TEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}  # fmt: skip


def to_latex(found: Sequence[Table], title: str = "", label: str = "") -> str:
    """Tables for booktabs."""

    def tex(text: str) -> str:
        return "".join(_TEX.get(c, c) for c in text)

    lines = ["% needs \\usepackage{booktabs}"]
    for table in found:
        caption = ": ".join(t for t in (title, table.title) if t)
        notes = "".join(f" {note[0].upper()}{note[1:]}." for note in table.notes)
        lines += [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{table.aligned}}}"]
        lines += [r"\toprule", " & ".join(map(tex, table.headers)) + r" \\", r"\midrule"]
        for row in table.cells:
            texts = [rf"\textbf{{{tex(c.text)}}}" if c.best else tex(c.text) for c in row]
            lines.append(" & ".join(texts) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{tex(caption + '.' + notes)}}}"]
        name = "-".join("".join(c if c.isalnum() else "-" for c in t) for t in (label, table.title))
        lines += [rf"\label{{tab:{name.strip('-')}}}", r"\end{table}", ""]
    return "\n".join(lines)


def to_csv(collection: Collection) -> str:
    """Every run on a line, every number in full."""
    results = collection.results

    def names(group: str) -> list[str]:
        return list(dict.fromkeys(k for r in results for k in r.get(group) or {}))

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    labels, overrides, metrics, seconds = map(names, ("labels", "overrides", "metrics", "seconds"))
    baselines = list(
        dict.fromkeys(
            (name, metric)
            for r in results
            for name, b in r.get("baselines", {}).items()
            for metric in b["metrics"]
        )
    )
    single = ("parameters", "latent_size", "input_size", "steps", "examples_per_sec")
    closing = ("date", "git", "machine", "directory")
    writer.writerow(
        ["study", "id", *(f"@{k}" for k in labels), *overrides, *metrics, *single]
        + [f"{name}:{metric}" for name, metric in baselines]
        + [*(f"seconds.{k}" for k in seconds), *closing]
    )
    for r in results:
        row = [r["study"], r["id"], *(r["labels"].get(k, "") for k in labels)]
        row += [_flat(r["overrides"].get(k, "")) for k in overrides]
        row += [r["metrics"].get(k, "") for k in metrics] + [r.get(k, "") for k in single]
        row += [r.get("baselines", {}).get(n, {"metrics": {}})["metrics"].get(m, "")
                for n, m in baselines]  # fmt: skip
        row += [(r.get("seconds") or {}).get(k, "") for k in seconds]
        writer.writerow(row + [r.get(k, "") for k in closing])
    return out.getvalue()


def _flat(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def print_table(directories: Sequence[str | pathlib.Path]) -> None:
    """The tables, on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    collection = collect(directories)
    console = Console()
    if not console.is_terminal:
        console.width = 400  # a file or a pipe has no edge to wrap at
    for table in tables(collection):
        shown = RichTable(
            title=table.title or None, title_justify="left", title_style="bold",
            box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True,
            caption="; ".join(table.notes) or None, caption_justify="left",
        )  # fmt: skip
        for header, side in zip(table.headers, table.aligned, strict=True):
            shown.add_column(header, justify="right" if side == "r" else "left", overflow="fold")
        previous = None
        for row in table.cells:
            if previous is not None and row[0].text != previous and len(table.cells) > 6:
                shown.add_section()
            previous = row[0].text
            shown.add_row(*(f"[bold green]{c.text}[/]" if c.best else c.text for c in row))
        console.print(shown)


# --- a paired test --------------------------------------------------------------------------------


@dataclasses.dataclass
class Comparison:
    """`name` against the reference at one x: mean and spread of the differences, n pairs."""

    facet: str
    name: str
    x: Any
    mean: float
    spread: float | None
    n: int
    p: float | None = None


def comparisons(collection: Collection) -> list[Comparison]:
    """Every model against `reference`, repetition by repetition, at each x.

    p is of the two-sided paired t-test, corrected after Holm over all rows of a facet.
    """
    settings = collection.settings
    reference, by, x, y = (settings[k] for k in ("reference", "by", "x", "y"))
    if not reference:
        return []
    over, found = list(settings["over"]), []
    for facet, rows in facets(collection):
        values: dict[tuple, dict[tuple, float]] = {}
        for result in (r for row in rows for r in row.results):
            value = value_of(result, y)
            if isinstance(value, int | float):
                place = tuple(repr(value_of(result, key)) for key in over)
                group = (value_of(result, by), value_of(result, x))
                values.setdefault(group, {})[place] = float(value)
        part = []
        for (name, at), mine in values.items():
            theirs = values.get((reference, at))
            if name == reference or not theirs:
                continue
            differences = [mine[k] - theirs[k] for k in mine.keys() & theirs.keys()]
            if differences:
                part.append(_compare(facet, name, at, differences))
        tested = sorted((c for c in part if c.p is not None), key=lambda c: c.p)
        last = 0.0
        for rank, comparison in enumerate(tested):
            last = max(last, min(1.0, comparison.p * (len(tested) - rank)))
            comparison.p = last
        found += part
    return found


def _compare(facet: str, name: Any, x: Any, differences: Sequence[float]) -> Comparison:
    n, mean = len(differences), statistics.fmean(differences)
    spread = statistics.stdev(differences) if n > 1 else None
    p = None
    if spread and spread > 1e-12 * abs(mean):
        from scipy.stats import t

        p = float(2 * t.sf(abs(mean) / (spread / math.sqrt(n)), n - 1))
    return Comparison(facet, str(name), x, mean, spread, n, p)


def comparison_table(collection: Collection) -> Table | None:
    """The paired test as a table."""
    found = comparisons(collection)
    if not found:
        return None
    settings = collection.settings
    header, form, _ = spelled(settings["y"])
    headers = [spelled(settings["by"])[0], spelled(settings["x"])[0], f"difference in {header}"]
    headers += ["pairs", "p"]
    several = len({c.facet for c in found}) > 1
    rows = []
    for c in found:
        text = f"{c.mean:+{form}}" + ("" if c.spread is None else f" ± {_like(c.spread, form)}")
        p = "" if c.p is None else ("< 0.0001" if c.p < 1e-4 else f"{c.p:.2g}")
        row = [Cell(c.name, c.name), Cell(f"{c.x:,}" if isinstance(c.x, int) else str(c.x), c.x),
               Cell(text, c.mean), Cell(str(c.n), float(c.n)), Cell(p, c.p)]  # fmt: skip
        rows.append([Cell(c.facet, c.facet), *row] if several else row)
    everything = [row for _, part in facets(collection) for row in part]
    repeated = repetition(everything, settings["over"]).split(" x ")
    pairs = " and ".join(words.split(" ")[-1].removesuffix("s") for words in repeated)
    note = (
        f"against {settings['reference']}, paired by {pairs}; "
        "p of the two-sided paired t-test, Holm-corrected"
    )
    first = ["data"] if several else []
    return Table("", first + headers, ("l" if several else "") + "lrrrr", rows, [note])


# --- where it comes from --------------------------------------------------------------------------


def provenance(collection: Collection) -> list[dict[str, str]]:
    """Command, versions, machine, git, time: once for all runs that share the first three."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for r in collection.results:
        same = (r.get("command"), r.get("machine"), r.get("versions"))
        groups.setdefault(repr(same), []).append(r)
    found = []
    for members in groups.values():
        r = members[0]
        dates = sorted(str(m.get("date", "")) for m in members)
        seconds = sum((m.get("seconds") or {}).get("total", 0.0) for m in members)
        of = ", ".join(m["id"] for m in members[:6]) + (", ..." if len(members) > 6 else "")
        data = {(r.get("data") or {}).get("train", ""): (r.get("data") or {}).get("fingerprint", "")
                for r in members}  # fmt: skip
        items = {
            "runs": f"{len(members)}" + (f" ({of})" if len(groups) > 1 else ""),
            "command": r.get("command"),
            "versions": ", ".join(f"{k} {v}" for k, v in (r.get("versions") or {}).items()),
            "machine": r.get("machine"),
            "git revision": ", ".join(dict.fromkeys(m["git"] for m in members if m.get("git"))),
            "wall time": spelled_time(seconds) if seconds else "",
            "date": dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
            "data": "; ".join(f"{k} ({v})" for k, v in data.items() if k),
        }
        found.append({name: value for name, value in items.items() if value})
    return found


def spelled_time(seconds: float) -> str:
    """ "75 s", "12 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
