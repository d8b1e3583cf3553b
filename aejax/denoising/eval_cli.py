"""The command `aejax eval-denoise`: measures denoisers with synthetic noise added to clean images,
or on pairs of real photographs."""

import argparse
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from aejax import files
from aejax.cli import Verb
from aejax.errors import UserError

if TYPE_CHECKING:
    from aejax.denoising.protocol import Method


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "set",
        metavar="SET",
        help="folder of clean images: a path, or NAME for the folder NAME or test/NAME of the "
        "data folder",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--sigma",
        type=float,
        nargs="+",
        default=[15.0, 25.0, 50.0],
        metavar="S",
        help="levels of white noise, 0 to 255 (default 15 25 50)",
    )
    what.add_argument(
        "--corrupt",
        nargs="+",
        metavar="NAME:LEVEL",
        help="another corruption at one or several levels, such as jpeg:10 jpeg:20 or camera:6",
    )
    what.add_argument(
        "--pairs",
        nargs="?",
        const="",
        metavar="CLEAN",
        help="SET has real noise: it holds NAME_real and NAME_mean, or the ground truth is in "
        "folder CLEAN",
    )
    parser.add_argument(
        "--out",
        metavar="FILE.json",
        help="write the rows as JSON, and FILE.png: a figure, or crops of --pairs",
    )
    files.add_force(parser)
    parser.add_argument(
        "--model",
        nargs="+",
        default=["auto"],
        help="networks: auto (default), photo, white, gray, colour, weights files, run folders",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="M",
        help="baselines (default: all installed; with --pairs bm3d nlm tv apart), or none",
    )
    parser.add_argument(
        "--channels",
        type=int,
        choices=(0, 1, 3),
        default=0,
        help="convert images to 1 (gray) or 3 (RGB) channels; 0 as stored (default)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images or pairs")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only every N-th image or pair"
    )
    parser.add_argument(
        "--told", action="store_true", help="also run networks that accept sigma with it"
    )
    parser.add_argument(
        "--self-ensemble",
        action="store_true",
        help="also run networks as the mean over 8 flips and rotations",
    )
    parser.add_argument("--no-ssim", action="store_true", help="PSNR only, which is faster")
    parser.add_argument("--data-dir", help="the data folder (default: AEJAX_DATA)")
    parser.add_argument("--no-figure", action="store_true", help="do not write FILE.png")


def find_set(name: str, data_dir: str | None = None) -> pathlib.Path:
    """The folder of a set: `name` as a path, or NAME or test/NAME of the data folder.

    Raises:
      UserError: there is no such folder.
    """
    root = data_dir or os.environ.get("AEJAX_DATA")
    options = [pathlib.Path(name)]
    if root:
        options += [pathlib.Path(root, name), pathlib.Path(root, "test", name.lower())]
    for path in options:
        if path.is_dir():
            return path
    raise UserError(f'no folder "{name}"' + ("" if root else "; AEJAX_DATA names no data folder"))


def our_methods(
    names: list[str], channels: int, with_sigma: bool = False, ensemble: bool = False
) -> "dict[str, Method]":
    """{label: method} of networks, given by name.

    Args:
      channels: of the images, 1 or 3.
      with_sigma: add a method with sigma as input for each network that accepts it.
      ensemble: add a method with the mean over 8 flips and rotations for each network.

    Raises:
      UserError: no such network, or one for another number of channels.
    """
    from aejax.denoising.api import network_for, weights_for_image
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

        run, note = network, network.name
        if name == "auto":
            note = "photo, or white where the noise is white"

            def run(x, s, **kwargs):
                return network_for(channels, weights_for_image(x))(x, s, **kwargs)

        def add(label, factor=1, *, run=run, params=params, macs=macs, note=note, **kwargs):
            blind = not kwargs.pop("with_sigma", False)
            methods[label] = Method(
                lambda x, s: run(x, s, **kwargs), blind, params, factor * macs, note
            )

        if not network.needs_sigma:
            add(label)
        if network.needs_sigma or (with_sigma and network.takes_sigma):
            add(f"{label} told", with_sigma=True)
        if ensemble:
            add(f"{label} x8", 8, self_ensemble=True, with_sigma=network.needs_sigma)
    return methods


def corruption_of(specs: list[str]) -> tuple[str, list[float]]:
    """Parses --corrupt: (name, levels).

    Raises:
      UserError: not NAME:LEVEL, two names, or a corruption without a level.

    >>> aejax.denoising.eval_cli.corruption_of(["jpeg:10", "jpeg:20"])
    ('jpeg', [10.0, 20.0])
    """
    names, levels = [], []
    for spec in specs:
        name, _, value = spec.partition(":")
        try:
            levels.append(float(value))
        except ValueError:
            raise UserError(f'--corrupt "{spec}": write NAME:LEVEL, such as jpeg:10') from None
        names.append(name)
    if len(set(names)) > 1:
        raise UserError(
            f"--corrupt: one corruption at a time, not {' and '.join(sorted(set(names)))}"
        )
    from aejax.corrupt import first_level

    first_level(names[0])
    return names[0], levels


