"""aejax denoise, aejax eval-denoise."""

import argparse
import os
import pathlib
import sys

from aejax import files
from aejax.errors import UserError
from aejax.verbs import Verb

# --- denoise --------------------------------------------------------------------------------------


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
        help="standard deviation of the noise, 0 to 255, if you know it",
    )
    level.add_argument("--blind", action="store_true", help="let the model judge (default)")
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="A",
        help="0 changes nothing, 1 takes all noise away (default)",
    )
    parser.add_argument(
        "--model",
        default="auto",
        help="auto (by the channels), gray, colour, a weights file, a run's folder",
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
        made = (".denoised", ".compare")
        return [f for f in images_in(folder, deep=True) if not f.stem.endswith(made)]

    def suffix(file: pathlib.Path) -> str:
        return file.suffix if file.suffix.lower() in SUFFIXES else ".png"

    named = files.named_files(inputs, inside)
    made = files.targets(named, output, lambda f: f"{f.stem}.denoised{suffix(f)}", suffix, SUFFIXES)
    return list(zip((file for file, _ in named), made, strict=True))


def _compared(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f"{target.stem}.compare.png")


def check_jobs(todo: list[tuple[pathlib.Path, pathlib.Path]], args: argparse.Namespace) -> None:
    """Refuses what would destroy a file.

    Raises:
      UserError: see `files.check_outputs`.
    """
    sources = [source for source, _ in todo]
    outputs = [target for _, target in todo]
    if args.compare:
        outputs += [_compared(target) for target in outputs]
    files.check_outputs(outputs, [*sources, args.model], args.force, sources * 2)


def denoise_file(source: pathlib.Path, target: pathlib.Path, *, quality: int = 95,
                 compare: bool = False, **options) -> dict:  # fmt: skip
    """One photograph: alpha, 16 bits, ICC profile, EXIF and XMP are kept as far as the format of
    the target holds them; what it does not hold is said on stderr.

    Returns:
      {"sigma": estimate, "removed": rms of what was taken away, "shape", "written"}.

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
        found = restore(picture, **options)
    except UserError as e:
        raise UserError(f"{source}: {str(e).removeprefix('denoise: ')}") from None
    y = found.image if alpha is None else np.concatenate([found.image, alpha], 2)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot make {target.parent}: {e.strerror}") from e
    files.say(source, meta.notes)
    files.say(target, write_image(target, y, meta, quality))
    if compare:
        write_image(_compared(target), before_after(picture, found.image))
    return {
        "sigma": found.sigma, "removed": found.removed, "shape": x.shape, "written": str(target),
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
        "quality": args.quality, "compare": args.compare,
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
                found = denoise_file(
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
                h, w = found["shape"][:2]
                bar.console.print(
                    f"{found['written']}: {w}x{h}, noise sigma about {found['sigma']:.1f}, removed "
                    f"{found['removed']:.1f} rms, {time.perf_counter() - start:.1f} s",
                    highlight=False, soft_wrap=True, markup=False,
                )  # fmt: skip
    if failed:
        for line in failed:
            print(f"aejax: {line}", file=sys.stderr)
        print(f"aejax: {len(todo) - len(failed)} of {len(todo)} images done, {len(failed)} failed",
              file=sys.stderr)  # fmt: skip
        return 2
    return 0


denoise = Verb(_denoise_arguments, _denoise)


# --- eval-denoise ---------------------------------------------------------------------------------


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "set",
        metavar="SET",
        help="folder of clean images; also NAME or test/NAME of the data folder",
    )
    parser.add_argument("--sigma", type=float, nargs="+", default=[15.0, 25.0, 50.0], metavar="S")
    parser.add_argument("--out", metavar="FILE.json", help="rows as JSON, and FILE.png beside it")
    files.add_force(parser)
    parser.add_argument(
        "--model",
        nargs="+",
        default=["auto"],
        help="ours: auto, gray, colour, weights files, folders of runs",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="M",
        help="which baselines (default: all that are installed; none for none)",
    )
    parser.add_argument(
        "--channels",
        type=int,
        choices=(0, 1, 3),
        default=0,
        help="1 gray, 3 RGB, 0 as stored (default)",
    )
    parser.add_argument("--limit", type=int, help="only the first images")
    parser.add_argument("--told", action="store_true", help="also ours when told sigma")
    parser.add_argument("--self-ensemble", action="store_true", help="also ours over 8 flips")
    parser.add_argument("--no-ssim", action="store_true", help="PSNR only, which is faster")
    parser.add_argument("--data-dir", help="the data folder (default: AEJAX_DATA)")
    parser.add_argument("--no-figure", action="store_true", help="no quality-against-time figure")


def find_set(name: str, data_dir: str | None = None) -> pathlib.Path:
    """The folder a user means by a set's name: a path, or within the data folder, or its test/."""
    root = data_dir or os.environ.get("AEJAX_DATA")
    options = [pathlib.Path(name)]
    if root:
        options += [pathlib.Path(root, name), pathlib.Path(root, "test", name.lower())]
    for path in options:
        if path.is_dir():
            return path
    raise UserError(f'no folder "{name}"' + ("" if root else "; AEJAX_DATA names no data folder"))


def our_methods(names: list[str], channels: int, told: bool = False, ensemble: bool = False):
    """{label: protocol.Method} for networks by name."""
    from aejax.denoising.api import network_for
    from aejax.denoising.cost import macs_per_pixel
    from aejax.denoising.protocol import Method

    methods = {}
    for name in names:
        network = network_for(channels, name)
        if network.channels != channels:
            raise UserError(f'"{name}" is for {network.channels} channels, the set has {channels}')
        import jax

        params = sum(v.size for v in jax.tree.leaves(network.variables.get("params", {})))
        macs = macs_per_pixel(network.model, channels)
        label = "aejax" if name == "auto" else f"aejax {pathlib.Path(name).stem}"

        def add(label, factor=1, *, network=network, params=params, macs=macs, **kwargs):
            blind = not kwargs.pop("told", False)
            methods[label] = Method(
                lambda x, s: network(x, s, **kwargs), blind, params, factor * macs, network.name
            )

        if not network.needs_sigma:
            add(label)
        if network.needs_sigma or (told and network.takes_sigma):
            add(f"{label} told", told=True)
        if ensemble:
            add(f"{label} x8", 8, self_ensemble=True, told=network.needs_sigma)
    return methods


def _eval(args: argparse.Namespace) -> int:
    from aejax.data.walk import images_in
    from aejax.denoising import baselines, protocol

    if any(not 0 < s <= 255 for s in args.sigma):
        raise UserError("--sigma: levels above 0 and up to 255")
    if args.limit is not None and args.limit < 1:
        raise UserError("--limit: 1 or more")
    folder = find_set(args.set, args.data_dir)
    if args.out:
        out = pathlib.Path(args.out)
        if not out.resolve().parent.is_dir():
            raise UserError(f'no folder "{out.parent}" for --out')
        if out.suffix != ".json":
            raise UserError(f'--out "{out}": name a .json file')
        outputs = [out] if args.no_figure else [out, out.with_suffix(".png")]
        files.check_outputs(outputs, images_in(folder), args.force)
    images = protocol.clean_images(folder, args.channels)[: args.limit]
    channels = images[0][1].shape[2]
    if any(x.shape[2] != channels for _, x in images):
        raise UserError(f'"{folder}" mixes gray and colour; give --channels 1 or 3')
    methods = our_methods(args.model, channels, args.told, args.self_ensemble)
    names = args.methods if args.methods is not None else baselines.installed()
    if names != ["none"]:
        methods |= {name: baselines.method(name) for name in names}
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    rows = protocol.evaluate(images, methods, args.sigma, with_ssim=not args.no_ssim, progress=say)
    printed = protocol.published(folder.name, channels) if args.limit is None else []
    print(protocol.table(rows, printed))
    if args.out:
        protocol.write_json(
            out, rows, set=folder.name, images=len(images), channels=channels, published=printed,
            command=" ".join(["aejax", *sys.argv[1:]]),
        )  # fmt: skip
        if not args.no_figure:
            shown = [p for p in printed if p["sigma"] in args.sigma]
            marks = ("BM3D", "CBM3D", "DnCNN", "FFDNet", "DRUNet", "SwinIR", "Restormer")
            shown = [p for p in shown if p["method"].startswith(marks)]
            with files.replacing(out.with_suffix(".png")) as part:
                protocol.figure(rows + shown, part, f"{folder.name}, blind unless told")
    return 0


eval_denoise = Verb(_eval_arguments, _eval)
