"""aejax stream."""

import argparse
import sys
import time

from aejax.cli import Verb
from aejax.errors import UserError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        choices=("denoise", "compress", "decompress"),
        default="denoise",
        help="compress writes a stream of .aej files, which decompress reads",
    )
    parser.add_argument("--model", default="", help="of denoise: a name, a file, a run's folder")
    parser.add_argument(
        "--strength",
        type=float,
        metavar="A",
        help="of denoise: 1 takes away what the model finds (default), 0 nothing",
    )
    parser.add_argument(
        "--steady",
        type=float,
        metavar="N",
        help="of denoise: average the noise level over about N frames (default 0)",
    )
    parser.add_argument("--quality", type=float, help="of compress: 0 to 100 (default 50)")
    parser.add_argument("--size", metavar="WxH", help="the input is raw pixels of this size")
    parser.add_argument("--pixels", default="rgb24", help="of raw input: rgb24 (default) or gray")
    full = parser.add_mutually_exclusive_group()
    full.add_argument(
        "--block",
        action="store_true",
        help="when frames come faster than they are done, let them wait (default)",
    )
    full.add_argument(
        "--drop",
        action="store_true",
        help="or leave some out: the picture before is shown again",
    )
    parser.add_argument(
        "--queue", type=int, default=4, metavar="N", help="frames that wait at most (default 4)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")


def _options(args: argparse.Namespace) -> dict:
    """The options that were given, of the task that they belong to.

    Raises:
      UserError: an option of another task.
    """
    known = {"denoise": ("model", "strength", "steady"), "compress": ("quality",)}
    given = {name: getattr(args, name) for names in known.values() for name in names}
    given = {name: value for name, value in given.items() if value not in (None, "")}
    for name in given:
        if name not in known.get(args.task, ()):
            raise UserError(f"--{name} has no meaning for --task {args.task}")
    return given


def _stream(args: argparse.Namespace) -> int:
    options = _options(args)
    if args.queue < 1:
        raise UserError(f"--queue {args.queue}: at least one frame must be able to wait")
    if sys.stdin.isatty() or sys.stdout.isatty():
        raise UserError(
            "video comes on standard input and goes to standard output; pipe both: "
            "ffmpeg -i in.mp4 -f yuv4mpegpipe - | aejax stream | ffmpeg -i - out.mp4"
        )
    from aejax.stream.pipe import Progress, pump
    from aejax.stream.tasks import TASKS
    from aejax.stream.y4m import framed, frames, open_video, raw_video

    task = TASKS[args.task]
    # Files of our own: the thread that reads may still wait in the one when the program ends.
    with open(1, "wb", closefd=False) as target:
        source = open(0, "rb", closefd=False)
        if args.size is None:
            video = open_video(source, task.reads_coded)
        elif task.reads_coded:
            raise UserError("--size: the size of compressed video is in its header")
        else:
            video = raw_video(args.size, args.pixels)
        begin = time.perf_counter()
        work = task(video, **options)
        if not args.quiet:
            print(
                f"aejax stream: {args.task} {video.width}x{video.height} {video.layout}, ready "
                f"after {time.perf_counter() - begin:.1f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip

        def write(data: bytes) -> None:
            target.write(framed(data, video, task.writes_coded))
            target.flush()

        target.write(video.header(task.writes_coded))
        pump(
            frames(source, video, task.reads_coded), work, write, Progress(args.quiet),
            size=args.queue, drop=args.drop,
        )  # fmt: skip
    return 0


stream = Verb(_arguments, _stream)
