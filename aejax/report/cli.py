"""aejax report DIR...: writes the report of finished studies, or of single runs."""

import argparse
import pathlib

from aejax import files
from aejax.cli import Verb
from aejax.report.render import print_table
from aejax.report.write import WRITTEN, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `aejax report`."""
    parser.add_argument("directories", nargs="+", metavar="DIR", help="folders of studies or runs")
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="folder of the report (default: that of the study)"
    )
    files.add_force(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the report and prints its table; the exit status."""
    if args.out:  # a study's folder holds its own report; any other may hold files of the user
        files.check_outputs([pathlib.Path(args.out, name) for name in WRITTEN], force=args.force)
    page = write_report(args.directories, args.out)
    print_table(args.directories)
    print(f"\n{page}")
    return 0


report = Verb(add_arguments, run)
