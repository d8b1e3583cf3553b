"""Helpers of the benchmarks: a process with the allocator settings, timing, and writing tables.

Every table has its machine, versions, date, command and duration. On a shared machine wall times
vary
by more than the differences of interest: with --one-core the process is bound to one core and CPU
time is measured, which other work hardly affects.
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
    """Median times over the rounds, in seconds."""

    wall: float
    cpu: float
    one_core: bool

    @property
    def s(self) -> float:
        """The time to show: CPU time with --one-core, else wall time."""
        return self.cpu if self.one_core else self.wall

    @property
    def ms(self) -> str:
        """`s` in milliseconds, with three digits."""
        v = 1e3 * self.s
        return f"{v:.2f}" if v < 10 else f"{v:.0f}" if v >= 100 else f"{v:.1f}"


def begin(doc: str, *arguments: tuple[str, dict]) -> argparse.Namespace:
    """Restarts the process with the allocator settings, and parses its arguments.

    Call it before jax or torch is imported.

    Args:
      doc: docstring of the benchmark; its first line is the description.
      arguments: further ones, as (name, keyword arguments of add_argument).
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="run for seconds only, write no table")
    parser.add_argument("--one-core", action="store_true", help="use one core and measure CPU time")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--data-dir", default=os.environ.get("AEJAX_DATA", "data"))
    for name, kwargs in arguments:
        parser.add_argument(name, **kwargs)
    args = parser.parse_args()
    root = str(pathlib.Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.insert(0, root)
    from aejax.machine import allocator, cache

    settings = allocator.environment()
    if settings:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **settings})
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
    """Peak resident memory of this process in MiB (ru_maxrss includes that of the parent)."""
    status = dict(line.split(":\t") for line in pathlib.Path("/proc/self/status").open())
    return int(status["VmHWM"].split()[0]) / 1024


def in_turn(
    cases: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1
) -> dict[str, Time]:
    """Median time of each case. In each round every case runs twice, and the second run counts: the
    first one warms up threads and caches after the previous case.

    Args:
      cases: functions that return when their work is complete.
      warm: number of calls before the first round.
    """
    for call in cases.values():
        for _ in range(warm):
            call()
    times = {name: ([], []) for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            call()
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            times[name][0].append(time.perf_counter() - wall)
            times[name][1].append(time.process_time() - cpu)
    median = statistics.median
    return {name: Time(median(w), median(c), ONE_CORE) for name, (w, c) in times.items()}


def ready(f: Callable, *args) -> Callable[[], object]:
    """A case for `in_turn`: calls a jax function and waits for its result."""
    import jax

    return lambda: jax.block_until_ready(f(*args))


def matrix_peak(rounds: int, n: int = 2048) -> float:
    """FLOP/s of a float32 product of two n x n matrices, as the peak."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((n, n))
    f = jax.jit(jax.lax.dot)
    return 2 * n**3 / in_turn({"dot": ready(f, x, x)}, rounds, warm=2)["dot"].s


def machine() -> str:
    """CPU, instruction sets and, above 1.5, the load average."""
    from aejax.machine import cpu, provenance

    load = f", load {os.getloadavg()[0]:.0f}" if os.getloadavg()[0] > 1.5 else ""
    return f"{cpu.name_and_cores()}, {provenance.describe()['instructions']}{load}"


def versions(*names: str) -> str:
    """Versions of Python, jax, flax and further packages that are installed."""
    installed = [f"Python {platform.python_version()}"]
    for name in ("jax", "flax", *names):
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            pass
    return ", ".join(installed)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(v) for v in row) + " |" for row in lines)


def write(
    script: str, text: str, args: argparse.Namespace, *packages: str, method: str = ""
) -> None:
    """Prints a report and, unless args.smoke, writes it to NAME.md beside the script.

    Args:
      script: its __file__.
      packages: whose versions are listed.
      method: of the measurement, if it is not `in_turn`.
    """
    path = pathlib.Path(script)
    option = " --one-core" if args.one_core else ""
    clock = "CPU time of one core" if args.one_core else "wall time, all cores"
    turns = f"""medians of {args.rounds}
  rounds, in each of which every case ran in turn, twice: the second run counts"""
    doc = sys.modules["__main__"].__doc__ or path.stem
    head = f"""# {doc.splitlines()[0]}

- command: `python experiments/benchmarks/{path.name}{option}`; {clock}; {method or turns}
- machine: {machine()}; shared with other work where a load is named
- versions: {versions(*packages)}
- date: {datetime.date.today()}; took {time.time() - STARTED:.0f} s
"""
    report = f"{head}\n{text.strip()}\n"
    print(report)
    if not args.smoke:
        path.with_suffix(".md").write_text(report)


class Training:
    """The training of a config without log, evaluation and checkpoints.

    Pipeline, step, dispatch of K steps and sharding are those of `aejax train`.

    Attributes:
      compile_seconds: of the training step.
      wait: seconds that `run` has waited for batches.
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
        """Trains `steps` further steps, a multiple of K; returns the loss of the last dispatch."""
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
    """The batches; adds the waiting time for each to training.wait."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        training.wait += time.perf_counter() - start
        if batch is None:
            return
        yield batch
