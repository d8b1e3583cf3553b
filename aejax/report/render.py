"""Writes tables as Markdown, LaTeX and CSV, and prints them."""

import csv
import io
import json
import pathlib
from collections.abc import Sequence

from aejax.report.collect import Collection, collect
from aejax.report.table import Table, tables


def to_markdown(shown: Sequence[Table], title: str = "") -> str:
    """Tables as Markdown; columns are padded, so that the text is readable as it is."""
    lines = [f"# {title}", ""] if title else []
    for table in shown:
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


def to_latex(shown: Sequence[Table], title: str = "", label: str = "") -> str:
    """Tables as LaTeX for the package booktabs.

    Args:
      title: begins the captions.
      label: begins the labels, which are "tab:LABEL-FACET".
    """

    def tex(text: str) -> str:
        return "".join(_TEX.get(c, c) for c in text)

    lines = ["% needs \\usepackage{booktabs}"]
    for table in shown:
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
    """A line for every run, with all its numbers unrounded."""
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


def _flat(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value


def print_table(directories: Sequence[str | pathlib.Path]) -> None:
    """Prints the tables of the results in `directories` on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    collection = collect(directories)
    console = Console()
    if not console.is_terminal:
        console.width = 400  # a file or a pipe has no edge to wrap at
    for table in tables(collection):
        rich_table = RichTable(
            title=table.title or None, title_justify="left", title_style="bold",
            box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True,
            caption="; ".join(table.notes) or None, caption_justify="left",
        )  # fmt: skip
        for header, side in zip(table.headers, table.aligned, strict=True):
            rich_table.add_column(
                header, justify="right" if side == "r" else "left", overflow="fold"
            )
        previous = None
        for row in table.cells:
            if previous is not None and row[0].text != previous and len(table.cells) > 6:
                rich_table.add_section()
            previous = row[0].text
            rich_table.add_row(*(f"[bold green]{c.text}[/]" if c.best else c.text for c in row))
        console.print(rich_table)
