"""The page of a report, report.html: the template page.html filled with the results."""

import base64
import dataclasses
import functools
import io
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aejax.files import JsonObject
from aejax.report import curves
from aejax.report.collect import Collection, Settings, facets, is_number, label_columns, value_of
from aejax.report.columns import column_of
from aejax.report.compare import comparison_table
from aejax.report.figures import DARK, LIGHT, FigureFile, Theme
from aejax.report.provenance import duration_text, provenance
from aejax.report.table import Cell, Table, tables

if TYPE_CHECKING:
    import jinja2

PICTURE_QUALITY = 85  # WebP quality of pictures; plots are stored without loss
DOTS_PER_CSS_PIXEL = 1.6  # plots are drawn at 160 dots per inch


@dataclasses.dataclass
class PageCell(Cell):
    """A cell with what only a page has: a link to a folder, a code font, line breaks."""

    link: str = ""
    code: bool = False
    wrap: bool = False


@dataclasses.dataclass
class PagePicture:
    """A picture as page.html shows it.

    Attributes:
      light, dark: data URLs of the picture for a light and a dark page; dark may be "".
      width, height: in pixels. shown_width: in CSS pixels.
      kind: "" for a plot, "pictures" for a sheet, "section" for a picture of a study's section.
    """

    light: str
    dark: str
    width: int
    height: int
    shown_width: int
    title: str
    caption: str
    kind: str


def to_html(
    collection: Collection,
    out: pathlib.Path,
    figures: Sequence[FigureFile],
    sheets: Sequence[FigureFile],
) -> str:
    """The text of the page; links to the folders of runs are relative to `out`."""
    first_config = collection.results[0].get("config")
    return _template().render(
        title=collection.settings.heading,
        facts=_facts(collection),
        studies=[{"heading": s.heading, "blocks": _text_blocks(s)} for s in collection.studies],
        tables=tables(collection),
        figures=_pictures(figures),
        curves=_curves(collection),
        comparison=comparison_table(collection),
        sheets=_pictures(sheets, "pictures"),
        sections=[_section(section) for section in collection.sections],
        runs=_runs_table(collection, out),
        differences=_differences_table(collection),
        config=json.dumps(first_config, indent=2, sort_keys=True) if first_config else "",
        provenance=provenance(collection),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


@functools.cache
def _template() -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent), autoescape=True
    )
    names: dict[str, Any] = {"LIGHT": LIGHT, "DARK": DARK, "colour_variables": _colour_variables}
    environment.globals.update(names)
    return environment.get_template("page.html")


def _colour_variables(theme: Theme) -> str:
    """The colours of lines as CSS variables: "--c0: #0072b2; --c1: ..."."""
    return " ".join(f"--c{i}: {colour};" for i, colour in enumerate(theme["lines"]))


def _facts(collection: Collection) -> Sequence[tuple[object, tuple[str, str]]]:
    """(value, (text before it, text after it)) of each fact at the head of the page."""
    results = collection.results
    seconds = sum((r.get("seconds") or {}).get("total", 0.0) for r in results)
    last = max(str(r.get("date", "")) for r in results)
    facts = [(len(results), ("", " runs" if len(results) > 1 else " run"))]
    facts += [(collection.missing, ("", " not done yet"))] if collection.missing else []
    facts += [(duration_text(seconds), ("", " of training"))] if seconds else []
    facts += [(last, ("last run ", ""))] if last else []
    return facts


def _text_blocks(study: Settings) -> list[tuple[str, str]]:
    """("p" or "pre", text) of each paragraph of the study's text; indented ones are code."""
    blocks = []
    for block in study.text.split("\n\n"):
        if not block.strip() or block.strip().rstrip(".") == study.title.rstrip("."):
            continue
        lines = block.splitlines()
        if all(line.startswith("    ") for line in lines):
            blocks.append(("pre", "\n".join(line[4:] for line in lines)))
        else:
            blocks.append(("p", " ".join(block.split())))
    return blocks


def _section(section: JsonObject) -> JsonObject:
    """A section that the study's `finish` returned, as {"title", "paragraphs", "picture"}."""
    paragraphs = [p for p in section.get("text", "").split("\n\n") if p.strip()]
    picture = None
    if section.get("picture"):
        picture = inline(FigureFile(pathlib.Path(section["picture"]), ""), "section")
    return {"title": section.get("title", ""), "paragraphs": paragraphs, "picture": picture}


# --- pictures -------------------------------------------------------------------------------------


