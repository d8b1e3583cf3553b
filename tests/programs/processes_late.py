"""The experiment of processes.py; the data of process 1 take 50 ms per step."""

import functools
import os
import time

from aejax.data.pipeline import Pipeline
from aejax.training import loop
from tests.programs.processes import get_config  # noqa: F401

loop.Watch = functools.partial(loop.Watch, every=0.5)
dispatch = Pipeline.dispatch


def late(self, step, k):
    time.sleep(0.05 * k)
    return dispatch(self, step, k)


if os.environ["AEJAX_PROCESS_ID"] == "1":
    Pipeline.dispatch = late
