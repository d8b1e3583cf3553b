"""What `aejax.train` does, in steps of its own: a test may stop it at a chosen dispatch, or break a
part of it."""

import contextlib
import pathlib
import signal

import pytest

from aejax.config import current
from aejax.errors import SavedAndStopped
from aejax.training.log import Stopwatch
from aejax.training.loop import Loop
from aejax.training.prepared import PreparedRun, prepare
from aejax.training.workdir import changed_keys, leased


@contextlib.contextmanager
def prepared(config, workdir, kind=PreparedRun, **data):
    """The run of `config` in its folder, ready for a Loop; an instance of `kind`."""
    config, workdir = current(config), pathlib.Path(workdir)
    changed = changed_keys(workdir, config)
    with leased(workdir):
        made = prepare(config, workdir, Stopwatch(), changed, **data)
        run = kind(made.parts, made.sharding, made.step, made.evaluator, made.spec, made.state,
                   made.stopping, made.watch, made.workdir)  # fmt: skip
        run.compiled = made.compiled
        with contextlib.closing(run):
            run.claim({}, "", changed)
            yield run


class Interrupted(Loop):
    """This process gets SIGTERM while dispatch number `last` is under way."""

    def __init__(self, run, last):
        super().__init__(run, quiet=True)
        self.last = last

    def _send(self, batch, count):
        metrics = super()._send(batch, count)
        if self.dispatches == self.last:
            signal.raise_signal(signal.SIGTERM)
        return metrics


def train_until(config, workdir, dispatch, **data):
    """Trains until a signal comes during that dispatch."""
    with prepared(config, workdir, **data) as run:
        with pytest.raises(SavedAndStopped, match="SIGTERM: saved step"):
            Interrupted(run, dispatch).run()
