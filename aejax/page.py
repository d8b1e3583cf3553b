"""The page of a report: one HTML file, images inside it, no network, light and dark."""

import base64
import dataclasses
import html
import io
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aejax import curves
from aejax.figures import DARK, LIGHT
from aejax.tables import (
    Collection,
    Table,
    comparison_table,
    facets,
    label_columns,
    provenance,
    spelled,
    spelled_time,
    tables,
    value_of,
)

PICTURE_QUALITY = 85  # of WebP; figures of lines are lossless


def _lines(theme: Mapping[str, Any]) -> str:
    return " ".join(f"--c{i}: {colour};" for i, colour in enumerate(theme["lines"]))


STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1c1e; --quiet: #6e6e73;
  --rule: #e4e4e8; --soft: #f6f6f8; --link: #0b62b0; --best: #00734f; --shade: #00000038;
  LIGHT_LINES }
@media (prefers-color-scheme: dark) { :root { --paper: #16171a; --ink: #ececef; --quiet: #a0a0a8;
  --rule: #33343a; --soft: #1f2024; --link: #7db8f0; --best: #4fd0a2;
  --shade: #ffffff38; DARK_LINES } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; letter-spacing: -.01em; margin: 3rem 0 .8rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { max-width: 44rem; margin: 0 0 .9rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.quiet, figcaption, .note { color: var(--quiet); font-size: .875rem; }
.facts { display: flex; flex-wrap: wrap; gap: .2rem 1.6rem; margin: 0 0 1.6rem; padding: 0;
  list-style: none; color: var(--quiet); font-size: .9rem; }
.facts b { color: var(--ink); font-weight: 600; }
.scroll { overflow-x: auto; margin: 0 0 .5rem;
  /* shadows at the sides where there is more to see: Lea Verou's */
  background: linear-gradient(to right, var(--paper) 30%, transparent) 0 0,
    linear-gradient(to left, var(--paper) 30%, transparent) 100% 0,
    linear-gradient(to right, var(--shade), transparent) 0 0,
    linear-gradient(to left, var(--shade), transparent) 100% 0;
  background-repeat: no-repeat; background-size: 40px 100%, 40px 100%, 14px 100%, 14px 100%;
  background-attachment: local, local, scroll, scroll; }
.hint { display: none; color: var(--quiet); font-size: .8rem; margin: 0 0 .3rem;
  text-align: right; }
.hint.on { display: block; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .9rem .38rem 0; text-align: left; white-space: nowrap; }
th:last-child, td:last-child { padding-right: .2rem; }
th { font-weight: 600; color: var(--quiet); border-bottom: 1.5px solid var(--rule);
  cursor: pointer; user-select: none; vertical-align: bottom; position: relative; }
th::after { content: "\\2191"; visibility: hidden; position: absolute; margin-left: .15em; }
th[aria-sort=ascending]::after { visibility: visible; }
th[aria-sort=descending]::after { visibility: visible; content: "\\2193"; }
th:focus-visible { outline: 2px solid var(--link); }
td { border-bottom: 1px solid var(--rule); } .r { text-align: right; }
td.wrap { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
tbody tr:hover { background: var(--soft); }
td.best { font-weight: 650; color: var(--best); }
figure { margin: 1rem 0 2rem; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .5rem; }
.curves { display: flex; flex-wrap: wrap; gap: 0 2rem; } .curve { flex: 1 1 20rem; margin: 0; }
.curve svg { width: 100%; height: auto; display: block; } .curve line { stroke: var(--rule); }
.curve text { fill: var(--quiet); font-size: 12px; }
.curve polyline { fill: none; stroke-width: 1.6; } .curve polyline:hover { stroke-width: 3.5; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .6rem 0 2rem; padding: 0;
  list-style: none; font-size: .9rem; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 50%;
  margin-right: .4em; }
COLOUR_CLASSES
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--soft); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto;
  margin: 0 0 1rem; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.4rem; font-size: .9rem;
  margin: 0 0 1.2rem; } dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 600px) { main { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.5rem; }
  h1, h2, p { overflow-wrap: anywhere; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin: 0 0 .6rem; } .scroll img { max-width: none; } }
