"""The experiment of processes.py; a process counts as lost after 10 s without a sign."""

import functools

from aejax.training import loop
from tests.programs.processes import get_config  # noqa: F401

loop.Watch = functools.partial(loop.Watch, every=0.5, lost=10.0)
