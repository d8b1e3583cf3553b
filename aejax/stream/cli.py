"""The command line of `aejax stream`."""

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
        help="default denoise; compress writes a stream of .aej files, which decompress reads",
    )
    parser.add_argument(
        "--model",
        default="",
        help="for denoise: a shipped name, a .safetensors file, a run's folder",
    )
    parser.add_argument(
        "--strength",
        type=float,
        metavar="A",
        help="for denoise: fraction of the estimated noise that is removed, 0 to 2 (default 1)",
    )
    parser.add_argument(
        "--steady",
        type=float,
        metavar="N",
        help="for denoise: average the noise level over about N frames (default 0)",
    )
    parser.add_argument("--quality", type=float, help="for compress: 0 to 100 (default 50)")
    parser.add_argument("--size", metavar="WxH", help="the input is raw pixels of this size")
    parser.add_argument("--pixels", default="rgb24", help="of raw input: rgb24 (default) or gray")
    when_full = parser.add_mutually_exclusive_group()
    when_full.add_argument(
        "--block",
        action="store_true",
        help="if frames arrive faster than they are processed, the input waits (default)",
    )
    when_full.add_argument(
        "--drop",
        action="store_true",
        help="if frames arrive faster than they are processed, drop the oldest and repeat the last "
        "result in their place",
    )
    parser.add_argument(
        "--queue", type=int, default=4, metavar="N", help="frames in the queue, at most (default 4)"
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress and no summary")


def _options(args: argparse.Namespace) -> dict:
    """The options of the task that were given on the command line.

    Raises:
      UserError: an option of another task.
    """
    by_task = {"denoise": ("model", "strength", "steady"), "compress": ("quality",)}
    options = {name: getattr(args, name) for names in by_task.values() for name in names}
    options = {name: value for name, value in options.items() if value not in (None, "")}
    for name in options:
        if name not in by_task.get(args.task, ()):
            raise UserError(f"--{name} is not an option of --task {args.task}")
    return options


def _stream(args: argparse.Namespace) -> int:
    options = _options(args)
    if args.queue < 1:
        raise UserError(f"--queue {args.queue}: give at least 1")
    if sys.stdin.isatty() or sys.stdout.isatty():
        raise UserError(
            "video is read from standard input and written to standard output; pipe both: "
            "ffmpeg -i in.mp4 -f yuv4mpegpipe - | aejax stream | ffmpeg -i - out.mp4"
        )
    from aejax.stream.pipe import Progress, pump
    from aejax.stream.tasks import TASKS
    from aejax.stream.y4m import framed, frames, open_video, raw_video

    task = TASKS[args.task]
    # Own file objects instead of sys.stdin: the reading thread may still be blocked in a read when
    # the interpreter closes sys.stdin.
    with open(1, "wb", closefd=False) as target:
        source = open(0, "rb", closefd=False)
        if args.size is None:
            video = open_video(source, task.reads_coded)
        elif task.reads_coded:
            raise UserError("--size is for raw pixels; compressed video has its size in the header")
        else:
            video = raw_video(args.size, args.pixels)
        start = time.perf_counter()
        work = task(video, **options)
        if not args.quiet:
            print(
                f"aejax stream: {args.task} {video.width}x{video.height} {video.layout}, ready "
                f"after {time.perf_counter() - start:.1f} s",
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
