"""The commands `aejax sample`, `interpolate`, `edit`, `extend` and `inpaint`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aejax import files
from aejax.cli import Verb
from aejax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from aejax.generation.generator import Generator


def _add_generator(parser: argparse.ArgumentParser) -> None:
    """The options that choose the generator."""
    parser.add_argument("--model", default="", help="a shipped generator: fashion-mnist, digits")
    parser.add_argument("--workdir", default="", help="the folder of a run, instead of --model")
    parser.add_argument(
        "--prior",
        default="",
        help="prior for a run of a plain autoencoder: mixture (fitted to its training set now) or "
        "normal",
    )
    parser.add_argument(
        "--components", type=int, default=10, help="of --prior mixture (default 10)"
    )
    parser.add_argument("--data-dir", help="the data folder (default: AEJAX_DATA)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")


def _generator(args: argparse.Namespace) -> "Generator":
    from aejax.generation.generator import load_generator

    if not args.model and not args.workdir:
        args.model = "fashion-mnist"
    arguments = {"components": args.components} if args.prior == "mixture" else {}
    return load_generator(args.model, args.workdir, args.prior, args.data_dir, **arguments)


def _add_output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--out", required=True, metavar="PATH", help=what)
    files.add_force(parser)


def outputs(path: str, count: int, labels: Sequence[str] = ()) -> list[pathlib.Path]:
    """The files that `write` creates for `count` pictures.

    Args:
      path: --out: a .png, a .npy or a folder.
      labels: of the pictures, if they are written to sub-folders by label.

    Raises:
      UserError: another suffix than .png and .npy.
    """
    target = pathlib.Path(path)
    if target.suffix in (".png", ".npy") and not target.is_dir():
        return [target]
    if target.suffix and not target.is_dir():
        raise UserError(f'cannot write "{target.suffix}": take .png, .npy or a folder')
    folders = [target / label for label in labels] if labels else [target] * count
    return [folder / f"{i:06d}.png" for i, folder in enumerate(folders)]


def write(pictures, path: str, columns: int | None = None, labels: Sequence[str] = ()) -> str:
    """Writes uint8 pictures [n, h, w, c] as a grid (.png), an array (.npy, [n, h, w(, 3)]) or a
    folder of .png files.

    Args:
      columns: of the grid.
      labels: as in `outputs`.

    Returns:
      A line of text that says what was written.

    Raises:
      UserError: another suffix, or a path that cannot be written.
    """
    import numpy as np

    from aejax import pictures as sheets
    from aejax.data.images import write_image

    targets = outputs(path, len(pictures), labels)
    plain = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    try:
        for folder in {target.parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        if targets[0].suffix == ".npy":
            with files.replacing(targets[0]) as part:
                np.save(part, plain)
            return f"{path}: uint8 {list(plain.shape)}"
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e
    if targets == [pathlib.Path(path)]:
        write_image(path, sheets.grid(list(pictures), columns=columns))
        return f"{path}: {len(pictures)} pictures"
    for target, picture in zip(targets, plain, strict=True):
        write_image(target, picture)
    return f"{pathlib.Path(path)}/: {len(pictures)} files"


def read(
    paths: Sequence[str | pathlib.Path],
    shape: Sequence[int],
    failed: dict[pathlib.Path, Exception] | None = None,
) -> "np.ndarray":
    """Reads image files as uint8 [n, h, w, c] of the model's `shape` (h, w, c).

    Images of another size are cropped to the model's aspect ratio and resized, those with other
    channels are converted; a line on stderr says so.

    Args:
      failed: if given, files that cannot be read are left out, and their errors are added to it.

    Raises:
      UserError: a file that is not an image, if `failed` is not given.
    """
    import numpy as np

    from aejax.data import decode, images

    height, width, channels = shape
    pictures, converted = [], []
    for path in paths:
        try:
            stored, meta = images.read_image(path)
        except Exception as e:
            if failed is None:
                raise
            failed[pathlib.Path(path)] = e
            continue
        files.say(path, meta.notes)
        x = decode.flatten(stored, channels)
        if x.shape != stored.shape or x.shape[:2] != (height, width):
            kind = "gray" if stored.shape[2] < 3 else "colour"
            alpha = " with transparency" if meta.has_alpha else ""
            converted.append(f"{path} ({stored.shape[1]}x{stored.shape[0]}, {kind}{alpha})")
        pictures.append(decode.resize(x, (height, width)))
    if converted:
        others = f" and {len(converted) - 1} more" if len(converted) > 1 else ""
        kind = "gray" if channels == 1 else "colour"
        how = f"cropped and resized to the model's {width}x{height}, {kind}"
        print(f"aejax: {how}: {converted[0]}{others}", file=sys.stderr)
    return np.stack(pictures) if pictures else np.zeros((0, *shape), np.uint8)


# sample -------------------------------------------------------------------------------------------


def _sample_arguments(parser):
    _add_generator(parser)
    parser.add_argument("--n", type=int, default=64, help="number of pictures (default 64)")
    parser.add_argument("--class", dest="label", type=int, help="sample this class only, from 0")
    parser.add_argument(
        "--guidance",
        type=float,
        help="scale of classifier-free guidance: 1 = none, above 1 = closer to the class and less "
        "varied",
    )
    parser.add_argument("--steps", type=int, help="steps of the sampler, for priors that have them")
    parser.add_argument("--temperature", type=float, help="for priors that have a temperature")
    parser.add_argument("--score", metavar="SOURCE", default="",
                        help="print FD, KID, PRDC of the samples against the test split of this "
                        "source, such as tfds:fashion_mnist; use --n 10000")  # fmt: skip
    parser.add_argument("--fid-weights", metavar="PATH", default="",
                        help="compare Inception features, as published FIDs do: pytorch-fid's "
                        "file, or a .safetensors with the same names")  # fmt: skip
    parser.add_argument("--any-hash", action="store_true",
                        help="accept --fid-weights that are not the published file")  # fmt: skip
    _add_output(parser, "grid.png, samples.npy or a folder")


def _sample(args) -> int:
    if args.fid_weights and not args.score:
        raise UserError("--fid-weights needs --score SOURCE, the real images to compare with")
    files.check_outputs(outputs(args.out, args.n), force=args.force)
    generator = _generator(args)
    names = ("guidance", "steps", "temperature")
    options = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    pictures = generator.sample(args.n, args.seed, args.label, **options)
    print(write(pictures, args.out))
    if args.score:
        from aejax.generation.score import open_reference, score

        real = open_reference(args.score, args.fid_weights, args.data_dir, args.any_hash)
        result = score(real, pictures, seed=args.seed)
        print(f"{result.caption()}\n{result.other_figures()}")
    return 0


# interpolate, edit --------------------------------------------------------------------------------


def _interpolate_arguments(parser):
    parser.add_argument("a", help="first picture")
    parser.add_argument("b", help="last picture")
    _add_generator(parser)
    parser.add_argument("--steps", type=int, default=10, help="number of pictures (default 10)")
    _add_output(parser, "strip.png, frames.npy or a folder")


def _interpolate(args) -> int:
    files.check_outputs(outputs(args.out, args.steps), [args.a, args.b], args.force)
    generator = _generator(args)
    a, b = read([args.a, args.b], generator.shape)
    print(write(generator.interpolate(a, b, args.steps), args.out, columns=args.steps))
    return 0


def _edit_arguments(parser):
    parser.add_argument("image", help="the picture to start from")
    _add_generator(parser)
    parser.add_argument(
        "--count",
        type=int,
        default=8,
        help="number of coordinates, those with the largest effect first (default 8)",
    )
    parser.add_argument(
        "--reach",
        type=float,
        default=3.0,
        help="largest change of a coordinate in standard deviations (default 3)",
    )
    parser.add_argument(
        "--steps", type=int, default=9, help="number of pictures per coordinate (default 9)"
    )
    _add_output(parser, "walks.png, walks.npy or a folder")


def _edit(args) -> int:
    targets = outputs(args.out, args.count * args.steps)
    files.check_outputs(targets, [args.image], args.force)
    generator = _generator(args)
    (x,) = read([args.image], generator.shape)
    pictures, chosen = generator.edit(x, args.count, args.reach, args.steps)
    print(write(pictures, args.out, columns=args.steps))
    print("rows: coordinates " + " ".join(map(str, chosen)))
    return 0


# extend, inpaint ----------------------------------------------------------------------------------


def _extend_arguments(parser):
    parser.add_argument("input", help="a picture, or a folder whose sub-folders are classes")
    _add_generator(parser)
    parser.add_argument("--n", type=int, default=8, help="variants of each picture (default 8)")
    parser.add_argument(
        "--strength",
        type=float,
        default=0.5,
        help="0 = the same picture, 1 = a new one (default 0.5)",
    )
    parser.add_argument(
        "--classes", default="", help="sub-folders in the order of the generator's classes: a,b,..."
    )
    _add_output(parser, "a folder (with the sub-folders of the input), sheet.png or variants.npy")


def _extend(args) -> int:
    from aejax.data.walk import images_in

    root = pathlib.Path(args.input)
    named = files.named_files([args.input], lambda folder: images_in(folder, deep=True))
    sources = [file for file, _ in named]
    names = [f.parent.name if root.is_dir() and f.parent != root else "" for f in sources]
    folders = [n for n in names for _ in range(args.n)] if any(names) else []
    targets = outputs(args.out, args.n * len(sources), folders)
    files.check_outputs(targets, sources, args.force)
    generator = _generator(args)
    failed: dict[pathlib.Path, Exception] | None = {} if len(sources) > 1 else None
    pictures = read(sources, generator.shape, failed)
    names = [n for f, n in zip(sources, names, strict=True) if f not in (failed or {})]
    labels = _labels(names, generator.classes, args.classes)
    if len(pictures):
        variants = generator.extend(pictures, args.n, args.strength, labels, args.seed)
        folders = [n for n in names for _ in range(args.n)] if any(names) else ()
        print(write(variants, args.out, columns=args.n, labels=folders))
    if labels is None and generator.classes:
        print("the variants are drawn without the classes of the input; see --classes")
    for file, error in (failed or {}).items():
        print(f"aejax: {files.failure(file, error)}", file=sys.stderr)
    return 2 if failed else 0


def _labels(names: Sequence[str], classes: int, order_of_classes: str):
    """The generator's class of each picture, [n], from the name of its sub-folder; None if there
    are not as many sub-folders as the generator has classes.

    Args:
      names: sub-folder of each picture.
      classes: number of the generator's classes.
      order_of_classes: --classes.

    Raises:
      UserError: a sub-folder that is not in --classes.
    """
    import numpy as np

    order = order_of_classes.split(",") if order_of_classes else sorted(set(names) - {""})
    if not classes or "" in names or len(order) != classes:
        return None
    if set(names) - set(order):
        raise UserError(f"sub-folders not in --classes: {', '.join(set(names) - set(order))}")
    return np.array([order.index(n) for n in names])


def box_mask(box: str, shape: Sequence[int]):
    """The mask of --box: bool [h, w], true inside "top,left,height,width".

    Args:
      shape: (h, w, c) of the picture.

    Raises:
      UserError: not four integers, or a box that is not within the picture.

    >>> int(aejax.generation.cli.box_mask("0,2,3,4", (28, 28, 1)).sum())
    12
    """
    import numpy as np

    try:
        top, left, height, width = map(int, box.split(","))
    except ValueError:
        raise UserError(f'--box "{box}": give top,left,height,width in pixels') from None
    if min(top, left) < 0 or min(height, width) < 1:
        raise UserError(f"--box {box}: top and left are 0 or more, height and width 1 or more")
    if top + height > shape[0] or left + width > shape[1]:
        raise UserError(f"--box {box} leaves the picture, {shape[0]} high and {shape[1]} wide")
    mask = np.zeros(shape[:2], bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _inpaint_arguments(parser):
    parser.add_argument("image", help="the picture to fill")
    _add_generator(parser)
    region = parser.add_mutually_exclusive_group(required=True)
    region.add_argument("--mask", help="a picture that is white where pixels are to be filled")
    region.add_argument(
        "--box",
        metavar="TOP,LEFT,HEIGHT,WIDTH",
        help="region to fill, in pixels of the model's size",
    )
    parser.add_argument("--n", type=int, default=1, help="number of results (default 1)")
    parser.add_argument("--class", dest="label", type=int, help="class of the picture, from 0")
    _add_output(parser, "filled.png, filled.npy or a folder")


def _inpaint(args) -> int:
    inputs = [args.image, *([args.mask] if args.mask else [])]
    files.check_outputs(outputs(args.out, args.n), inputs, args.force)
    generator = _generator(args)
    (x,) = read([args.image], generator.shape)
    if args.mask:
        mask = read([args.mask], (*generator.shape[:2], 1))[0, ..., 0] > 127
    else:
        mask = box_mask(args.box, generator.shape)
    print(write(generator.inpaint(x, mask, args.n, args.label, args.seed), args.out))
    return 0


sample = Verb(_sample_arguments, _sample)
interpolate = Verb(_interpolate_arguments, _interpolate)
edit = Verb(_edit_arguments, _edit)
extend = Verb(_extend_arguments, _extend)
inpaint = Verb(_inpaint_arguments, _inpaint)
