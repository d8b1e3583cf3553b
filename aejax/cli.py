"""aejax VERB: the command line. The table of verbs, and what all of them share.

A verb is a `Verb` (the arguments it adds, and the function that runs it) in a module of its
subject; `GROUPS` names it. Modules are imported when their verb is called, so `aejax --help` needs
neither JAX nor NumPy.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import io
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from aejax.errors import SavedAndStopped, UserError


@dataclasses.dataclass(frozen=True)
class Verb:
    """The two functions of a verb.

    Attributes:
      add_arguments: adds the verb's arguments to its parser.
      run: does it with the parsed arguments, of which `overrides` has the --config.a.b=value in
        order; returns the exit status.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Entry(NamedTuple):
    """A verb in the table.

    Attributes:
      where: "module:name" of its Verb.
      help: a line for `aejax --help`.
      data: what it reads and what it writes, with shapes, for `aejax VERB --help`.
      example: a command.
    """

    where: str
    help: str
    data: str
    example: str


# h, w: pixels; c: channels (1 gray, 3 RGB); n, b: images; k: channels of h.
GROUPS = {
    "experiments": {
        "new": Entry(
            "aejax.new:new_verb",
            "write a small project of your own: parts, experiment, study, test",
            "Writes a new folder of text files: a Python package, experiments/, tests/, README.md.",
            "aejax new faces",
        ),
        "train": Entry(
            "aejax.training.cli:train",
            "train one experiment; an interrupted run is resumed",
            "Trains on batches [b, h, w, c] of float32 in [0, 1] (h, w, c from the config's data). "
            "Writes a run folder: config.json, log.jsonl, checkpoints/, pictures/, result.json.",
            "aejax train --config experiments/quickstart.py:digits --workdir runs/digits",
        ),
        "check": Entry(
            "aejax.training.cli:check",
            "resolve a config, count its parameters, and try one real step",
            "Prints the shape of every parameter, of x [h, w, c] and the size of h, memory, cost "
            "and speed of a step. Writes nothing.",
            "aejax check --config experiments/reconstruct/dense_784.py",
        ),
        "eval": Entry(
            "aejax.training.cli:evaluate",
            "measure a trained model again, also on other data",
            "Reads a run folder and images [h, w, c]. Writes a JSON file with the mean of each "
            "metric over the n images and its n values.",
            "aejax eval --workdir runs/digits",
        ),
        "study": Entry(
            "aejax.study.cli:study",
            "train all runs of a study that are not done yet, then report",
            "Reads a file with get_study(). Writes a run folder for each run of the study, "
            "manifest.json, and the report.",
            "aejax study experiments/quickstart.py",
        ),
        "report": Entry(
            "aejax.report.cli:report",
            "tables, figures and a page of finished studies",
            "Reads folders of studies or runs. Writes report.html (one file), table.md, table.tex, "
            "results.csv (a line per run) and figures as PNG.",
            "aejax report runs/quickstart",
        ),
    },
    "data": {
        "data": Entry(
            "aejax.data.cli:data",
            "list sources of images, look at one, or check it",
            "Reads a source: n images of uint8 [h, w, c], of one size or of many. `show` writes a "
            "sheet of some of them as PNG.",
            "aejax data show bundled:photos -o photos.png",
        ),
    },
    "codec": {
        "compress": Entry(
            "aejax.codec.cli:compress",
            "images to .aej files",
            "Reads images of any size, uint8 [h, w] or [h, w, 3]. Writes a .aej file for each.",
            "aejax compress photo.png --quality 50",
        ),
        "decompress": Entry(
            "aejax.codec.cli:decompress",
            ".aej files to images",
            "Reads .aej files. Writes an image of the original's size for each, the same bytes on "
            "every machine.",
            "aejax decompress photo.aej",
        ),
        "codec": Entry(
            "aejax.codec.cli:codec",
            "what is in an .aej file",
            "Reads the heads of .aej files. Prints size, channels, bits per pixel and streams.",
            "aejax codec info photo.aej",
        ),
        "eval-codec": Entry(
            "aejax.codec.cli:eval_codec",
            "rate and distortion of codecs on images",
            "Reads a folder of images [h, w, c]. Writes bits per pixel and PSNR of every image, "
            "codec and quality as JSON, and figures.",
            "aejax eval-codec photos/ --out results.json",
        ),
    },
    "denoising": {
        "denoise": Entry(
            "aejax.denoising.cli:denoise",
            "remove noise from images",
            "Reads images of any size and mode, [h, w] or [h, w, c]. Writes an image of the same "
            "shape for each.",
            "aejax denoise noisy.png -o clean.png",
        ),
        "eval-denoise": Entry(
            "aejax.denoising.eval_cli:eval_denoise",
            "denoisers on clean images, or on pairs of real photographs",
            "Reads a folder of clean images [h, w, c], to which noise is added, or pairs. Writes "
            "PSNR and SSIM of every image and method as JSON.",
            "aejax eval-denoise photos/ --sigma 15 25 50 --out results.json",
        ),
    },
    "generation": {
        "sample": Entry(
            "aejax.generation.cli:sample",
            "new images from a trained prior",
            "Draws n vectors of the prior and decodes them to images [n, h, w, c] of the model's "
            "size. Writes one sheet, or n files into a folder.",
            "aejax sample --model fashion-mnist --n 64 -o grid.png",
        ),
        "interpolate": Entry(
            "aejax.generation.cli:interpolate",
            "a strip from one image to another",
            "Reads two images, fitted to the model's [h, w, c]. Writes a strip of `--steps` images "
            "of that shape.",
            "aejax interpolate a.png b.png --model digits -o strip.png",
        ),
        "edit": Entry(
            "aejax.generation.cli:edit",
            "walk along coordinates of h",
            "Reads an image, fitted to the model's [h, w, c]. Writes a sheet with a row of images "
            "for each of `--count` coordinates.",
            "aejax edit a.png --model digits -o walk.png",
        ),
        "extend": Entry(
            "aejax.generation.cli:extend",
            "new variants of given images",
            "Reads images, fitted to the model's [h, w, c]. Writes `--n` images of that shape for "
            "each.",
            "aejax extend images/ --n 8 -o more/",
        ),
        "inpaint": Entry(
            "aejax.generation.cli:inpaint",
            "fill a masked region",
            "Reads an image and a mask, both fitted to the model's [h, w]. Writes `--n` images "
            "[h, w, c] with the region filled.",
            "aejax inpaint a.png --mask mask.png -o whole.png",
        ),
    },
    "sharing": {
        "export": Entry(
            "aejax.export.cli:export",
            "a model as StableHLO or ONNX, a web page, or a folder for a hub",
            "Reads a trained model. Writes one function of it, such as [b, h, w, c] -> [b, h, w, "
            "c], with a .json that describes its inputs; a web page; or a folder with weights and "
            "a model card.",
            "aejax export gray -o gray.stablehlo",
        ),
        "shrink": Entry(
            "aejax.small.cli:shrink",
            "a smaller copy of a model: fewer channels, fewer bits, no zeros",
            "Reads a trained model. Writes NAME.safetensors and NAME.json, which aejax.load and "
            "aejax train --from take.",
            "aejax shrink runs/digits --keep 0.5 -o half.safetensors",
        ),
    },
    "services": {
        "stream": Entry(
            "aejax.stream.cli:stream",
            "video through a model: from standard input to standard output",
            "Reads frames [h, w, c] of 8 bits on standard input, as Y4M or raw pixels, and writes "
            "as many of the same size. What is compressed is a stream of .aej files.",
            "ffmpeg -i in.mp4 -f yuv4mpegpipe - | aejax stream | ffmpeg -i - out.mp4",
        ),
        "serve": Entry(
            "aejax.serve.cli:serve",
            "encode, decode, denoise, sample and latents over HTTP, and a page to try them",
            "Reads pictures [h, w, c] from requests and answers with pictures or JSON; requests "
            "are limited in size, time and number. Writes nothing to the disk.",
            "aejax serve --port 8000",
        ),
        "bench": Entry(
            "aejax.bench:bench",
            "where the time of a model goes: read, transfer, compute, write",
            "Runs a model on one photograph [h, w, c] of the asked size. Prints times, cost and "
            "memory.",
            "aejax bench gray --size 640x480",
        ),
    },
    "machines": {
        "launch": Entry(
            "aejax.engines.cli:launch",
            "run a study on an engine: local, slurm, gke, tpu_vm, sky",
            "Reads a study file and the engine's templates. Writes a folder of job files and "
            "submits them.",
            "aejax launch slurm experiments/quickstart.py --dry-run",
        ),
        "info": Entry(
            "aejax.training.cli:info",
            "versions, devices, CPU features, folders",
            "Prints what is installed and set on this machine. Writes nothing.",
            "aejax info",
        ),
    },
}
VERBS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


