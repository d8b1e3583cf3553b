"""Reads with a worker that is told to stop by signals, and is killed itself."""

import multiprocessing
import os
import signal

from aejax.data.pipeline import Pipeline
from aejax.data.source import open_source

if __name__ == "__main__":
    pipeline = Pipeline(open_source("bundled:digits"), batch=4, cache="stream", workers=1)
    batches = pipeline.prefetch(0, 1, 10**6)
    next(batches)
    pids = [p.pid for p in multiprocessing.active_children()]
    for pid in pids:  # as a terminal's Ctrl-C and a scheduler's SIGTERM do
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    for _ in range(20):
        next(batches)
    print(*pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
