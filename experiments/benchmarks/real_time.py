"""Real time: frames/s of `aejax stream`, and where the time of the shipped models goes.

    python experiments/benchmarks/real_time.py

Streams: a pan over a photograph with white noise (`python -m aejax.stream.clip`), 4:2:0, read from
a file. The frame rate counts all frames after compilation. Latency is the time from the last byte
read of a frame to its last byte written, with at most one waiting frame. CPU time per frame is that
of the process without its start; other work on the machine hardly affects it.

Cost: 4 minutes on two cores of an AMD EPYC. Results: real_time.md beside this file.
"""

import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

from common import begin, table, write

# (name, size, chroma, sigma, arguments of each `aejax stream` in the pipe)
STREAMS = (
    ("denoise, gray", "640x480", "mono", 25, ("--task denoise",)),
    ("denoise, colour", "640x480", "420jpeg", 25, ("--task denoise",)),
    ("compress", "256x256", "420jpeg", 5, ("--task compress",)),
    ("decompress", "256x256", "420jpeg", 5, ("--task decompress",)),
    ("compress and decompress", "256x256", "420jpeg", 5, ("--task compress", "--task decompress")),
)
MODELS = ("gray", "colour", "photo", "realtime", "codec", "lossless", "fashion-mnist")
SUMMARY = re.compile(
    r"(\d+) frames in [\d.]+ s, ([\d.]+) frames/s, latency p50 (\d+) ms p99 (\d+) ms"
)


def clip(path: pathlib.Path, size: str, chroma: str, sigma: int, frames: int) -> None:
    """Writes the input video."""
    command = [sys.executable, "-m", "aejax.stream.clip", path, "--size", size, "--chroma", chroma,
               "--sigma", str(sigma), "--frames", str(frames)]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True)


def stages(video: pathlib.Path, out: pathlib.Path, tasks: tuple[str, ...]) -> tuple[str, float]:
    """Runs a pipe of `aejax stream` processes.

    Returns:
      (last message of the last process, CPU seconds of all).
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    source, running = video.open("rb"), []
    for n, task in enumerate(tasks):
        is_last = n == len(tasks) - 1
        command = [sys.executable, "-m", "aejax", "stream", "--queue", "1", *task.split()]
        target = out.open("wb") if is_last else subprocess.PIPE
        process = subprocess.Popen(command, stdin=source, stdout=target, stderr=subprocess.PIPE)
        source.close()
        source = process.stdout or target
        running.append(process)
    source.close()
    messages = [process.communicate()[1].decode().splitlines()[-1] for process in running]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return messages[-1], used


def streams(frames: int) -> str:
    """The table of frame rates."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for name, size, chroma, sigma, tasks in STREAMS:
            cpu = []
            for count in (2, frames):  # the difference excludes the start of the process
                video, out = folder / "in.y4m", folder / "out"
                clip(video, size, chroma, sigma, count)
                if name == "decompress":
                    stages(video, folder / "in.aejv", ("--task compress",))
                    video = folder / "in.aejv"
                message, used = stages(video, out, tasks)
                cpu.append(used)
            match = SUMMARY.search(message)
            assert match and int(match[1]) == frames, message
            per_frame = 1e3 * (cpu[1] - cpu[0]) / (frames - 2)
            rows.append((name, size, *match.groups()[1:], f"{per_frame:.0f}"))
    head = ("task", "size", "frames/s", "latency p50, ms", "p99, ms", "CPU ms a frame")
    return table(head, rows)


def budgets(runs: int) -> str:
    """The output of `aejax bench` for each model."""
    parts = []
    for name in MODELS:
        command = [sys.executable, "-m", "aejax", "bench", name, "--runs", str(runs)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        parts.append(f"```text\n{output.rstrip()}\n```")
    return "\n\n".join(parts)


def main() -> None:
    args = begin(__doc__, ("--frames", {"type": int, "default": 300}),
                 ("--runs", {"type": int, "default": 20}))  # fmt: skip
    root = str(pathlib.Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    frames, runs = (6, 1) if args.smoke else (args.frames, args.runs)
    text = f"""`aejax stream`, {frames} frames each:

{streams(frames)}

`aejax bench MODEL --runs {runs}`:

{budgets(runs)}
"""
    write(__file__, text, args, "constriction", method="one case after the other")


if __name__ == "__main__":
    main()
