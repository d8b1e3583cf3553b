"""aejax denoise."""

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
        help="take S away (standard deviation, 0 to 255) instead of what the model finds",
    )
    level.add_argument("--blind", action="store_true", help="let the model judge (default)")
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="A",
        help="0 changes nothing, 1 takes all noise away (default), 2 as for twice the noise",
    )
    parser.add_argument(
        "--model",
        default="auto",
        help="photo, white (noise), auto (one of these, by the noise that is found), gray, colour, "
        "a weights file, a run's folder",
    )
    parser.add_argument(
        "--self-ensemble",
        action="store_true",
        help="mean over 8 flips and turns: slower, a little better",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also write OUT.compare.png: before and after, side by side",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="say what the noise is like, and draw it where in OUT.noise.png",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="side of the windows in pixels (default 1024): bounds the memory",
    )
    parser.add_argument("--quality", type=int, default=95, help="of JPEG, WebP, AVIF (default 95)")
    parser.add_argument("--quiet", action="store_true", help="no progress, no report")


def jobs(inputs: list[str], output: str | None) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """(image to read, image to write) for what the command line names; folders keep their shape.

    Raises:
      UserError: nothing to do, an input that is not there, one file for several images.
    """
    from aejax.data.images import SUFFIXES
    from aejax.data.walk import images_in

    def inside(folder: pathlib.Path) -> list[pathlib.Path]:
        made = (".denoised", ".compare", ".noise")
        return [f for f in images_in(folder, deep=True) if not f.stem.endswith(made)]

    def suffix(file: pathlib.Path) -> str:
        return file.suffix if file.suffix.lower() in SUFFIXES else ".png"

    named = files.named_files(inputs, inside)
    made = files.targets(named, output, lambda f: f"{f.stem}.denoised{suffix(f)}", suffix, SUFFIXES)
    return list(zip((file for file, _ in named), made, strict=True))


def _beside(target: pathlib.Path, what: str) -> pathlib.Path:
    return target.with_name(f"{target.stem}.{what}.png")


def check_jobs(todo: list[tuple[pathlib.Path, pathlib.Path]], args: argparse.Namespace) -> None:
    """Refuses what would destroy a file.

    Raises:
      UserError: see `files.check_outputs`.
    """
    sources = [source for source, _ in todo]
    outputs = [target for _, target in todo]
    asked = ["compare"] * args.compare + ["noise"] * args.report
    outputs += [_beside(target, what) for target in outputs for what in asked]
    files.check_outputs(outputs, [*sources, args.model], args.force, sources * (1 + len(asked)))


def denoise_file(source: pathlib.Path, target: pathlib.Path, *, quality: int = 95,
                 compare: bool = False, **options) -> dict:  # fmt: skip
    """One photograph: alpha, 16 bits, ICC profile, EXIF and XMP are kept as far as the format of
    the target holds them; what it does not hold is said on stderr.

    Returns:
      {"sigma": level, "removed": rms of what was taken away, "shape", "written", "report": text}.

    Raises:
      UserError: it cannot be read, denoised or written.
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
        raise UserError(f"cannot make {target.parent}: {e.strerror}") from e
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
    """uint8 sheet: the middle of x beside the middle of y, pixel for pixel."""
    import numpy as np

    from aejax.data.images import to_uint8

    h, w = x.shape[:2]
    top, left = max(0, (h - side) // 2), max(0, (w - side) // 2)
    parts = [
        to_uint8(v) if v.dtype == np.uint16 else v
        for v in (p[top : top + side, left : left + side] for p in (x, y))
    ]
    gap = np.full((parts[0].shape[0], 8, parts[0].shape[2]), 255, np.uint8)
    return np.concatenate([parts[0], gap, parts[1]], 1)


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
                    progress=lambda done, n=number: bar.update(task, completed=n + done),
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
                    f"removed {summary['removed']:.1f} rms, {time.perf_counter() - start:.1f} s",
                    highlight=False, soft_wrap=True, markup=False,
                )  # fmt: skip
            if summary["report"]:
                bar.console.print(summary["report"].rstrip(), highlight=False, markup=False)
    if failed:
        for line in failed:
            print(f"aejax: {line}", file=sys.stderr)
        print(f"aejax: {len(todo) - len(failed)} of {len(todo)} images done, {len(failed)} failed",
              file=sys.stderr)  # fmt: skip
        return 2
    return 0


denoise = Verb(_denoise_arguments, _denoise)
