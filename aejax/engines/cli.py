"""aejax launch ENGINE STUDY: fills an engine's templates and runs the engine's own command."""

import argparse
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from aejax.cli import Verb
from aejax.engines import project
from aejax.engines.engine import ENGINES
from aejax.engines.plan import Jobs, Request, make_jobs, xpk_commands
from aejax.engines.settings import load_settings
from aejax.engines.templates import templates_folder
from aejax.errors import UserError
from aejax.registry import did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `aejax launch`."""
    engines = "; ".join(f"{name}: {engine.help}" for name, engine in ENGINES.items())
    parser.add_argument("engine", help=engines)
    parser.add_argument("study", help="FILE[:arg] with get_study()")
    parser.add_argument(
        "--directory",
        default="",
        metavar="DIR",
        help="folder of the study, as the jobs see it (default: runs/NAME here, /runs/NAME on "
        "remote machines)",
    )
    parser.add_argument(
        "--data-dir",
        default="",
        metavar="DIR",
        help="data folder (AEJAX_DATA), as the jobs see it (default: that of this machine)",
    )
    parser.add_argument(
        "--units",
        type=int,
        default=0,
        metavar="N",
        help="number of jobs that share the study (default: one per run; local, tpu_vm: 1)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a value of the engine's settings.toml",
    )
    parser.add_argument(
        "--templates", metavar="DIR", help="folder with templates to use instead of the package's"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the filled files (default: launch-NAME-ENGINE)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print files and commands, write and start nothing"
    )


def request_of(args: argparse.Namespace) -> Request:
    """The request that the parsed arguments make.

    Raises:
      UserError: there is no such engine.
    """
    if args.engine not in ENGINES:
        raise UserError(f'no engine "{args.engine}"{did_you_mean(args.engine, ENGINES)}')
    return Request(
        args.engine,
        args.study,
        list(args.overrides),
        args.directory,
        args.data_dir,
        args.units,
        args.set,
        args.templates,
    )


def run(args: argparse.Namespace) -> int:
    """Fills the templates and submits them; returns the exit status of the engine's command."""
    request = request_of(args)
    engine, jobs = ENGINES[args.engine], make_jobs(request)
    name = pathlib.PurePath(args.study.partition(":")[0]).stem
    out = pathlib.Path(args.out or f"launch-{name}-{args.engine}")
    if args.dry_run:
        _print_jobs(jobs, out, engine.packs)
    if args.engine == "gke":
        settings = load_settings(templates_folder("gke", args.templates), args.set)
        print("# the same by xpk:", *xpk_commands(jobs.files, settings), sep="\n")
    if args.dry_run:
        return 0
    for file, text in jobs.files.items():
        try:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(text)
        except OSError as e:
            raise UserError(f"cannot write {out / file}: {e.strerror or e}") from e
    if engine.packs:
        project.pack(pathlib.Path.cwd(), out / "project.tar.gz")
    missing = [name for name in engine.needs if shutil.which(name) is None]
    if missing:
        commands = " && ".join(map(shlex.join, jobs.commands[:3]))
        commands += " && ..." if jobs.commands[3:] else ""
        raise UserError(
            f'"{missing[0]}" is not installed on this machine; the files are in {out}, submit them '
            f"on a machine that has it: cd {out} && {commands}"
        )
    return _submit(out, jobs.commands)


def _print_jobs(jobs: Jobs, out: pathlib.Path, packs: bool) -> None:
    for file, text in jobs.files.items():
        print(f"# ---- {out / file}\n{text}")
    if packs:
        print(f"# ---- {out / 'project.tar.gz'}: {project.summary(pathlib.Path.cwd())}\n")
    print(f"# ---- would run in {out}")
    for command in jobs.commands:
        print(shlex.join(command))


def _submit(out: pathlib.Path, commands: Sequence[Sequence[str]]) -> int:
    """Runs the commands at the same time; returns their largest exit status."""
    running = []
    try:
        for command in commands:
            running.append(subprocess.Popen(command, cwd=out))
        return max(process.wait() for process in running)
    except KeyboardInterrupt:  # the commands received it too: wait until they have saved
        return max(process.wait() for process in running)


launch = Verb(add_arguments, run)
