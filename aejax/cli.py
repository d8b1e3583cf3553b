"""aejax VERB: the command line. Heavy imports happen inside the verb that needs them."""

import argparse
import contextlib
import difflib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aejax.errors import SavedAndStopped, UserError


class Entry(NamedTuple):
    """A verb: where its `add_arguments` and `run` are, what it does, and an example."""

    module: str
    help: str
    example: str


VERBS = {
    "new": Entry("aejax.new", "write a small project of your own: parts, experiment, study, test",
                 "aejax new faces"),
    "train": Entry("aejax.verbs:train", "train one experiment, from wherever it stands",
                   "aejax train --config experiments/quickstart.py:digits --workdir runs/digits"),
    "check": Entry("aejax.verbs:check", "resolve a config, count, and try one real step",
                   "aejax check --config experiments/reconstruct/dense_784.py"),
    "eval": Entry("aejax.verbs:evaluate", "measure a trained model again",
                  "aejax eval --workdir runs/digits"),
    "study": Entry("aejax.verbs:study", "run all runs of a study that are not done yet, and report",
                   "aejax study experiments/quickstart.py"),
    "report": Entry("aejax.verbs:report", "tables, figures and a page of finished studies",
                    "aejax report runs/quickstart"),
    "data": Entry("aejax.data.cli", "list sources, or look at one",
                  "aejax data show bundled:photos -o photos.png"),
    "info": Entry("aejax.verbs:info", "versions, devices, CPU features, folders", "aejax info"),
    "compress": Entry("aejax.codec.cli:compress", "images to .aej files",
                      "aejax compress photo.png --quality 50"),
    "decompress": Entry("aejax.codec.cli:decompress", ".aej files to images",
                        "aejax decompress photo.aej"),
    "codec": Entry("aejax.codec.cli:codec", "what is in an .aej file",
                   "aejax codec info photo.aej"),
    "eval-codec": Entry("aejax.codec.cli:eval_codec", "rate and distortion of codecs on images",
                        "aejax eval-codec photos/ --out results.json"),
    "denoise": Entry("aejax.denoising.cli:denoise", "remove noise from images",
                     "aejax denoise noisy.png -o clean.png"),
    "eval-denoise": Entry("aejax.denoising.eval_cli:eval_denoise",
                          "denoisers on clean images, or on pairs of real photographs",
                          "aejax eval-denoise photos/ --sigma 15 25 50 --out results.json"),
    "sample": Entry("aejax.generation.cli:sample", "new images from a trained prior",
                    "aejax sample --model fashion-mnist --n 64 -o grid.png"),
    "interpolate": Entry("aejax.generation.cli:interpolate", "a strip from one image to another",
                         "aejax interpolate a.png b.png --model digits -o strip.png"),
    "edit": Entry("aejax.generation.cli:edit", "walk along coordinates of h",
                  "aejax edit a.png --model digits -o walk.png"),
    "extend": Entry("aejax.generation.cli:extend", "new variants of given images",
                    "aejax extend images/ --n 8 -o more/"),
    "inpaint": Entry("aejax.generation.cli:inpaint", "fill a masked region",
                     "aejax inpaint a.png --mask mask.png -o whole.png"),
    "launch": Entry("aejax.launch", "run a study on an engine: local, slurm, gke, tpu_vm, sky",
                    "aejax launch slurm experiments/quickstart.py --dry-run"),
}  # fmt: skip


def present(verb: Entry) -> bool:
    """Whether the module of a verb is there (rooms may be left out of an installation)."""
    import importlib.util

    return importlib.util.find_spec(verb.module.partition(":")[0]) is not None


def load_verb(verb: Entry) -> tuple[Callable, Callable]:
    """(add_arguments, run) of a verb: attributes of its module, or of an object in it."""
    import importlib

    module, _, attribute = verb.module.partition(":")
    found = importlib.import_module(module)
    found = getattr(found, attribute) if attribute else found
    return found.add_arguments, found.run


class Parser(argparse.ArgumentParser):
    """argparse with "did you mean" and exit status 2 in one line."""

    def error(self, message: str):
        raise UserError(f"{message}; see {self.prog} --help")


def overview() -> str:
    """The text of `aejax --help`."""
    from aejax import __version__

    lines = [
        f"aejax {__version__}: image autoencoders in JAX, h = f_E(x), y = f_D(h)",
        "",
        "usage: aejax VERB [arguments]      aejax VERB --help tells more",
        "",
    ]
    for name, verb in VERBS.items():
        if present(verb):
            lines += [f"  {name:<13} {verb.help}", f"  {'':<13}   {verb.example}"]
    lines += [
        "",
        "AEJAX_DATA names the data folder (or --data-dir). --debug shows an error's traceback.",
        "Exit status: 0 done, 2 a mistake in what was asked, 75 saved and to be run again.",
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
def plain_messages(quiet: bool) -> Iterator[None]:
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
    verb = VERBS[name]
    if not present(verb):
        raise UserError(f'"{name}" is not part of this installation')
    add_arguments, run = load_verb(verb)
    parser = Parser(
        prog=f"aejax {name}", description=verb.help, epilog=f"example: {verb.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args([a for a in rest if not a.startswith("--config.")])
    args.overrides = [a for a in rest if a.startswith("--config.")]
    for value in vars(args).values():
        if isinstance(value, str) and "://" in value:
            raise UserError(
                f'"{value}" is an address, not a folder; mount the bucket (docs/tpu-pods.md, '
                "section 9) and give the folder it is mounted at"
            )
    from aejax.machine import allocator, cache, cpu

    os.environ.update(cpu.without_tpu())
    allocator.reexec_if_useful()
    cache.compilation_cache()
    return run(args)
