"""The command `aejax denoise`."""

import argparse
import pathlib
import sys

from aejax import files
from aejax.cli import Verb
from aejax.errors import UserError


def _denoise_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help="images, or folders of images")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="file (for one image) or folder; default: NAME.denoised.EXT beside it",
    )
    files.add_force(parser)
    level = parser.add_mutually_exclusive_group()
    level.add_argument(
        "--sigma",
        type=float,
        metavar="S",
        help="remove noise of this standard deviation (0 to 255) instead of what the model detects",
    )
    level.add_argument(
        "--blind", action="store_true", help="the model detects the noise level (default)"
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="A",
        help="0 changes nothing, 1 removes all noise (default), 2 denoises as for twice the noise",
    )
    parser.add_argument(
        "--model",
        default="auto",
        help="photo (camera noise), white (white noise), auto (one of these two, by the noise of "
        "each image; default), gray, colour, a weights file, or a run folder",
    )
    parser.add_argument(
        "--self-ensemble",
        action="store_true",
        help="mean over 8 flips and rotations: 8 times slower, a little better",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also write OUT.compare.png: before and after, side by side",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="print an analysis of the noise, and draw its map in OUT.noise.png",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="side of the tiles in pixels (default 1024), which bounds the memory",
    )
    parser.add_argument(
        "--quality",
        type=int,
        default=95,
        metavar="Q",
        help="quality of written JPEG, WebP and AVIF files, 1 to 100 (default 95)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no line per image")


def jobs(inputs: list[str], output: str | None) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """(image to read, image to write) for each input; folders keep their structure.

    Args:
      inputs: images and folders; files that this command wrote (NAME.denoised.EXT, ...) are left
        out of folders.
      output: --output.

    Raises:
      UserError: no images, a missing input, or one output file for several images.
    """
    from aejax.data.images import SUFFIXES
    from aejax.data.walk import images_in

    def inside(folder: pathlib.Path) -> list[pathlib.Path]:
        written = (".denoised", ".compare", ".noise")
        return [f for f in images_in(folder, deep=True) if not f.stem.endswith(written)]

    def suffix(file: pathlib.Path) -> str:
        return file.suffix if file.suffix.lower() in SUFFIXES else ".png"

    named = files.named_files(inputs, inside)
    outputs = files.targets(
        named, output, lambda f: f"{f.stem}.denoised{suffix(f)}", suffix, SUFFIXES
    )
    return list(zip((file for file, _ in named), outputs, strict=True))


def _beside(target: pathlib.Path, what: str) -> pathlib.Path:
    return target.with_name(f"{target.stem}.{what}.png")


def check_jobs(todo: list[tuple[pathlib.Path, pathlib.Path]], args: argparse.Namespace) -> None:
    """Checks that no existing file would be overwritten.

    Raises:
      UserError: as `files.check_outputs`.
    """
    sources = [source for source, _ in todo]
    outputs = [target for _, target in todo]
    extras = ["compare"] * args.compare + ["noise"] * args.report
    outputs += [_beside(target, extra) for target in outputs for extra in extras]
    files.check_outputs(outputs, [*sources, args.model], args.force, sources * (1 + len(extras)))


