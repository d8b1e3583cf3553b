"""The lines that a study prints on stderr before and after each run."""

import sys
from collections.abc import Sequence

from aejax.files import JsonObject
from aejax.study.definition import Run, Study, describe, distinguishing_keys


class Progress:
    """Prints the number and the description of a run, then its metrics and the estimated time that
    is left; on a terminal also a bar of the finished runs, above the bar of the training.

    Attributes:
      seconds: how long each run printed so far has taken.
    """

    def __init__(self, study: Study, runs: Sequence[Run], expected: int, quiet: bool):
        self.columns, self.quiet = [study.y, *study.columns], quiet
        self.seconds: list[float] = []
        self.set_runs(runs, expected)

    def set_runs(self, runs: Sequence[Run], expected: int) -> None:
        """Sets the runs known by now, and how many there will be in the end."""
        self.total, self.keys = expected, distinguishing_keys(runs)

    def say(self, text: str) -> None:
        """Prints a line unless the study is quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def start(self, run: Run, done: int) -> None:
        """Prints that `run` begins, after `done` others."""
        width = len(str(self.total))
        text = f"[{done + 1:{width}}/{self.total}] {describe(run, self.keys)}"
        if self.quiet or not sys.stderr.isatty():
            self.say(text)
            return
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(self.total, done, width=24), Text(text))
        Console(stderr=True).print(line)

    def end(self, result: JsonObject, seconds: float, remaining: int) -> None:
        """Prints the metrics of a run that took `seconds`; `remaining` are still to be trained."""
        self.seconds.append(seconds)
        metrics = result["metrics"]
        names = [c for c in dict.fromkeys(self.columns) if c in metrics] or list(metrics)[:4]
        words = [f"{name.removeprefix('test/')} {metrics[name]:.4g}" for name in names]
        estimate = remaining * sum(self.seconds) / len(self.seconds)
        words.append(f"{seconds:.1f} s" + (f", about {_duration(estimate)} left" * bool(remaining)))
        self.say(" " * (2 * len(str(self.total)) + 4) + "  ".join(words))


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
