"""The command line `aejax VERB`: the table of verbs, parsing, and errors.

A verb is a `Verb` (a function that adds its arguments, and one that runs it) in the module of its
subject; `GROUPS` lists them. The module is imported when its verb is called, so `aejax --help`
imports neither JAX nor NumPy.
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
      add_arguments: adds the arguments of the verb to its parser.
      run: runs it and returns the exit status. `overrides` of the parsed arguments has the
        --config.a.b=value arguments in order.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Entry(NamedTuple):
    """A line of the table of verbs.

    Attributes:
      where: "module:name" of the Verb.
      help: one line for `aejax --help`.
      data: inputs and outputs with shapes, for `aejax VERB --help`.
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
            "create a small project: your own parts, an experiment, a study, a test",
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
            "build a model, count its parameters and run one training step",
            "Prints the shape of every parameter, of x [h, w, c] and the size of h, memory, cost "
            "and speed of a step. Writes nothing.",
            "aejax check --config experiments/reconstruct/dense_784.py",
        ),
        "eval": Entry(
            "aejax.training.cli:evaluate",
            "evaluate a trained model, also on other data",
            "Reads a run folder and images [h, w, c]. Writes a JSON file with the mean of each "
            "metric over the n images and its n values.",
            "aejax eval --workdir runs/digits",
        ),
        "study": Entry(
            "aejax.study.cli:study",
            "train the unfinished runs of a study, then write its report",
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
            "list, show, check or pack data sources",
            "Reads a source: n images, uint8 [h, w, c], of one size or of many. `show` writes a "
            "sheet of some images as PNG; `pack` writes array_record files.",
            "aejax data show bundled:photos -o photos.png",
        ),
    },
    "codec": {
        "compress": Entry(
            "aejax.codec.cli:compress",
            "compress images to .aej files",
            "Reads images of any size, uint8 [h, w] or [h, w, 3]. Writes a .aej file for each.",
            "aejax compress photo.png --quality 50",
        ),
        "decompress": Entry(
            "aejax.codec.cli:decompress",
            "decompress .aej files to images",
            "Reads .aej files. Writes an image of the original's size for each, the same bytes on "
            "every machine.",
            "aejax decompress photo.aej",
        ),
        "codec": Entry(
            "aejax.codec.cli:codec",
            "show the header of .aej files",
            "Reads the headers of .aej files. Prints size, channels, bits per pixel and streams.",
            "aejax codec info photo.aej",
        ),
        "eval-codec": Entry(
            "aejax.codec.cli:eval_codec",
            "measure rate and distortion of codecs",
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
            "measure denoisers on clean images, or on pairs of real photographs",
            "Reads a folder of clean images [h, w, c], to which noise is added, or pairs. Writes "
            "PSNR and SSIM of every image and method as JSON.",
            "aejax eval-denoise photos/ --sigma 15 25 50 --out results.json",
        ),
    },
    "generation": {
        "sample": Entry(
            "aejax.generation.cli:sample",
            "generate images from a trained prior",
            "Draws n codes from the prior and decodes them to images [n, h, w, c] of the model's "
            "size. Writes one sheet, or n files into a folder.",
            "aejax sample --model fashion-mnist --n 64 -o grid.png",
        ),
        "interpolate": Entry(
            "aejax.generation.cli:interpolate",
            "interpolate between two images",
            "Reads two images, fitted to the model's [h, w, c]. Writes a strip of `--steps` images "
            "of that shape.",
            "aejax interpolate a.png b.png --model digits -o strip.png",
        ),
        "edit": Entry(
            "aejax.generation.cli:edit",
            "vary single coordinates of h",
            "Reads an image, fitted to the model's [h, w, c]. Writes a sheet with a row of images "
            "for each of `--count` coordinates.",
            "aejax edit a.png --model digits -o walk.png",
        ),
        "extend": Entry(
            "aejax.generation.cli:extend",
            "generate variants of given images",
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
            "export a model as StableHLO or ONNX, a web page, or a folder for a hub",
            "Reads a trained model. Writes one function of it, such as [b, h, w, c] -> [b, h, w, "
            "c], with a .json that describes its inputs; a web page; or a folder with weights and "
            "a model card.",
            "aejax export gray -o gray.stablehlo",
        ),
        "shrink": Entry(
            "aejax.small.cli:shrink",
            "write a smaller copy of a model: fewer channels, lower rank, fewer bits, no zeros",
            "Reads a trained model. Writes NAME.safetensors and NAME.json, for aejax.load and "
            "aejax train --from.",
            "aejax shrink runs/digits --keep 0.5 -o half.safetensors",
        ),
    },
    "services": {
        "stream": Entry(
            "aejax.stream.cli:stream",
            "run a model on a video, from standard input to standard output",
            "Reads frames [h, w, c] of 8 bits on standard input, as Y4M or raw pixels, and writes "
            "as many of the same size. Compressed video is a stream of .aej files.",
            "ffmpeg -i in.mp4 -f yuv4mpegpipe - | aejax stream | ffmpeg -i - out.mp4",
        ),
        "serve": Entry(
            "aejax.serve.cli:serve",
            "serve encode, decode, denoise, sample and latents over HTTP, with a web page",
            "Reads pictures [h, w, c] from requests and answers with pictures or JSON; requests "
            "are limited in size, time and number. Writes nothing to the disk.",
            "aejax serve --port 8000",
        ),
        "bench": Entry(
            "aejax.bench:bench",
            "time a model: read, transfer, compute, write",
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
            "show versions, devices, CPU features, folders",
            "Prints what is installed and configured on this machine. Writes nothing.",
            "aejax info",
        ),
    },
}
VERBS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


def is_installed(entry: Entry) -> bool:
    """Whether the module of a verb exists (packages of tasks may be left out of an
    installation)."""
    return importlib.util.find_spec(entry.where.partition(":")[0]) is not None


def load_verb(entry: Entry) -> Verb:
    """The Verb that an entry names."""
    module, _, attribute = entry.where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds the argument --data-dir."""
    parser.add_argument("--data-dir", help="the data folder (default: AEJAX_DATA)")


def command_line() -> str:
    """The command of this process, as typed in a shell."""
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
        "usage: aejax VERB [arguments]      aejax VERB --help: arguments, inputs and outputs",
    ]
    for group, entries in GROUPS.items():
        lines += ["", f"{group}:"]
        for name, entry in entries.items():
            if is_installed(entry):
                lines += [f"  {name:<13} {entry.help}", f"  {'':<13}   {entry.example}"]
    lines += [
        "",
        "AEJAX_DATA names the data folder (or --data-dir). --debug shows an error's traceback.",
        "Exit status: 0 done, 1 some runs failed or a bug, 2 a mistake in the command,",
        "75 saved and stopped: run it again.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may be invalid UTF-8
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
            f"aejax: {type(e).__name__}: {text[:300]} (this is a bug of aejax or of a "
            "library; --debug shows the traceback)",
            file=sys.stderr,
        )
        return 1


@contextlib.contextmanager
def plain_messages(quiet: bool) -> Generator[None]:
    """Prints log messages and warnings on stderr as their text alone, without file and line."""
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
    propagate, logger.propagate = logger.propagate, False  # otherwise absl prints them again
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
    name, *verb_arguments = arguments
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
    args = parser.parse_args([a for a in verb_arguments if not a.startswith("--config.")])
    args.overrides = [a for a in verb_arguments if a.startswith("--config.")]
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
