"""The codec's verbs: compress, decompress, codec info, eval-codec."""

import pathlib
import time
import warnings

from aejax import files
from aejax.cli import Verb
from aejax.errors import UserError


def _named(inputs: list[str], suffixes: tuple[str, ...]) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """(file, its place within the folder that was named, or its name)."""
    from aejax.data.walk import images_in

    return files.named_files(inputs, lambda folder: images_in(folder, True, suffixes))


# --- compress -------------------------------------------------------------------------------------


def _compress_arguments(parser):
    parser.add_argument("inputs", nargs="+", metavar="IN", help="images, or folders of images")
    parser.add_argument("-o", "--output", metavar="OUT",
                        help="file, or folder (made if missing); default: NAME.aej beside "
                        "it")  # fmt: skip
    files.add_force(parser)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, metavar="Q", help="0 to 100 (default 50)")
    target.add_argument("--bpp", type=float, metavar="B", help="bits per pixel of the file")
    target.add_argument("--size", type=int, metavar="BYTES", help="bytes of the file")
    target.add_argument("--psnr", type=float, metavar="DB", help="decibels of the decoded image")
    target.add_argument("--ssim", "--target-ssim", type=float, metavar="S",
                        help="structural similarity of the decoded image, below 1")  # fmt: skip
    target.add_argument("--lossless", action="store_true", help="keep every sample")
    parser.add_argument("--effort", type=int, default=0, choices=range(10), metavar="0..9",
                        help="optimise the latents of each image: slower, fewer bits")  # fmt: skip
    parser.add_argument("--metric", default="mse", choices=("mse", "ms-ssim"))
    parser.add_argument("--weights", metavar="FILE", help="weights of your own (.safetensors)")


def _compress(args) -> int:
    from aejax.codec import api as codec
    from aejax.data.images import READ, read_image

    named = _named(args.inputs, READ)
    sources = [file for file, _ in named]
    made = files.targets(named, args.output, lambda f: f"{f.stem}.aej", lambda _: ".aej", (".aej",))
    weights = [args.weights] if args.weights else []
    files.check_outputs(made, [*sources, *weights], args.force, sources)
    if args.lossless and args.effort:
        raise UserError("--lossless takes no --effort")
    runtime = _runtime(args)

    def one(item):
        source, target = item
        began = time.perf_counter()
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
            f"{8 * len(data) / (height * width):.3f} bpp, {time.perf_counter() - began:.2f} s"
        )

    return files.each(list(zip(sources, made, strict=True)), "compressing", _source, one)


def _runtime(args):
    """The weights that were named, or those that ship."""
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
                        help="file, or folder (made if missing); default: NAME.decoded.EXT beside "
                        "it, as NAME.EXT may be the original")  # fmt: skip
    files.add_force(parser)
    parser.add_argument("--format", default="png", metavar="EXT", help="of the images (png)")
    parser.add_argument("--strict", action="store_true", help="refuse files that were cut")
    parser.add_argument("--weights", metavar="FILE", help="weights of your own (.safetensors)")


def _decompress(args) -> int:
    from aejax.codec import api as codec
    from aejax.codec.installed import use_any
    from aejax.data.images import SUFFIXES, Meta, write_image

    suffix = "." + args.format.lower().lstrip(".")
    if suffix not in SUFFIXES:
        raise UserError(f'--format "{args.format}": one of {" ".join(SUFFIXES)}')
    named = _named(args.inputs, (".aej",))
    sources = [file for file, _ in named]
    made = files.targets(
        named, args.output, lambda f: f"{f.stem}.decoded{suffix}", lambda _: suffix, SUFFIXES
    )
    weights = [args.weights] if args.weights else []
    files.check_outputs(made, [*sources, *weights], args.force, sources)
    if args.weights:
        use_any(args.weights)

    def one(item):
        source, target = item
        decoded = codec.read(source.read_bytes())
        if args.strict and not decoded.complete:
            raise UserError("the file was cut; without --strict what is there is decoded")
        target.parent.mkdir(parents=True, exist_ok=True)
        carried = decoded.metadata
        meta = Meta(
            icc=carried.get("icc_profile"), exif=carried.get("exif"), xmp=carried.get("xmp")
        )
        files.say(target, write_image(target, decoded.image, meta))
        note = "" if decoded.complete else f" (the file was cut: {decoded.scans} scans, coarser)"
        print(f"{target}: {decoded.header.width} x {decoded.header.height}{note}")

    return files.each(list(zip(sources, made, strict=True)), "decompressing", _source, one)


# --- codec info, codec compare --------------------------------------------------------------------


def _codec_arguments(parser):
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    info = what.add_parser("info", help="what a file says of itself")
    info.add_argument("files", nargs="+", metavar="FILE")
    info.set_defaults(do=_info)
    compare = what.add_parser("compare", help="a picture at the size of its JPEG, by every codec")
    compare.add_argument("image", metavar="IMAGE")
    compare.add_argument("-o", "--out", metavar="SHEET.png", help="default: IMAGE.compared.png")
    size = compare.add_mutually_exclusive_group()
    size.add_argument("--size", type=int, metavar="BYTES", help="of the files, at most")
    size.add_argument("--jpeg", type=int, default=25, metavar="Q",
                      help="the size of a JPEG of this quality (25)")  # fmt: skip
    files.add_force(compare)
    compare.set_defaults(do=_compare)


def _codec(args) -> int:
    return args.do(args)


def _info(args) -> int:
    from aejax.codec import api as codec

    def one(item):
        print(item[0])
        for name, value in codec.info(item[0].read_bytes()).items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v:,} bytes" for k, v in value.items()) or "none"
            elif isinstance(value, float):
                value = f"{value:.4g}"
            print(f"  {name:<10} {value}")

    return files.each(_named(args.files, (".aej",)), "reading", _source, one)


def _compare(args) -> int:
    from aejax.codec.evaluation.compare import compare

    source = pathlib.Path(args.image)
    target = pathlib.Path(args.out or source.with_name(f"{source.stem}.compared.png"))
    if args.size is not None and args.size < 1:
        raise UserError(f"--size {args.size}: bytes, at least 1")
    if not 1 <= args.jpeg <= 95:
        raise UserError(f"--jpeg {args.jpeg}: a quality of 1 to 95")
    files.check_outputs([target], [source], args.force)
    for panel in compare(source, target, args.size, args.jpeg):
        print(panel.text)
    print(target)
    return 0


# --- eval-codec -----------------------------------------------------------------------------------


def _eval_arguments(parser):
    parser.add_argument("folder", metavar="DIR", help="images to measure on")
    parser.add_argument("--out", metavar="FILE.json", help="results as JSON; figures beside it")
    files.add_force(parser)
    parser.add_argument("--codecs", metavar="A,B", help="names; default: all there are")
    parser.add_argument("--effort", type=int, default=0, choices=range(10), metavar="0..9",
                        help="run ours with this effort too: minutes per image")  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="weights of your own (.safetensors)")
    parser.add_argument("--images", type=int, default=0, metavar="N", help="only the first N")
    parser.add_argument("--lossless", action="store_true",
                        help="lossless files, beside PNG, WebP and JPEG XL")  # fmt: skip


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
