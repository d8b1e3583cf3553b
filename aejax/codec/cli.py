"""The command line of the codec: compress, decompress, codec info, codec compare, eval-codec."""

import pathlib
import time
import warnings

from aejax import files
from aejax.cli import Verb
from aejax.errors import UserError


def _named(inputs: list[str], suffixes: tuple[str, ...]) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """(file, its path relative to the folder given on the command line, or its name)."""
    from aejax.data.walk import images_in

    return files.named_files(inputs, lambda folder: images_in(folder, True, suffixes))


# --- compress -------------------------------------------------------------------------------------


def _compress_arguments(parser):
    parser.add_argument("inputs", nargs="+", metavar="IN", help="images, or folders of images")
    parser.add_argument("-o", "--output", metavar="OUT",
                        help="file, or folder (created if missing); default: NAME.aej beside "
                        "the input")  # fmt: skip
    files.add_force(parser)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, metavar="Q", help="0 to 100 (default 50)")
    target.add_argument("--bpp", type=float, metavar="B", help="target bits per pixel of the file")
    target.add_argument("--size", type=int, metavar="BYTES", help="target size of the file")
    target.add_argument("--psnr", type=float, metavar="DB",
                        help="target PSNR of the decoded image in dB")  # fmt: skip
    target.add_argument("--ssim", "--target-ssim", type=float, metavar="S",
                        help="target SSIM of the decoded image, between 0 and 1")  # fmt: skip
    target.add_argument("--lossless", action="store_true", help="keep every sample exactly")
    parser.add_argument("--effort", type=int, default=0, choices=range(10), metavar="0..9",
                        help="optimise the symbols of each image: slower, fewer bits "
                        "(default 0)")  # fmt: skip
    parser.add_argument("--metric", default="mse", choices=("mse", "ms-ssim"),
                        help="use the weights trained for this metric (default mse)")  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="your own weights (.safetensors)")


def _compress(args) -> int:
    from aejax.codec import api as codec
    from aejax.data.images import READ, read_image

    named = _named(args.inputs, READ)
    sources = [file for file, _ in named]
    outputs = files.targets(
        named, args.output, lambda f: f"{f.stem}.aej", lambda _: ".aej", (".aej",)
    )
    weights = [args.weights] if args.weights else []
    files.check_outputs(outputs, [*sources, *weights], args.force, sources)
    if args.lossless and args.effort:
        raise UserError("--lossless takes no --effort")
    runtime = _runtime(args)

    def compress_one(item):
        source, target = item
        start = time.perf_counter()
        array, meta = read_image(source, keep_depth=True)
        metadata = {"icc_profile": meta.icc, "exif": meta.exif, "xmp": meta.xmp}
        with warnings.catch_warnings(record=True) as missed:
            warnings.simplefilter("always", codec.TargetMissed)
            data = codec.encode(
                array, args.quality, bpp=args.bpp, size=args.size, psnr=args.psnr, ssim=args.ssim,
                effort=args.effort, metric=args.metric, lossless=args.lossless,
                metadata=metadata, runtime=runtime,
            )  # fmt: skip
        files.say(source, [*meta.notes, *(str(w.message) for w in missed)])
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(target, data)
        height, width = array.shape[:2]
        print(
            f"{target}: {width} x {height}, {len(data):,} bytes, "
            f"{8 * len(data) / (height * width):.3f} bpp, {time.perf_counter() - start:.2f} s"
        )

    pairs = list(zip(sources, outputs, strict=True))
    return files.each(pairs, "compressing", _source, compress_one)


def _runtime(args):
    """The Runtime of --weights, or of the shipped weights."""
    from aejax.codec import installed
    from aejax.codec.lossless import installed as lossless

    if args.lossless:
        return lossless.use(args.weights) if args.weights else None
    return installed.use(args.weights) if args.weights else installed.runtime_for(args.metric)


def _source(item: tuple[pathlib.Path, pathlib.Path]) -> pathlib.Path:
    return item[0]


# --- decompress -----------------------------------------------------------------------------------


def _decompress_arguments(parser):
    parser.add_argument("inputs", nargs="+", metavar="IN", help=".aej files, or folders of them")
    parser.add_argument("-o", "--output", metavar="OUT",
                        help="file, or folder (created if missing); default: NAME.decoded.EXT "
                        "beside the input, since NAME.EXT may be the original")  # fmt: skip
    files.add_force(parser)
    parser.add_argument("--format", default="png", metavar="EXT",
                        help="format of the images (default png)")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="refuse truncated files")
    parser.add_argument("--weights", metavar="FILE",
                        help="your own weights (.safetensors), if the files were made "
                        "with them")  # fmt: skip


