"""The codec's verbs: compress, decompress, codec info, eval-codec."""

import pathlib
import sys
import time
from collections.abc import Callable, Iterable

from aejax.errors import UserError
from aejax.verbs import Verb


def _files(inputs: Iterable[str], suffixes: tuple[str, ...]) -> list[tuple[pathlib.Path, str]]:
    """(file, path inside the folder it was found in) of files and folders.

    Raises:
      UserError: something is not there, or there is nothing.
    """
    from aejax.data.walk import files_in

    out = []
    for name in inputs:
        path = pathlib.Path(name)
        if path.is_dir():
            out += [(p, str(p.relative_to(path))) for p in files_in(path, suffixes)]
        elif path.exists():
            out.append((path, path.name))
        else:
            raise UserError(f"{name}: no such file or folder")
    if not out:
        raise UserError(f"no {', '.join(suffixes)} in {', '.join(inputs)}")
    return out


def _target(args, inside: str, many: bool, source: pathlib.Path, suffix: str) -> pathlib.Path:
    """Where a file's result goes: -o names a folder if there are many or it is one."""
    if args.output is None:
        return source.with_suffix(suffix)
    output = pathlib.Path(args.output)
    if many or output.is_dir() or str(args.output).endswith("/"):
        return (output / inside).with_suffix(suffix)
    return output


def _each(work: list, what: str, do: Callable) -> int:
    """Calls do(item) for all items with a progress bar; a file that fails does not stop the
    others, but sets the exit status."""
    failed = 0
    if len(work) > 1 and sys.stderr.isatty():
        from rich.progress import track

        work = track(work, description=what, total=len(work))
    for item in work:
        try:
            do(item)
        except UserError as e:
            failed += 1
            print(f"aejax: {item[0]}: {e}", file=sys.stderr)
        except OSError as e:
            failed += 1
            print(f"aejax: {item[0]}: {e.strerror or e}", file=sys.stderr)
    return 2 if failed else 0


def _write(path: pathlib.Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


# --- compress -------------------------------------------------------------------------------------


def _compress_arguments(parser):
    parser.add_argument("inputs", nargs="+", metavar="IN", help="images, or folders of images")
    parser.add_argument("-o", "--output", metavar="OUT", help="file, or folder (made if missing)")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, metavar="Q", help="0 to 100 (default 50)")
    target.add_argument("--bpp", type=float, metavar="B", help="bits per pixel of the file")
    target.add_argument("--size", type=int, metavar="BYTES", help="bytes of the file")
    target.add_argument("--psnr", type=float, metavar="DB", help="decibels of the decoded image")
    parser.add_argument("--effort", type=int, default=0, choices=range(10), metavar="0..9",
                        help="optimise the latents of each image: slower, fewer bits")  # fmt: skip
    parser.add_argument("--metric", default="mse", choices=("mse", "ms-ssim"))
    parser.add_argument("--weights", metavar="FILE", help="weights of your own (.safetensors)")


def _compress(args) -> int:
    from aejax.codec import api as codec
    from aejax.codec import pillow
    from aejax.data.decode import READ

    runtime = codec.use(args.weights) if args.weights else codec.runtime_for(args.metric)
    work = _files(args.inputs, READ)

    def one(item):
        source, inside = item
        began = time.perf_counter()
        array, metadata = pillow.open_array(source)
        data = codec.encode(
            array, args.quality, bpp=args.bpp, size=args.size, psnr=args.psnr, effort=args.effort,
            metric=args.metric, metadata=metadata, runtime=runtime,
        )  # fmt: skip
        target = _target(args, inside, len(work) > 1, source, ".aej")
        _write(target, data)
        height, width = array.shape[:2]
        print(
            f"{target}: {width} x {height}, {len(data):,} bytes, "
            f"{8 * len(data) / (height * width):.3f} bpp, {time.perf_counter() - began:.2f} s"
        )

    return _each(work, "compressing", one)


# --- decompress -----------------------------------------------------------------------------------


def _decompress_arguments(parser):
    parser.add_argument("inputs", nargs="+", metavar="IN", help=".aej files, or folders of them")
    parser.add_argument("-o", "--output", metavar="OUT", help="file, or folder (made if missing)")
    parser.add_argument("--format", default="png", metavar="EXT", help="of the images (png)")
    parser.add_argument("--strict", action="store_true", help="refuse files that were cut")
    parser.add_argument("--weights", metavar="FILE", help="weights of your own (.safetensors)")


def _decompress(args) -> int:
    from aejax.codec import api as codec
    from aejax.codec import pillow

    if args.weights:
        codec.use(args.weights)
    work = _files(args.inputs, (".aej",))

    def one(item):
        source, inside = item
        found = codec.read(source.read_bytes())
        if args.strict and not found.complete:
            raise UserError("the file was cut; without --strict what is there is decoded")
        target = _target(args, inside, len(work) > 1, source, "." + args.format.lstrip("."))
        pillow.save_array(found.image, target, found.metadata)
        note = "" if found.complete else f" (the file was cut: {found.scans} scans, coarser)"
        print(f"{target}: {found.header.width} x {found.header.height}{note}")

    return _each(work, "decompressing", one)


# --- codec info -----------------------------------------------------------------------------------


def _codec_arguments(parser):
    parser.add_argument("what", choices=("info",), help="info: what a file says of itself")
    parser.add_argument("files", nargs="+", metavar="FILE")


def _codec(args) -> int:
    from aejax.codec import api as codec

    def one(item):
        print(item[0])
        for name, value in codec.info(item[0].read_bytes()).items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v:,} bytes" for k, v in value.items()) or "none"
            elif isinstance(value, float):
                value = f"{value:.4g}"
            print(f"  {name:<10} {value}")

    return _each(_files(args.files, (".aej",)), "reading", one)


# --- eval-codec -----------------------------------------------------------------------------------


def _eval_arguments(parser):
    parser.add_argument("folder", metavar="DIR", help="images to measure on")
    parser.add_argument("--out", metavar="FILE", help="results as JSON; figures beside it")
    parser.add_argument("--codecs", metavar="A,B", help="names; default: all there are")
    parser.add_argument("--effort", type=int, default=0, choices=range(10), metavar="0..9",
                        help="run ours with this effort too: minutes per image")  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="weights of your own (.safetensors)")
    parser.add_argument("--images", type=int, default=0, metavar="N", help="only the first N")


def _eval(args) -> int:
    from aejax.codec import evaluation

    return evaluation.run(args)


compress = Verb(_compress_arguments, _compress)
decompress = Verb(_decompress_arguments, _decompress)
codec = Verb(_codec_arguments, _codec)
eval_codec = Verb(_eval_arguments, _eval)