def webp(data: bytes, quality: int = 0) -> tuple[str, int, int]:
    """A picture file as a data URL of a WebP, with its width and height; quality 0 = lossless."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        kind = {"quality": quality} if quality else {"lossless": True, "quality": 60}
        picture.convert("RGB").save(out, "WEBP", method=4, **kind)
        width, height = picture.size
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode(), width, height


def inline(figure: FigureFile, kind: str = "") -> PagePicture | None:
    """A figure, embedded; None if its file is missing or not readable.

    Args:
      kind: "" for a plot, which is stored without loss; "pictures" or "section" for photographs,
        whose files would be far larger, with PICTURE_QUALITY.
    """
    quality = PICTURE_QUALITY if kind else 0
    try:
        light, width, height = webp(figure.path.read_bytes(), quality)
    except OSError:
        return None
    dark = webp(figure.dark, quality)[0] if figure.dark else ""
    caption = f"{figure.title}. {figure.note[:1].upper()}{figure.note[1:]}".strip()
    caption = caption.rstrip(". ") + "." if caption.strip(". ") else ""
    shown_width = width if kind == "pictures" else round(width / DOTS_PER_CSS_PIXEL)
    return PagePicture(light, dark, width, height, shown_width, figure.title, caption, kind)


def _pictures(files: Sequence[FigureFile], kind: str = "") -> list[PagePicture]:
    return [picture for file in files if (picture := inline(file, kind)) is not None]


def _curves(collection: Collection) -> list[tuple[str, str]]:
    """(facet, HTML) of the training curves of each facet."""
    settings, sections = collection.settings, []
    labels = [*label_columns(collection), settings.x, *settings.repeats]
    varied = [c for c in labels if _varies(collection, c)]
    all_groups = [str(value_of(r, settings.by) or "") for r in collection.results]
    colours = {group: i % 7 for i, group in enumerate(dict.fromkeys(all_groups))}
    for facet, rows in facets(collection):
        results = [r for row in rows for r in row.results]
        names = []
        for r in results:
            values = [(column_of(c).header, value_of(r, c)) for c in varied]
            names.append(", ".join(f"{k} {v}" for k, v in values if v is not None) or r["id"])
        groups = [str(value_of(r, settings.by) or "") for r in results]
        header = column_of(settings.y).header
        svg = curves.section(results, names, groups, settings.y, header, colours)
        sections += [(facet, svg)] if svg else []
    return sections


# --- tables that only the page has ----------------------------------------------------------------


def _varies(collection: Collection, column: str) -> bool:
    return len({repr(value_of(r, column)) for r in collection.results}) > 1


def _runs_table(collection: Collection, out: pathlib.Path) -> Table:
    """A row for every run, with a link to its folder."""
    settings, results = collection.settings, collection.results
    columns = [settings.facet] if _varies(collection, settings.facet) else []
    columns += [*label_columns(collection), settings.x]
    columns += [key for key in settings.repeats if _varies(collection, key)]
    columns += [settings.y, "steps", "seconds.total"]
    columns = [
        c for c in dict.fromkeys(columns) if any(value_of(r, c) is not None for r in results)
    ]
    aligned = "".join("r" if is_number(value_of(results[0], c)) else "l" for c in columns)
    rows = []
    for r in results:
        cells: list[Cell] = [PageCell(r["id"], link=os.path.relpath(r["directory"], out))]
        for column in columns:
            value = value_of(r, column)
            text = "" if value is None else str(value)
            if isinstance(value, float):
                text = format(value, column_of(column).format)
            elif is_number(value):
                text = f"{value:,}"
            cells.append(PageCell(text, value))
        rows.append([*cells, PageCell(str(r.get("date", "")))])
    headers = ["run", *(column_of(c).header for c in columns), "date"]
    return Table("", headers, f"l{aligned}l", rows, [])


def _differences_table(collection: Collection) -> Table:
    """Config keys in which runs differ, with their values."""
    flat = [dict(_leaves(r.get("config") or {})) for r in collection.results]
    rows: list[list[Cell]] = []
    for key in dict.fromkeys(k for f in flat for k in f):
        values = list(dict.fromkeys(json.dumps(f.get(key)) for f in flat))
        if len(values) > 1:
            text = ", ".join(values[:12])
            text += f", ... {len(values)} in all" if len(values) > 12 else ""
            rows.append([PageCell(key, code=True), PageCell(text, wrap=True)])
    return Table("", ["key", "values"], "ll", rows, [])


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each leaf of nested dicts."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}{key}.")
    else:
        yield prefix[:-1], node
