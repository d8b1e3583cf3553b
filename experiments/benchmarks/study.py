"""A study of 1,000 tiny runs in one process: what a run costs outside training, and memory.

    python experiments/benchmarks/study.py [--runs 1000]

Each run is eight steps of a linear autoencoder on the bundled digits, with evaluation and
checkpoint. The time of the training is in result.json ("seconds"). The time between two results
minus that is the
overhead of the study: lease, run folder, manifest, looking for the next run. Memory is the resident
size of the process.

Cost: 27 minutes on two cores of an AMD EPYC. Results: study.md beside this file.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import common

STUDY = """
from aejax.config import base, part
from aejax.study import Study, grid

def get_study(arg=""):
    c = base()
    c.data.source, c.data.batch = "bundled:digits", 64
    c.model.f_E, c.model.f_D, c.model.latent = part("linear"), part("linear"), 2
    c.train.length, c.eval.pictures, c.eval.metrics = "8 steps", 0, ("psnr",)
    runs = grid({"seed": tuple(range(int(arg)))})
    return Study(name="Tiny", config=c, runs=runs, baselines=())
"""


def resident(pid: int) -> float:
    """Resident memory of a process in MiB; 0 when it has ended."""
    try:
        pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0
    return int(pages) * 4096 / 2**20


def main():
    args = common.begin(__doc__, ("--runs", {"type": int, "default": 1000}))
    count = 5 if args.smoke else args.runs
    with tempfile.TemporaryDirectory() as folder:
        file, runs = pathlib.Path(folder, "tiny.py"), pathlib.Path(folder, "runs")
        file.write_text(STUDY)
        command = [sys.executable, "-m", "aejax", "study", f"{file}:{count}", "--directory", runs]
        with open(pathlib.Path(folder, "log"), "w") as log:
            start = time.time()
            child = subprocess.Popen(command, stdout=log, stderr=log)
            memory = {}  # number of finished runs -> MiB
            while child.poll() is None:
                time.sleep(1.0)
                finished = len(list(runs.glob("*/result.json")))
                memory[finished] = resident(child.pid) or memory.get(finished, 0.0)
        if child.returncode:
            sys.exit(pathlib.Path(folder, "log").read_text()[-2000:])
        files = sorted(runs.glob("*/result.json"), key=lambda f: f.stat().st_mtime_ns)
        ends = [f.stat().st_mtime for f in files]
        seconds = [json.loads(f.read_text())["seconds"] for f in files]
        report = (runs / "report.html").stat().st_mtime - ends[-1]
    between = [b - a for a, b in zip(ends, ends[1:], strict=False)]
    added = [1e3 * (b - t["total"]) for b, t in zip(between, seconds[1:], strict=True)]
    tenth = max(1, len(added) // 10)
    parts = ", ".join(
        f"{phase} {1e3 * statistics.median(t[phase] for t in seconds):.0f}"
        for phase in ("init", "compile", "step", "evaluate", "checkpoint")
    )
    half = min(memory, key=lambda n: abs(n - count / 2))
    early = min(memory, key=lambda n: abs(n - count / 10))
    last = max(memory)
    text = f"""{len(files)} runs in {ends[-1] - start:.0f} s, {statistics.median(between):.2f} s
each; of it training itself, in ms: {parts}.

{common.table(["", ""], [
    ("ms a run outside training, median", f"{statistics.median(added):.0f}"),
    ("mean", f"{statistics.mean(added):.0f}"),
    ("mean of the first tenth", f"{statistics.mean(added[:tenth]):.0f}"),
    ("mean of the last tenth", f"{statistics.mean(added[-tenth:]):.0f}"),
    ("MiB resident after a tenth", f"{memory[early]:.0f}"),
    ("after half", f"{memory[half]:.0f}"),
    ("at the end", f"{memory[last]:.0f}"),
    ("s for the report at the end", f"{report:.1f}"),
])}
"""  # fmt: skip
    common.write(__file__, text, args, method="one study")


if __name__ == "__main__":
    main()