def denoise_file(source: pathlib.Path, target: pathlib.Path, *, quality: int = 95,
                 compare: bool = False, **options) -> dict:  # fmt: skip
    """Denoises one image file.

    Alpha, 16 bits, ICC profile, EXIF and XMP are kept if the output format supports them; what it
    does not support is reported on stderr.

    Args:
      quality: of JPEG, WebP and AVIF, 1 to 100.
      compare: also write TARGET.compare.png.
      options: of `restore`.

    Returns:
      {"sigma": estimated noise level, "removed": RMS of the removed noise, "shape": [h, w, c] of
      the input, "written": path, "report": text of the noise report or ""}.

    Raises:
      UserError: the file cannot be read, denoised or written.
    """
    import numpy as np

    from aejax.data.images import check_container, read_image, write_image
    from aejax.denoising.api import restore

    x, meta = read_image(source, keep_depth=True)
    check_container(target, x.shape[2])
    alpha = x[..., -1:] if x.shape[2] in (2, 4) else None
    picture = x if alpha is None else x[..., :-1]
    try:
        restored = restore(picture, **options)
    except UserError as e:
        raise UserError(f"{source}: {str(e).removeprefix('denoise: ')}") from None
    y = restored.image if alpha is None else np.concatenate([restored.image, alpha], 2)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot create {target.parent}: {e.strerror}") from e
    files.say(source, meta.notes)
    files.say(target, write_image(target, y, meta, quality))
    if compare:
        write_image(_beside(target, "compare"), before_after(picture, restored.image))
    if restored.report:
        with files.replacing(_beside(target, "noise")) as part:
            restored.report.draw(part)
    return {
        "sigma": restored.sigma, "removed": restored.removed, "shape": x.shape,
        "written": str(target), "report": restored.report.text() if restored.report else "",
    }  # fmt: skip


def before_after(x, y, side: int = 640):
    """A uint8 image: the centre crop of x (at most side x side pixels) left of that of y."""
    import numpy as np

    from aejax.data.images import to_uint8

    h, w = x.shape[:2]
    top, left = max(0, (h - side) // 2), max(0, (w - side) // 2)
    crops = [v[top : top + side, left : left + side] for v in (x, y)]
    before, after = (to_uint8(v) if v.dtype == np.uint16 else v for v in crops)
    gap = np.full((before.shape[0], 8, before.shape[2]), 255, np.uint8)
    return np.concatenate([before, gap, after], 1)


def _denoise(args: argparse.Namespace) -> int:
    import time

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from aejax.denoising.api import TILE

    if args.tile is not None and args.tile < 64:
        raise UserError(f"--tile {args.tile} is too small; 64 at least")
    if not 1 <= args.quality <= 100:
        raise UserError(f"--quality {args.quality} is not between 1 and 100")
    todo = jobs(args.inputs, args.output)
    check_jobs(todo, args)
    options = {
        "sigma": args.sigma, "strength": args.strength, "model": args.model,
        "self_ensemble": args.self_ensemble, "tile": args.tile or TILE,
        "quality": args.quality, "compare": args.compare, "report": args.report,
    }  # fmt: skip
    failed = []
    columns = (TextColumn("{task.description}", markup=False), BarColumn(),
               TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn())  # fmt: skip
    hidden = args.quiet or not sys.stderr.isatty()
    from rich.console import Console

    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bar:
        task = bar.add_task("denoise", total=len(todo))
        for number, (source, target) in enumerate(todo):
            start = time.perf_counter()
            bar.update(task, description=source.name, completed=number)
            try:
                summary = denoise_file(
                    source, target, **options,
                    progress=lambda fraction, n=number: bar.update(task, completed=n + fraction),
                )  # fmt: skip
            except BrokenPipeError:
                raise
            except Exception as e:
                if len(todo) == 1:
                    raise
                failed.append(files.failure(source, e))
                continue
            if not args.quiet:
                h, w = summary["shape"][:2]
                bar.console.print(
                    f"{summary['written']}: {w}x{h}, noise sigma about {summary['sigma']:.1f}, "
                    f"removed {summary['removed']:.1f} RMS, {time.perf_counter() - start:.1f} s",
                    highlight=False, soft_wrap=True, markup=False,
                )  # fmt: skip
            if summary["report"]:
                bar.console.print(summary["report"].rstrip(), highlight=False, markup=False)
    if failed:
        for line in failed:
            print(f"aejax: {line}", file=sys.stderr)
        print(f"aejax: {len(todo) - len(failed)} of {len(todo)} done, {len(failed)} failed",
              file=sys.stderr)  # fmt: skip
        return 2
    return 0


denoise = Verb(_denoise_arguments, _denoise)