def _checked_out(args: argparse.Namespace, inputs: list[pathlib.Path], picture: bool):
    """The path of --out, or None.

    Raises:
      UserError: it cannot be written, or it exists.
    """
    if not args.out:
        return None
    out = pathlib.Path(args.out)
    if not out.resolve().parent.is_dir():
        raise UserError(f'no folder "{out.parent}" for --out')
    outputs = files.results_and(out, *([".png"] if picture else []))
    files.check_outputs(outputs, inputs, args.force)
    return out


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _eval(args: argparse.Namespace) -> int:
    if args.limit is not None and args.limit < 1:
        raise UserError("--limit: 1 or more")
    if args.every < 1:
        raise UserError("--every: 1 or more")
    return _eval_pairs(args) if args.pairs is not None else _eval_clean(args)


def _eval_clean(args: argparse.Namespace) -> int:
    """Evaluates on clean images with noise added at each level."""
    from aejax.data.walk import images_in
    from aejax.denoising import baselines, protocol, tables

    if any(not 0 < s <= 255 for s in args.sigma):
        raise UserError("--sigma: levels above 0 and up to 255")
    corruption, levels = corruption_of(args.corrupt) if args.corrupt else ("gaussian", args.sigma)
    folder = find_set(args.set, args.data_dir)
    out = _checked_out(args, images_in(folder), not args.no_figure)
    images = protocol.clean_images(folder, args.channels)[: args.limit : args.every]
    channels = images[0][1].shape[2]
    if any(x.shape[2] != channels for _, x in images):
        raise UserError(f'"{folder}" mixes gray and colour; give --channels 1 or 3')
    methods = our_methods(args.model, channels, args.told, args.self_ensemble)
    names = args.methods if args.methods is not None else baselines.installed()
    if names != ["none"]:
        methods |= {name: baselines.method(name) for name in names}
    rows = protocol.evaluate(images, methods, levels, corruption=corruption,
                             with_ssim=not args.no_ssim, progress=_say)  # fmt: skip
    known = args.limit is None and args.every == 1 and corruption == "gaussian"
    printed = tables.published(folder.name, channels) if known else []
    print(tables.table(rows, printed))
    if out:
        tables.write_json(
            out, rows, set=folder.name, images=len(images), channels=channels, published=printed,
            command=" ".join(["aejax", *sys.argv[1:]]),
        )  # fmt: skip
        if not args.no_figure:
            shown = [p for p in printed if p.sigma in levels]
            marks = ("BM3D", "CBM3D", "DnCNN", "FFDNet", "DRUNet", "SwinIR", "Restormer")
            shown = [p for p in shown if p.method.startswith(marks)]
            with files.replacing(out.with_suffix(".png")) as part:
                tables.figure(rows, part, f'{folder.name}, blind unless "told"', shown)
    return 0


PAIRED = ("bm3d", "nlm", "tv")  # the default baselines of --pairs
EVERY = 5  # their noise level is chosen on every fifth pair


def _eval_pairs(args: argparse.Namespace) -> int:
    """Evaluates on real noisy photographs with ground truth."""
    from aejax.denoising import baselines, tables
    from aejax.denoising import pairs as real

    folder = find_set(args.set, args.data_dir)
    pairs = real.find_pairs(folder, args.pairs or None, args.channels)
    pairs = pairs[: args.limit : args.every]
    out = _checked_out(args, [f for p in pairs for f in (p.noisy, p.clean)], not args.no_figure)
    channels = pairs[0].read()[0].shape[2]
    methods = our_methods(args.model, channels, False, args.self_ensemble)
    names = args.methods
    if names is None:
        names = [name for name in PAIRED if name in baselines.installed()] + ["apart"]
    for name in names if names != ["none"] else []:
        if name == "apart":  # the white-noise model on subsampled images
            methods["white, apart"] = real.white_model_subsampled(channels)
            continue
        method = baselines.method(name)
        subset = [pair.read() for pair in pairs[::EVERY]]
        level = real.best_level(subset, method)
        _say(f"{name}: best level {level:g}, on {len(subset)} of the {len(pairs)} pairs")
        methods[name] = real.with_level(method, level)
    rows = real.evaluate_pairs(pairs, methods, with_ssim=not args.no_ssim, progress=_say)
    print(real.table(rows))
    if out:
        tables.write_json(
            out, rows, set=folder.name, pairs=len(pairs), channels=channels,
            command=" ".join(["aejax", *sys.argv[1:]]),
        )  # fmt: skip
        if not args.no_figure:
            with files.replacing(out.with_suffix(".png")) as part:
                real.sheet(pairs, methods, part)
    return 0


eval_denoise = Verb(_eval_arguments, _eval)
