"""Writes the report of a study, or of several studies together.

    table.md  table.tex     means over repetitions, with the baselines beside them
    results.csv             a line for every run, with everything that was measured
    *.png                   figures, and sheets of originals above reconstructions
    report.html             all of it in one file, which needs no other file and no network

Everything is read from the folders of studies (manifest.json, ID/result.json, baselines.json), so a
report can be written again at any time.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence

from aejax.errors import UserError
from aejax.report.collect import Collection, collect
from aejax.report.compare import comparison_table
from aejax.report.page import to_html
from aejax.report.panels import make_figures
from aejax.report.provenance import provenance
from aejax.report.render import to_csv, to_latex, to_markdown
from aejax.report.sheets import make_sheets
from aejax.report.table import tables

WRITTEN = ("report.html", "table.md", "table.tex", "results.csv")  # besides figures


def write_report(
    directories: Sequence[str | pathlib.Path], out: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Writes the report of the studies or runs in `directories`.

    The files are first written to a temporary folder; several processes may do this at once.

    Args:
      out: folder of the report; None = the study's own, or of several studies the folder "report"
        beside the first.

    Returns:
      The path of report.html.

    Raises:
      UserError: nothing to report, or `out` cannot be written.
    """
    collection = collect(directories)
    folders = [pathlib.Path(d) for d in directories]
    if out is None:
        out = folders[0] if len(folders) == 1 else folders[0].parent / "report"
    out = pathlib.Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as draft:
            _write_files(collection, pathlib.Path(draft), out)
            for file in pathlib.Path(draft).iterdir():
                file.replace(out / file.name)
    except OSError as e:
        raise UserError(f"cannot write the report to {out}: {e.strerror or e}") from e
    return out / "report.html"


def _write_files(collection: Collection, folder: pathlib.Path, out: pathlib.Path) -> None:
    """All files of the report into `folder`; links are relative to `out`."""
    figures = make_figures(collection, folder)
    sheets = make_sheets(collection, folder)
    title, name = collection.settings.heading, collection.settings.name
    shown, comparison = tables(collection), comparison_table(collection)
    text = to_markdown(shown, title)
    if comparison:
        text += "\n" + to_markdown([dataclasses.replace(comparison, title="Comparison")])
    for items in provenance(collection):
        text += "\n" + "".join(f"- {key}: {value}\n" for key, value in items.items())
    (folder / "table.md").write_text(text)
    (folder / "table.tex").write_text(to_latex(shown, title, name))
    (folder / "results.csv").write_text(to_csv(collection))
    (folder / "report.html").write_text(to_html(collection, out, figures, sheets))