def is_installed(entry: Entry) -> bool:
    """Whether the module of a verb is there (rooms may be left out of an installation)."""
    return importlib.util.find_spec(entry.where.partition(":")[0]) is not None


def load_verb(entry: Entry) -> Verb:
    """The Verb that an entry names."""
    module, _, attribute = entry.where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """The argument --data-dir."""
    parser.add_argument("--data-dir", help="the data folder (default: AEJAX_DATA)")


def command_line() -> str:
    """This command as one would type it."""
    return shlex.join(["aejax", *sys.argv[1:]])


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit status 2."""

    def error(self, message: str):
        raise UserError(f"{message}; see {self.prog} --help")


def overview() -> str:
    """The text of `aejax --help`."""
    from aejax import __version__

    lines = [
        f"aejax {__version__}: image autoencoders in JAX, h = f_E(x), y = f_D(h)",
        "",
        "usage: aejax VERB [arguments]      aejax VERB --help: arguments, what is read and written",
    ]
    for group, entries in GROUPS.items():
        lines += ["", f"{group}:"]
        for name, entry in entries.items():
            if is_installed(entry):
                lines += [f"  {name:<13} {entry.help}", f"  {'':<13}   {entry.example}"]
    lines += [
        "",
        "AEJAX_DATA names the data folder (or --data-dir). --debug shows an error's traceback.",
        "Exit status: 0 done, 1 some runs failed or a bug, 2 a mistake in what was asked,",
        "75 saved and stopped: run it again.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        with plain_messages(quiet="--quiet" in arguments):
            return dispatch(arguments)
    except UserError as e:
        if debug:
            raise
        print(f"aejax: {e}", file=sys.stderr)
        return 2
    except SavedAndStopped as e:
        print(f"aejax: {e}", file=sys.stderr)
        return 75
    except KeyboardInterrupt:
        print("aejax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # aejax ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:
        if debug:
            raise
        text = " ".join(str(e).split()) or "no message"
        from aejax.registry import own_line

        if line := own_line(e):
            print(
                f"aejax: {line}: {type(e).__name__}: {text[:300]} (--debug shows the traceback)",
                file=sys.stderr,
            )
            return 1
        print(
            f"aejax: {type(e).__name__}: {text[:300]} (this is a bug of aejax or of what it stands "
            "on; --debug shows where)",
            file=sys.stderr,
        )
        return 1


@contextlib.contextmanager
def plain_messages(quiet: bool) -> Generator[None]:
    """Log messages and warnings of a command as one line each on stderr, without a source line."""
    import logging
    import warnings

    class Stderr(logging.Handler):
        def emit(self, record):
            print(record.getMessage(), file=sys.stderr, flush=True)

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"aejax: {message}", file=sys.stderr, flush=True)

    logger, handler = logging.getLogger("aejax"), Stderr()
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    propagate, logger.propagate = logger.propagate, False  # absl would print them again
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def dispatch(arguments: list[str]) -> int:
    """Finds the verb and runs it."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        from aejax import __version__

        print(f"aejax {__version__}")
        return 0
    from aejax.registry import use_current_folder

    use_current_folder()
    name, rest = arguments[0], arguments[1:]
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
        hint = f'did you mean "{near[0]}"?' if near else "aejax --help lists the verbs"
        raise UserError(f'no verb "{name}"; {hint}')
    entry = VERBS[name]
    if not is_installed(entry):
        raise UserError(f'"{name}" is not part of this installation')
    verb = load_verb(entry)
    description = textwrap.fill(f"{entry.help[0].upper()}{entry.help[1:]}. {entry.data}", 88)
    parser = Parser(
        prog=f"aejax {name}", description=description, epilog=f"example: {entry.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verb.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args([a for a in rest if not a.startswith("--config.")])
    args.overrides = [a for a in rest if a.startswith("--config.")]
    for value in vars(args).values():
        if isinstance(value, str) and "://" in value and not value.startswith("hf://"):
            raise UserError(
                f'"{value}" is an address, not a folder; mount the bucket (docs/tpu-pods.md, '
                "section 9) and give the folder it is mounted at"
            )
    from aejax.machine import allocator, cache, cpu

    os.environ.update(cpu.without_tpu())
    allocator.reexec_if_useful()
    cache.compilation_cache()
    return verb.run(args)