@media print { .hint { display: none; } main { padding: 0; } details { display: none; } }
"""

SCRIPT = """
const hints = () => { for (const box of document.querySelectorAll('.scroll'))
  box.previousElementSibling.classList.toggle('on', box.scrollWidth > box.clientWidth + 1); };
addEventListener('resize', hints); addEventListener('load', hints); hints();
for (const head of document.querySelectorAll('th')) {
  const sort = () => {
    const table = head.closest('table'), body = table.tBodies[0];
    const i = [...head.parentNode.children].indexOf(head);
    const up = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of head.parentNode.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.children[i].dataset.v ?? row.children[i].textContent;
    const order = (a, b) => {
      const [p, q] = [key(a), key(b)], [m, n] = [parseFloat(p), parseFloat(q)];
      if (p === '' || q === '') return (p === '') - (q === '');
      const d = isNaN(m) || isNaN(n) ? p.localeCompare(q, undefined, {numeric: true}) : m - n;
      return up ? d : -d;
    };
    body.append(...[...body.rows].sort(order));
  };
  head.tabIndex = 0;
  head.addEventListener('click', sort);
  head.addEventListener('keydown', e => { if (e.key === 'Enter' || e.key === ' ') { sort();
    e.preventDefault(); } });
}
"""


# The colours of figures.py, as --c0, --c1, ... of a light and of a dark page.
STYLE = STYLE.replace("LIGHT_LINES", _lines(LIGHT)).replace("DARK_LINES", _lines(DARK))
STYLE = STYLE.replace(
    "COLOUR_CLASSES",
    "\n".join(
        f"i.c{i} {{ background: var(--c{i}); }} circle.c{i} {{ fill: var(--c{i}); }} "
        f"polyline.c{i} {{ stroke: var(--c{i}); }}"
        for i in range(len(LIGHT["lines"]))
    ),
)


@dataclasses.dataclass
class Figure:
    """A file of the report: `dark` is its bytes for a dark page, if it has any."""

    path: pathlib.Path
    title: str
    dark: bytes = b""
    note: str = ""


def to_html(
    collection: Collection,
    out: pathlib.Path,
    made: Sequence[Figure],
    sheets: Sequence[Figure],
) -> str:
    """The whole page; links to run directories are relative to `out`."""
    settings = collection.settings
    title = settings["title"] or settings["name"]
    body = [f"<h1>{_e(title)}</h1>", _facts(collection), *_prose(collection)]
    found = tables(collection)
    body.append("<h2>Results</h2>")
    for table in found:
        body += [f"<h3>{_e(table.title)}</h3>"] if table.title else []
        body.append(_html_table(table))
    body += [_html_figure(figure) for figure in made]
    body.append(_curves(collection))
    compared = comparison_table(collection)
    if compared:
        body += ["<h2>Paired comparison</h2>", _html_table(compared)]
    if sheets:
        body += ["<h2>Pictures</h2>"] + [_html_figure(s, "pictures") for s in sheets]
    for section in collection.sections:
        body.append(f"<h2>{_e(section.get('title', ''))}</h2>")
        body += [f"<p>{_e(p)}</p>" for p in section.get("text", "").split("\n\n") if p.strip()]
        if section.get("picture"):
            body.append(_html_figure(Figure(pathlib.Path(section["picture"]), ""), "section"))
    body += ["<h2>Runs</h2>", _runs(collection, out), _differences(collection)]
    body += ["<h2>Provenance</h2>", _provenance(collection)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_e(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _e(text: Any) -> str:
    return html.escape(str(text))


def _facts(collection: Collection) -> str:
    results = collection.results
    seconds = sum((r.get("seconds") or {}).get("total", 0.0) for r in results)
    dates = sorted(str(r.get("date", "")) for r in results)
    facts = [f"<b>{len(results)}</b> run{'s' if len(results) > 1 else ''}"]
    if collection.missing:
        facts.append(f"<b>{collection.missing}</b> still to be done")
    if seconds:
        facts.append(f"<b>{spelled_time(seconds)}</b> of training")
    if dates[-1]:
        facts.append(f"last run <b>{_e(dates[-1])}</b>")
    return '<ul class="facts">' + "".join(f"<li>{f}</li>" for f in facts) + "</ul>"


def _prose(collection: Collection) -> list[str]:
    """The study's text: paragraphs, and indented lines as they stand."""
    found = []
    for study in collection.studies:
        if len(collection.studies) > 1:
            found.append(f"<h3>{_e(study['title'] or study['name'])}</h3>")
        for block in study["text"].split("\n\n"):
            if not block.strip() or block.strip().rstrip(".") == study["title"].rstrip("."):
                continue
            if all(line.startswith("    ") for line in block.splitlines()):
                lines = "\n".join(line[4:] for line in block.splitlines())
                found.append(f"<pre>{_e(lines)}</pre>")
            else:
                found.append(f"<p>{_e(' '.join(block.split()))}</p>")
    return found


