"""The default of `Study.report`, called when all runs of a study are done."""

import pathlib
import sys
import textwrap

from aejax.report import baselines
from aejax.report.render import print_table
from aejax.report.write import write_report
from aejax.study.definition import Results, Study
from aejax.study.store import read_json


def finish_study(study: Study, results: Results, directory: pathlib.Path, quiet: bool) -> None:
    """Measures the baselines, writes the report into `directory` and prints the table.

    Several processes may do this at once: each file is replaced atomically.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    baselines.add(study, results, directory, say)
    page = write_report([directory], directory)
    if quiet:
        return
    print_table([directory])
    for section in read_json(directory / "sections.json") or []:
        print(f"\n{section['title']}\n" + textwrap.fill(section["text"], 88))
    print(f"\n{page}")
