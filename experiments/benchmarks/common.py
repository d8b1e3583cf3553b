"""What the benchmarks share: a tuned process, cases timed in turn, and a table beside the script.

Every table names its machine, versions, date, command and wall time. Other work on a machine
disturbs wall times more than anything here gains: with --one-core the process keeps to one core
and the time shown is the CPU time of the process, which other work hardly changes.
"""

import argparse
import datetime
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

STARTED = time.time()


class Time(NamedTuple):
    """Medians over the rounds, in seconds."""

    wall: float
    cpu: float
    one_core: bool

    @property
    def s(self) -> float:
        return self.cpu if self.one_core else self.wall

    @property
    def ms(self) -> str:
        v = 1e3 * self.s
        return f"{v:.2f}" if v < 10 else f"{v:.0f}" if v >= 100 else f"{v:.1f}"


def begin(doc: str, *more: tuple[str, dict]) -> argparse.Namespace:
    """The arguments of a benchmark, in a process that has the allocator's settings.

    Call it before importing jax or torch.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds, no table written")
    parser.add_argument("--one-core", action="store_true", help="one core, CPU time")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--data-dir", default=os.environ.get("AEJAX_DATA", "data"))
    for name, kwargs in more:
        parser.add_argument(name, **kwargs)
    args = parser.parse_args()
    root = str(pathlib.Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.insert(0, root)
    from aejax.machine import allocator, cache

    wanted = allocator.environment()
    if wanted:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
    if args.one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if args.smoke:
        args.rounds = 1
    global ONE_CORE
    ONE_CORE = args.one_core
    os.environ.setdefault("KERAS_BACKEND", "torch")
    cache.compilation_cache()
    return args


ONE_CORE = False


def peak_mib() -> float:
    """Most resident memory so far; ru_maxrss would begin at that of the process's parent."""
    status = dict(line.split(":\t") for line in pathlib.Path("/proc/self/status").open())
    return int(status["VmHWM"].split()[0]) / 1024


def in_turn(
    cases: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1
) -> dict[str, Time]:
    """Medians over `rounds`, in each of which every case, which waits for itself, runs in turn:
    twice, and the second counts. The first pays for the threads and caches of the case before."""
    for call in cases.values():
        for _ in range(warm):
            call()
    found = {name: ([], []) for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            call()
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            found[name][0].append(time.perf_counter() - wall)
            found[name][1].append(time.process_time() - cpu)
    m = statistics.median
    return {name: Time(m(walls), m(cpus), ONE_CORE) for name, (walls, cpus) in found.items()}


def ready(f: Callable, *args) -> Callable[[], object]:
    """A case of jax: f(*args), waited for."""
    import jax

    return lambda: jax.block_until_ready(f(*args))


def matrix_peak(rounds: int, n: int = 2048) -> float:
    """FLOP/s of a float32 product of two n x n matrices: what fractions are fractions of."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((n, n))
    f = jax.jit(jax.lax.dot)
    return 2 * n**3 / in_turn({"dot": ready(f, x, x)}, rounds, warm=2)["dot"].s


def machine() -> str:
    from aejax.machine import cpu, provenance

    load = f", load {os.getloadavg()[0]:.0f}" if os.getloadavg()[0] > 1.5 else ""
    return f"{cpu.name_and_cores()}, {provenance.describe()['instructions']}{load}"


def versions(*names: str) -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("jax", "flax", *names):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            pass
    return ", ".join(found)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, numbers to the right."""
    right = [i > 0 for i in range(len(header))]
    lines = [header, ["---:" if r else "---" for r in right], *rows]
    return "\n".join("| " + " | ".join(str(v) for v in row) + " |" for row in lines)


def write(
    script: str, text: str, args: argparse.Namespace, *packages: str, method: str = ""
) -> None:
    """Prints the report and, unless it is a smoke run, keeps it as NAME.md beside the script.

    `method` says in a line how it was measured, if not in turns.
    """
    path = pathlib.Path(script)
    how = " --one-core" if args.one_core else ""
    clock = "CPU time of one core" if args.one_core else "wall time, all cores"
    turns = f"""medians of {args.rounds}
  rounds, in each of which every case ran in turn, twice: the second run counts"""
    doc = sys.modules["__main__"].__doc__ or path.stem
    head = f"""# {doc.splitlines()[0]}

- command: `python experiments/benchmarks/{path.name}{how}`; {clock}; {method or turns}
- machine: {machine()}; shared with other work where a load is named
- versions: {versions(*packages)}
- date: {datetime.date.today()}; took {time.time() - STARTED:.0f} s
"""
    whole = f"{head}\n{text.strip()}\n"
    print(whole)
    if not args.smoke:
        path.with_suffix(".md").write_text(whole)


class Training:
    """aejax's own training of a config, as its loop does it: `run(steps)` and waits.

    The pipeline, the step, the dispatch of K steps and the way to run it on the devices are those
    of `aejax train`; the log, the evaluation and the checkpoints are not here.
    """

    def __init__(self, config, data_dir: str | None = None, devices: Sequence = ()):
        from aejax.training.build import build
        from aejax.training.sharding import of_mode
        from aejax.training.step import make_dispatch

        self.parts = build(config, data_dir)
        self.k = config.train.steps_per_dispatch
        self.batch = config.data.batch
        self.sharding = of_mode(config.train.mode, config.train.fsdp, devices=devices)
        self.state, self.resident, self.key = self.parts.placed(self.sharding)
        example = self.parts.pipeline.dispatch(0, self.k)
        start = time.perf_counter()
        self.program = self.sharding.compile(
            make_dispatch(self.parts.step_on(self.sharding), self.k),
            self.state, example, self.resident, self.key,
        )  # fmt: skip
        self.compile_seconds = time.perf_counter() - start
        self.step, self.wait = 0, 0.0

    def run(self, steps: int) -> float:
        """Trains so many steps more (a multiple of K); returns the loss of the last dispatch."""
        import jax

        metrics = None
        batches = self.parts.pipeline.prefetch(self.step, self.k, self.step + steps)
        for batch in _timed(batches, self):
            self.state, metrics = self.program(
                self.state, self.sharding.place_batch(batch), self.resident, self.key
            )
        self.step += steps
        return float(jax.device_get(metrics["loss"]))


def _timed(batches, training: Training):
    """The batches, with the time waited for them added to training.wait."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        training.wait += time.perf_counter() - start
        if batch is None:
            return
        yield batch
