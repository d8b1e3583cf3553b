"""Real time: frames/s of `aejax stream`, and where the time of the shipped models goes.

    python experiments/benchmarks/real_time.py

Streams: a pan over a photograph with white noise (`python -m aejax.stream.clip`), 4:2:0, from a
file through the program. The frame rate is of all frames after the model is compiled; latency is
from a frame's last byte read to its last byte written, with one frame that waits at most. CPU time
is that of the whole process without its start, per frame: what other work on the machine hardly
changes.
"""

import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

from common import begin, table, write

# What is streamed: (name, size, chroma, sigma, stages in a row).
STREAMS = (
    ("denoise, gray", "640x480", "mono", 25, ("--task denoise",)),
    ("denoise, colour", "640x480", "420jpeg", 25, ("--task denoise",)),
    ("compress", "256x256", "420jpeg", 5, ("--task compress",)),
    ("decompress", "256x256", "420jpeg", 5, ("--task decompress",)),
    ("compress and decompress", "256x256", "420jpeg", 5, ("--task compress", "--task decompress")),
)
MODELS = ("gray", "colour", "photo", "realtime", "codec", "lossless", "fashion-mnist")
SAID = re.compile(r"(\d+) frames in [\d.]+ s, ([\d.]+) frames/s, latency p50 (\d+) ms p99 (\d+) ms")


def clip(path: pathlib.Path, size: str, chroma: str, sigma: int, frames: int) -> None:
    """Writes the pan."""
    command = [sys.executable, "-m", "aejax.stream.clip", path, "--size", size, "--chroma", chroma,
               "--sigma", str(sigma), "--frames", str(frames)]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True)


def stages(video: pathlib.Path, out: pathlib.Path, tasks: tuple[str, ...]) -> tuple[str, float]:
    """(the last line that the last stage says, CPU seconds) of the programs in a row."""
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
    said = [process.communicate()[1].decode().splitlines()[-1] for process in running]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return said[-1], used


def streams(frames: int) -> str:
    """The first table."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for name, size, chroma, sigma, tasks in STREAMS:
            cpu = []
            for count in (2, frames):  # what starting costs, and the whole
                video, out = folder / "in.y4m", folder / "out"
                clip(video, size, chroma, sigma, count)
                if name == "decompress":
                    stages(video, folder / "in.aejv", ("--task compress",))
                    video = folder / "in.aejv"
                said, used = stages(video, out, tasks)
                cpu.append(used)
            match = SAID.search(said)
            assert match and int(match[1]) == frames, said
            per_frame = 1e3 * (cpu[1] - cpu[0]) / (frames - 2)
            rows.append((name, size, *match.groups()[1:], f"{per_frame:.0f}"))
    head = ("task", "size", "frames/s", "latency p50, ms", "p99, ms", "CPU ms a frame")
    return table(head, rows)


def budgets(runs: int) -> str:
    """What `aejax bench` prints, each model in a process of its own."""
    parts = []
    for name in MODELS:
        command = [sys.executable, "-m", "aejax", "bench", name, "--runs", str(runs)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        parts.append(f"```text\n{said.rstrip()}\n```")
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
