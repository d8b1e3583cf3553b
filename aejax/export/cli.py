"""aejax export: writes a trained model as a file or folder for other programs."""

import argparse
import pathlib
import re

from aejax import files
from aejax.cli import Verb
from aejax.errors import UserError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="a run's folder, a shipped name, a .safetensors file, hf://user/name"
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="write one function as StableHLO (with --onnx: ONNX)"
    )
    parser.add_argument(
        "--part", default="", metavar="NAME",
        help="the function to write: autoencoder or denoiser (the whole model, default), f_E, f_D, "
        "h, h_hat, sampler",
    )  # fmt: skip
    parser.add_argument(
        "--size", metavar="HxW", help="fixed height and width of its images (default: any)"
    )
    parser.add_argument(
        "--pad", choices=("outside", "inside"), default="outside",
        help="who pads images to a multiple of the model's stride: the caller (outside, default), "
        "or, with --size, the function (inside)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", default="last", help="of a run: last, best, or a step (default last)"
    )
    parser.add_argument(
        "--onnx", action="store_true", help="write ONNX, checked against the model in onnxruntime"
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="write a folder with weights, config and a model card"
    )
    parser.add_argument(
        "--web", metavar="DIR", help="write a web page that denoises pictures in the browser"
    )
    parser.add_argument(
        "--license", default="", metavar="NAME",
        help='licence of the weights for the model card, such as "apache-2.0"',
    )  # fmt: skip
    files.add_force(parser)


def size_of(text: str | None) -> tuple[int, int] | None:
    """The argument of --size as (height, width) in pixels; None if there is none.

    Raises:
      UserError: it is not of the form HxW.

    Example:
      >>> size_of("480x640")
      (480, 640)
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or not (int(match[1]) and int(match[2])):
        raise UserError(f'--size "{text}" is not height x width in pixels, such as 480x640')
    return int(match[1]), int(match[2])


def _run(args: argparse.Namespace) -> int:
    if sum(map(bool, (args.out, args.folder, args.web))) != 1:
        raise UserError("give exactly one of -o FILE, --folder DIR and --web DIR")
    if not args.out and (args.onnx or args.part or args.size):
        kind = "--folder" if args.folder else "--web"
        raise UserError(f"{kind} takes the whole model: leave out --onnx, --part and --size")
    size = size_of(args.size)

    from aejax.loading import load

    if args.out:
        files.check_outputs([args.out, f"{args.out}.json"], force=args.force)
    trained = load(args.model, args.checkpoint)
    if args.folder:
        from aejax.export import folder

        print(f"  {folder.write(trained, args.folder, args.license, args.force)}")
        return 0
    if args.web:
        from aejax.export import web

        page = web.write(trained, args.web, args.force)
        print(f"  {page}; to open it: python -m http.server -d {args.web}")
        return 0
    if args.onnx:
        from aejax.export import onnx

        error = onnx.write(trained, args.part, args.out, size, args.pad == "inside", args.force)
    else:
        from aejax.export import stablehlo
        from aejax.export.parts import part_of

        part = part_of(trained, args.part, size, args.pad == "inside")
        error = stablehlo.write(trained, part, args.out, args.force)
    megabytes = pathlib.Path(args.out).stat().st_size / 1e6
    print(
        f"  {args.out} ({megabytes:.1f} MB) and {args.out}.json; largest difference from the model "
        f"{error:.1e}"
    )
    return 0


export = Verb(_arguments, _run)
