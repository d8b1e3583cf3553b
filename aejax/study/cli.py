"""aejax study FILE[:arg]: trains the runs of a study that are not done, then writes its report."""

import argparse
import pathlib
from collections.abc import Sequence

from aejax import lease
from aejax.cli import Verb, add_data_dir, command_line
from aejax.errors import UserError
from aejax.study import store
from aejax.study.definition import distinguishing_keys, load
from aejax.study.pool import PoolMember
from aejax.study.run import run_study
from aejax.study.state import StudyState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `aejax study`."""
    parser.usage = "%(prog)s FILE[:arg] [--config.a.b=value ...] [options]"
    parser.add_argument("study", metavar="FILE[:arg]", help="study file")
    parser.add_argument(
        "--directory", metavar="DIR", help="folder of the study (default: runs/NAME)"
    )
    parser.add_argument(
        "--run", metavar="i/N", help="train only part i of N, i from 0: runs i, i + N, i + 2N, ..."
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="worker processes on this machine (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the runs, train nothing")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="DURATION",
        help='start no further run after "2 hours", or after "100000 steps" of all runs together',
    )
    parser.add_argument(
        "--lease-timeout",
        type=float,
        default=lease.TIMEOUT,
        metavar="SECONDS",
        help="take over a run whose worker has given no sign of life for so many seconds "
        "(default: %(default)g)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    PoolMember.add_arguments(parser)
    add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    """Trains and reports; returns 0 if all runs of this part (--run) are done, 1 if some failed."""
    study = load(args.study, args.overrides)
    directory = pathlib.Path(args.directory or pathlib.Path("runs") / study.name)
    part, (seconds, steps) = parse_part(args.run), parse_budgets(args.budget)
    member = PoolMember.from_arguments(args)
    if member:
        member.set_up_process()
    if args.dry_run:
        print_runs(StudyState(study, directory, part, args.lease_timeout))
        return 0
    if args.workers == 1 and study.train is None:
        from aejax.cluster import processes

        processes.initialise()
    results = run_study(
        study,
        directory,
        part=part,
        workers=args.workers,
        budget=seconds,
        step_budget=steps,
        lease_timeout=args.lease_timeout,
        command=command_line(),
        data_dir=args.data_dir,
        quiet=args.quiet,
        write_report=member is None,
        retry_before=member.retry_before if member else None,
    )
    i, n = part if part and study.search is None else (0, 1)
    done_ids = {result["id"] for result in results}
    manifest = store.read_manifest(directory)
    own_ids = {run.id for run in manifest.runs if run.index % n == i} if manifest else set()
    return int(any(store.is_failed(directory / run_id) for run_id in own_ids - done_ids))


def parse_part(text: str | None) -> tuple[int, int] | None:
    """The argument of --run as (i, N); None if it is empty.

    Raises:
      UserError: it is not of the form i/N.

    Example:
      >>> parse_part("0/4")
      (0, 4)
    """
    if not text:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdigit() and n.isdigit()):
        raise UserError(f'--run "{text}" is not i/N, such as 0/4')
    return int(i), int(n)


def parse_budgets(texts: Sequence[str]) -> tuple[float, float]:
    """The arguments of --budget as (seconds, steps), 0 = no limit.

    Raises:
      UserError: a unit other than seconds, minutes, hours and steps.

    Example:
      >>> parse_budgets(["2 hours", "100 steps"])
      (7200.0, 100.0)
    """
    from aejax.units import duration_of

    budgets = {"second": 0.0, "step": 0.0}
    for text in texts:
        number, unit = duration_of(text, "--budget")
        if unit not in budgets:
            raise UserError(f'--budget "{text}": give seconds, minutes, hours or steps')
        budgets[unit] = number
    return budgets["second"], budgets["step"]


def print_runs(state: StudyState) -> None:
    """Prints a table of the runs: index, id, state, labels and the overrides that differ.

    The state is "done", "failed", "begun" (it has a checkpoint), "to do", or the process that is
    training the run.
    """
    from rich.console import Console
    from rich.table import Table

    labels = list(dict.fromkeys(label for run in state.runs for label in run.labels))
    keys = distinguishing_keys(state.runs)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("i", "id", "state", *labels, *keys):
        table.add_column(column)
    for run in state.own_runs():
        workdir = state.workdir(run)
        if state.is_done(run):
            status = "done"
        elif holder := lease.holder(workdir, state.lease_timeout):
            status = holder
        elif store.is_failed(workdir):
            status = "failed"
        else:
            status = "begun" if (workdir / "checkpoints").exists() else "to do"
        values = [run.labels.get(label, "") for label in labels]
        values += [run.overrides.get(key, "") for key in keys]
        table.add_row(str(run.index), run.id, status, *map(str, values))
    Console().print(table)
    in_part = f", {len(state.own_runs())} of them in this part" if state.part else ""
    print(f"{state.study.name}: {len(state.runs)} runs{in_part}, in {state.directory}")


study = Verb(add_arguments, run)