def _decompress(args) -> int:
    from aejax.codec import api as codec
    from aejax.codec.installed import use_any
    from aejax.data.images import SUFFIXES, Meta, write_image

    suffix = "." + args.format.lower().lstrip(".")
    if suffix not in SUFFIXES:
        raise UserError(f'--format "{args.format}": one of {" ".join(SUFFIXES)}')
    named = _named(args.inputs, (".aej",))
    sources = [file for file, _ in named]
    outputs = files.targets(
        named, args.output, lambda f: f"{f.stem}.decoded{suffix}", lambda _: suffix, SUFFIXES
    )
    weights = [args.weights] if args.weights else []
    files.check_outputs(outputs, [*sources, *weights], args.force, sources)
    if args.weights:
        use_any(args.weights)

    def decompress_one(item):
        source, target = item
        decoded = codec.read(source.read_bytes())
        if args.strict and not decoded.complete:
            raise UserError(
                "the file was truncated; without --strict it is decoded to a coarser image"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        stored = decoded.metadata
        meta = Meta(icc=stored.get("icc_profile"), exif=stored.get("exif"), xmp=stored.get("xmp"))
        files.say(target, write_image(target, decoded.image, meta))
        scans = f"{decoded.scans} of {decoded.of_scans} scans"
        note = "" if decoded.complete else f" (the file was truncated: coarser, {scans})"
        print(f"{target}: {decoded.header.width} x {decoded.header.height}{note}")

    pairs = list(zip(sources, outputs, strict=True))
    return files.each(pairs, "decompressing", _source, decompress_one)


# --- codec info, codec compare --------------------------------------------------------------------


def _codec_arguments(parser):
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    info = what.add_parser("info", help="describe .aej files without decoding them")
    info.add_argument("files", nargs="+", metavar="FILE")
    info.set_defaults(do=_info)
    compare = what.add_parser("compare", help="one picture in every codec at equal file size")
    compare.add_argument("image", metavar="IMAGE")
    compare.add_argument("-o", "--out", metavar="SHEET.png", help="default: IMAGE.compared.png")
    size = compare.add_mutually_exclusive_group()
    size.add_argument("--size", type=int, metavar="BYTES", help="file size, at most")
    size.add_argument("--jpeg", type=int, default=25, metavar="Q",
                      help="the size of a JPEG of this quality (default 25)")  # fmt: skip
    files.add_force(compare)
    compare.set_defaults(do=_compare)


def _codec(args) -> int:
    return args.do(args)


def _info(args) -> int:
    from aejax.codec import api as codec

    def describe(item):
        print(item[0])
        for name, value in codec.info(item[0].read_bytes()).items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v:,} bytes" for k, v in value.items()) or "none"
            elif isinstance(value, float):
                value = f"{value:.4g}"
            print(f"  {name:<10} {value}")

    return files.each(_named(args.files, (".aej",)), "reading", _source, describe)


def _compare(args) -> int:
    from aejax.codec.evaluation.compare import compare

    source = pathlib.Path(args.image)
    target = pathlib.Path(args.out or source.with_name(f"{source.stem}.compared.png"))
    if args.size is not None and args.size < 1:
        raise UserError(f"--size {args.size}: give at least 1 byte")
    if not 1 <= args.jpeg <= 95:
        raise UserError(f"--jpeg {args.jpeg}: give a quality from 1 to 95")
    files.check_outputs([target], [source], args.force)
    for panel in compare(source, target, args.size, args.jpeg):
        print(panel.text)
    print(target)
    return 0


# --- eval-codec -----------------------------------------------------------------------------------


def _eval_arguments(parser):
    parser.add_argument("folder", metavar="DIR", help="images to measure on")
    parser.add_argument("--out", metavar="FILE.json",
                        help="write results as JSON, with CSV and figures beside it")  # fmt: skip
    files.add_force(parser)
    parser.add_argument("--codecs", metavar="A,B",
                        help="names of codecs; default: all that are installed")  # fmt: skip
    parser.add_argument("--effort", type=int, default=0, choices=range(10), metavar="0..9",
                        help="also measure aejax with this effort (minutes per image)")  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="your own weights (.safetensors)")
    parser.add_argument("--images", type=int, default=0, metavar="N",
                        help="only the first N images")  # fmt: skip
    parser.add_argument("--lossless", action="store_true",
                        help="compare lossless codecs: aejax, PNG, WebP, JPEG XL")  # fmt: skip


def _eval(args) -> int:
    from aejax.codec.evaluation import command as evaluation
    from aejax.data.walk import images_in

    if args.lossless:
        if args.effort:
            raise UserError("--lossless takes no --effort")
        from aejax.codec.lossless import evaluation
    if args.out:
        outputs = evaluation.outputs(args.out)
        files.check_outputs(outputs, images_in(args.folder), args.force)
    return evaluation.run(args)


compress = Verb(_compress_arguments, _compress)
decompress = Verb(_decompress_arguments, _decompress)
codec = Verb(_codec_arguments, _codec)
eval_codec = Verb(_eval_arguments, _eval)