def _html_table(table: Table) -> str:
    sides = [' class="r"' if a == "r" else "" for a in table.aligned]
    head = "".join(f"<th{s}>{_e(h)}</th>" for h, s in zip(table.headers, sides, strict=True))
    rows = []
    for row in table.cells:
        cells = []
        for cell, a in zip(row, table.aligned, strict=True):
            classes = ["r"] * (a == "r") + ["best"] * cell.best
            value = f' data-v="{cell.value!r}"' if isinstance(cell.value, float) else ""
            style = f' class="{" ".join(classes)}"' if classes else ""
            cells.append(f"<td{style}{value}>{_e(cell.text)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f'<p class="note">{_e(note)}</p>' for note in table.notes)
    return (
        scrolling(
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>" + "\n".join(rows) + "</tbody></table>"
        )
        + notes
    )


def scrolling(content: str) -> str:
    """A table or figure that scrolls inside the page, with a word above it where it does."""
    hint = '<p class="hint">scroll for more &rarr;</p>'
    return f'{hint}<div class="scroll" tabindex="0">{content}</div>'


def webp(data: bytes, quality: int = 0) -> tuple[str, int, int]:
    """A picture file as the address of a WebP, with its width and height; quality 0 = lossless."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        kind = {"quality": quality} if quality else {"lossless": True, "quality": 60}
        picture.convert("RGB").save(out, "WEBP", method=4, **kind)
        width, height = picture.size
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode(), width, height


def _html_figure(figure: Figure, kind: str = "") -> str:
    """A figure of lines (lossless), or of "pictures" (lossy: they are larger by far)."""
    quality = PICTURE_QUALITY if kind else 0
    try:
        light, width, height = webp(figure.path.read_bytes(), quality)
    except OSError:  # not there, or no picture
        return ""
    dark = ""
    if figure.dark:
        source = webp(figure.dark, quality)[0]
        dark = f'<source srcset="{source}" media="(prefers-color-scheme: dark)">'
    wide = width if kind == "pictures" else round(width / 1.6)  # 160 dots per inch
    caption = f"{figure.title}. {figure.note[:1].upper()}{figure.note[1:]}".strip()
    caption = caption.rstrip(". ") + "." if caption.strip(". ") else ""
    image = (
        f'<picture>{dark}<img src="{light}" alt="{_e(figure.title)}" width="{wide}" '
        f'style="aspect-ratio: {width} / {height}"></picture>'
    )
    return (
        f"<figure{f' class={kind}' if kind else ''}>"
        + (image if kind else scrolling(image))  # lines with words have a least width
        + (f"<figcaption>{_e(caption)}</figcaption>" if caption else "")
        + "</figure>"
    )


def _curves(collection: Collection) -> str:
    """Loss and metric of every run against its steps, apart by facet."""
    settings, parts = collection.settings, []
    labels = [*label_columns(collection), settings["x"], *settings["over"]]
    varied = [c for c in labels if len({repr(value_of(r, c)) for r in collection.results}) > 1]
    for name, rows in facets(collection):
        results = [r for row in rows for r in row.results]
        names = []
        for r in results:
            values = [(spelled(c)[0], value_of(r, c)) for c in varied]
            names.append(", ".join(f"{k} {v}" for k, v in values if v is not None) or r["id"])
        groups = [str(value_of(r, settings["by"]) or "") for r in results]
        drawn = curves.section(results, names, groups, settings["y"], spelled(settings["y"])[0])
        if drawn:
            parts += [f"<h3>{_e(name)}</h3>"] if len(facets(collection)) > 1 else []
            parts.append(drawn)
    return "".join(["<h2>Training</h2>", *parts]) if parts else ""


def _runs(collection: Collection, out: pathlib.Path) -> str:
    """Every run with a link to its directory."""
    results = collection.results
    labels = label_columns(collection)
    varied = [k for k in collection.settings["over"]
              if len({repr(value_of(r, k)) for r in results}) > 1]  # fmt: skip
    y = collection.settings["y"]
    facet = collection.settings["facet"]
    plain = [facet] if len({repr(value_of(r, facet)) for r in results}) > 1 else []
    plain += [*labels, collection.settings["x"], *varied, y, "steps", "seconds.total"]
    plain = list(
        dict.fromkeys(c for c in plain if any(value_of(r, c) is not None for r in results))
    )
    numeric = {c for c in plain if isinstance(value_of(results[0], c), int | float)}
    sides = {c: ' class="r"' if c in numeric else "" for c in plain}
    head = "".join(f"<th{sides[c]}>{_e(spelled(c)[0])}</th>" for c in plain)
    rows = []
    for r in results:
        link = os.path.relpath(r["directory"], out)
        cells = [f'<td><a href="{_e(link)}/">{_e(r["id"])}</a></td>']
        for column in plain:
            value = value_of(r, column)
            text = value
            if isinstance(value, float):
                text = format(value, spelled(column)[1])
            elif isinstance(value, int) and not isinstance(value, bool):
                text = f"{value:,}"
            sort = f' data-v="{value!r}"' if isinstance(value, int | float) else ""
            cells.append(f"<td{sides[column]}{sort}>{_e('' if text is None else text)}</td>")
        cells.append(f"<td>{_e(r.get('date', ''))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return scrolling(
        f"<table><thead><tr><th>run</th>{head}<th>date</th></tr></thead>\n"
        f"<tbody>{chr(10).join(rows)}</tbody></table>"
    )


def _differences(collection: Collection) -> str:
    """Config keys in which runs differ, with their values; and the whole config of the first."""
    flat = [dict(_leaves(r.get("config") or {})) for r in collection.results]
    keys = list(dict.fromkeys(k for f in flat for k in f))
    rows = []
    for key in keys:
        values = list(dict.fromkeys(json.dumps(f.get(key)) for f in flat))
        if len(values) > 1:
            shown = ", ".join(values[:12]) + (f", ... {len(values)} in all" * (len(values) > 12))
            rows.append(
                f'<tr><td><code>{_e(key)}</code></td><td class="wrap">{_e(shown)}</td></tr>'
            )
    found = ""
    if rows:
        found = (
            "<details><summary>What differs between the configs</summary>"
            + scrolling(
                "<table><thead><tr><th>key</th><th>values</th></tr></thead><tbody>"
                + "\n".join(rows)
                + "</tbody></table>"
            )
            + "</details>"
        )
    first = collection.results[0].get("config")
    if first:
        text = json.dumps(first, indent=2, sort_keys=True)
        found += (
            f"<details><summary>Config of the first run</summary><pre>{_e(text)}</pre></details>"
        )
    return found


def _leaves(node: Any, prefix: str = ""):
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}{key}.")
    else:
        yield prefix[:-1], node


def _provenance(collection: Collection) -> str:
    parts = []
    for items in provenance(collection):
        rows = [
            f"<dt>{_e(k)}</dt><dd>{f'<code>{_e(v)}</code>' if k == 'command' else _e(v)}</dd>"
            for k, v in items.items()
        ]
        parts.append(f"<dl>{''.join(rows)}</dl>")
    written = time.strftime("%Y-%m-%d %H:%M")
    return "".join(parts) + f'<p class="note">Page written {written}.</p>'
