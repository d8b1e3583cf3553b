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
    from aejax import tune

    wanted = tune.environment()
    if wanted:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
    if args.one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if args.smoke:
        args.rounds = 1
    global ONE_CORE
    ONE_CORE = args.one_core
    os.environ.setdefault("KERAS_BACKEND", "torch")
    tune.compilation_cache()
    return args


ONE_CORE = False


def in_turn(
    cases: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1
) -> dict[str, Time]:
    """Medians over `rounds`, in each of which every case, which waits for itself, runs once."""
    for call in cases.values():
        for _ in range(warm):
            call()
    found = {name: ([], []) for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
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
    from aejax import tune

    load = f", load {os.getloadavg()[0]:.0f}" if os.getloadavg()[0] > 1.5 else ""
    return f"{tune.cpu_model()}, {tune.describe()['instructions']}{load}"


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


def write(script: str, text: str, args: argparse.Namespace, *packages: str) -> None:
    """Prints the report and, unless it is a smoke run, keeps it as NAME.md beside the script."""
    path = pathlib.Path(script)
    how = " --one-core" if args.one_core else ""
    clock = "CPU time of one core" if args.one_core else "wall time, all cores"
    doc = sys.modules["__main__"].__doc__ or path.stem
    head = f"""# {doc.splitlines()[0]}

- command: `python experiments/benchmarks/{path.name}{how}`; {clock}; medians of {args.rounds}
  rounds, in each of which every case ran in turn
- machine: {machine()}; shared with other work where a load is named
- versions: {versions(*packages)}
- date: {datetime.date.today()}; took {time.time() - STARTED:.0f} s
"""
    whole = f"{head}\n{text.strip()}\n"
    print(whole)
    if not args.smoke:
        path.with_suffix(".md").write_text(whole)
