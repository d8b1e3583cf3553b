"""The command `aejax data`:

list             data sets on this machine
show SOURCE      size, classes and splits of a source, and a sheet of its images
check SOURCE     unreadable and duplicate images (check.py)
pack SOURCE OUT  decoded crops in array_record files (packed.py)
"""

import argparse
import os
from pathlib import Path

from aejax import files
from aejax.cli import Verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the four subcommands and their arguments."""
    from aejax.data import packed

    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="list|show|check|pack")
    list_parser = verbs.add_parser("list", help="data sets on this machine")
    show = verbs.add_parser(
        "show", help="size, classes and splits of a source, and a sheet of its images"
    )
    check = verbs.add_parser(
        "check", help="find unreadable, too small and duplicate images; exit status 0 or 2"
    )
    packed.add_arguments(verbs.add_parser("pack", help="write decoded crops to array_record files"))
    for sub in (show, check):
        sub.add_argument("source", help="folder:PATH, tfds:NAME, arrays:FILE, hf:NAME or bundled:*")
    show.add_argument(
        "-o", "--out", default="sheet.png", help="file of the sheet (default: sheet.png)"
    )
    files.add_force(show)
    show.add_argument("--split", default="", help="default: all of a folder, train of a TFDS set")
    show.add_argument(
        "--images", type=int, default=40, help="number of images on the sheet, spread evenly (40)"
    )
    check.add_argument("--split", default="train", help="as data.split (train)")
    check.add_argument("--eval-split", default="test", help="as data.eval_split (test)")
    check.add_argument(
        "--min-size", type=int, default=0, help="smallest allowed side in pixels, as data.crop"
    )
    for sub in (show, check):
        sub.add_argument("--holdout", type=int, default=10, help="as data.holdout (10)")
    show.add_argument(
        "--skip-bad", action="store_true", help="list bad images instead of stopping at them"
    )
    for sub in (list_parser, show, check):
        sub.add_argument("--data-dir", help="the data folder (default: AEJAX_DATA)")


def run(args: argparse.Namespace) -> int:
    """Runs a subcommand; returns 0, or 2 if the verdict of `check` is "not good"."""
    from aejax.data import packed

    verbs = {"list": _list, "show": _show, "check": _check, "pack": packed.run_command}
    return verbs[args.data_verb](args)


def _check(args: argparse.Namespace) -> int:
    from aejax.data.check import check

    report = check(args.source, args.split, args.eval_split, data_dir=args.data_dir,
                   holdout=args.holdout, min_size=args.min_size)  # fmt: skip
    print(report)
    return 0 if report.ok else 2


def _list(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from aejax.data.source import open_source
    from aejax.data.tfds import tfds_root
    from aejax.errors import UserError
    from aejax.machine.cache import cache_folder

    table = Table("source", "images", "on disk", "", box=None)
    table.columns[0].no_wrap = True
    for name, what in (("digits", "8 x 8, gray, 10 classes"), ("photos", "colour, of many sizes")):
        parts = [f"{len(open_source(f'bundled:{name}', s)):,} {s}" for s in ("train", "test")]
        table.add_row(f"bundled:{name}", " + ".join(parts), "", what)
    data_dir = args.data_dir or os.environ.get("AEJAX_DATA")
    root = Path(data_dir) if data_dir else None
    if root and not root.is_dir():
        raise UserError(f"no data folder {root}; set AEJAX_DATA or give --data-dir")
    sets = tfds_root(root) or Path.home() / "tensorflow_datasets"
    for name, images, size, what in _tfds_sets(sets):
        table.add_row(f"tfds:{name}", images, _mib(size), what)
    for path, images, size, what in _folders(root, sets) if root else ():
        table.add_row(f"folder:{path}", images, _mib(size), what)
    console = Console()
    console.print(table)
    console.print(f"\ndata folder: {root or 'none; set AEJAX_DATA or give --data-dir'}")
    copies = cache_folder() / "decoded"
    if copies.is_dir():
        size = _mib(sum(f.stat().st_size for f in copies.iterdir()))
        console.print(f"decoded copies: {copies}, {size}, may be deleted", soft_wrap=True)
    return 0


def _folders(root: Path, excluded: Path):
    """(path, number of images, bytes, note) of each folder with images outside `excluded`. Five or
    more sibling folders count as classes of their parent."""
    from aejax.data.walk import files_in

    sizes_by_folder: dict[Path, list[int]] = {}
    for f in files_in(root):
        if not f.is_relative_to(excluded) and f.exists():
            sizes_by_folder.setdefault(f.parent.relative_to(root), []).append(f.stat().st_size)
    parents = [p.parent for p in sizes_by_folder]
    for parent in {p for p in parents if parents.count(p) > 4 and p not in sizes_by_folder}:
        classes = [p for p in sizes_by_folder if p.parent == parent]
        sizes = [size for p in classes for size in sizes_by_folder.pop(p)]
        sizes_by_folder[parent] = [*sizes, -len(classes)]
    for path, sizes in sorted(sizes_by_folder.items()):
        classes = -min(0, sizes[-1])
        what = f"{classes} classes" if classes else ""
        yield path, f"{len(sizes) - bool(classes):,}", sum(sizes), what


def _tfds_sets(root: Path):
    """(name, images per split, bytes, note) of each TFDS set that is prepared under a folder."""
    import json

    for info in sorted(root.glob("*/**/dataset_info.json")):
        try:
            about = json.loads(info.read_text())
        except (OSError, ValueError):
            continue
        name = "/".join(info.parent.relative_to(root).parts[:-1])
        splits = [
            f"{sum(int(n) for n in s.get('shardLengths', [])):,} {s['name']}"
            for s in about.get("splits", [])
        ]
        size = sum(f.stat().st_size for f in info.parent.iterdir())
        kind = about.get("fileFormat", "tfrecord")
        what = about.get("version", "")
        what += "" if kind in ("array_record", "parquet") else f", as {kind}: prepare it again"
        yield name, " + ".join(splits), size, what


def _check_sheet(args: argparse.Namespace) -> None:
    """Refuses to write the sheet over a file, or into the folder that it shows."""
    from aejax.data.images import SUFFIXES
    from aejax.errors import UserError

    if Path(args.out).suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write {args.out}: name a file that ends in {' '.join(SUFFIXES)}")
    kind, _, folder = args.source.partition(":")
    roots = ("", args.data_dir or os.environ.get("AEJAX_DATA") or "")
    inside = [Path(args.out).resolve().is_relative_to(Path(r, folder).resolve()) for r in roots]
    if kind == "folder" and any(inside):
        raise UserError(f"{args.out} would become a picture of {args.source}; name it with -o")
    files.check_outputs([args.out], force=args.force)


def _show(args: argparse.Namespace) -> int:
    import numpy as np

    from aejax.data.images import write_image
    from aejax.data.source import open_source

    _check_sheet(args)
    split = args.split or ("train" if args.source.startswith("tfds:") else "all")
    source = open_source(
        args.source,
        split,
        data_dir=args.data_dir,
        on_bad="skip" if args.skip_bad else "error",
        holdout=args.holdout,
    )
    kind = {1: "gray", 3: "colour"}[source.channels]
    (h0, w0), (h1, w1) = source.sizes.min(0), source.sizes.max(0)
    size = f"{h0} x {w0}" if source.shape else f"{h0} to {h1} high, {w0} to {w1} wide"
    print(f"{source.name}: {len(source):,} images, {kind}, {size}, {_mib(source.bytes)} decoded")
    if source.class_names:
        print(f"{len(source.class_names)} classes: {', '.join(source.class_names[:20])}")
    for name, reason in source.bad:
        print(f"left out: {name} ({reason})")
    print(f"fingerprint {source.fingerprint}")
    print(_splits_line(args))
    rows = np.unique(np.linspace(0, len(source) - 1, max(1, args.images)).round().astype(int))
    write_image(args.out, np.asarray(contact_sheet(source, rows)))
    print(f"{len(rows)} of them: {args.out}")
    return 0


def _splits_line(args: argparse.Namespace) -> str:
    """The splits of a config with this source in one line, or why there are none."""
    from aejax.config import base
    from aejax.data.splits import open_splits
    from aejax.errors import UserError

    config = base()
    config.data.source, config.data.holdout = args.source, args.holdout
    config.data.on_bad = "skip" if args.skip_bad else "error"
    try:
        return open_splits(config, args.data_dir).line
    except UserError as e:
        return f"no two splits: {e}"


def contact_sheet(source, rows, side: int = 150, width: int = 8):
    """A Pillow image of some examples, each with its name, size and class below it.

    Args:
      source: a data.source.Source.
      rows: indices of the examples.
      side: of the square that each image is fitted into, in pixels. Small images are enlarged by
        an integer factor without interpolation.
      width: images per row.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font, gap, line = ImageFont.load_default(12), 12, 15
    lines = 3 if source.class_names else 2
    width = min(width, len(rows))
    height = -(-len(rows) // width)
    cell_w, cell_h = side + gap, side + lines * line + gap + 4
    sheet = Image.new("RGB", (width * cell_w + gap, height * cell_h + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for k, row in enumerate(rows):
        example = source[int(row)]
        x = np.repeat(example["image"], 3, axis=2) if source.channels == 1 else example["image"]
        h, w = x.shape[:2]
        scale = side / max(h, w)
        if scale >= 2:
            im = Image.fromarray(x).resize(
                (w * int(scale), h * int(scale)), Image.Resampling.NEAREST
            )
        else:
            to = (max(1, round(w * scale)), max(1, round(h * scale)))
            im = Image.fromarray(x).resize(to, Image.Resampling.LANCZOS)
        left, top = gap + k % width * cell_w, gap + k // width * cell_h
        sheet.paste(im, (left + (side - im.width) // 2, top + (side - im.height) // 2))
        caption = [Path(source.names[int(row)]).name, f"{h} x {w}"]
        if source.class_names:
            caption.append(f"class {source.class_names[example['label']]}")
        for i, text in enumerate(caption):
            text = text.encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
            while draw.textlength(text, font) > side:
                text = text[: len(text) - 2 - text.endswith("…")] + "…"
            place = (left + side / 2, top + side + 4 + i * line)
            draw.text(place, text, "black" if i == 0 else "dimgray", font, anchor="ma")
    return sheet


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"


data = Verb(add_arguments, run)
