"""Batches made ahead, by a thread or by Grain's worker processes, which import this and no JAX."""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Generator, Iterator

import numpy as np

Arrays = dict[str, np.ndarray]  # such as {"image": uint8 [..., h, w, c], "label": int32 [...]}


def made_ahead(items: Iterator[Arrays], depth: int = 4) -> Generator[Arrays]:
    """The same items, made by a thread that is at most `depth` ahead."""
    made: queue.Queue = queue.Queue(depth)
    ended, done = threading.Event(), object()

    def put(item) -> bool:
        while not ended.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((done, None))
        except BaseException as e:  # handed to the reader
            put((done, e))

    thread = threading.Thread(target=work, name="aejax-data", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def without_accelerator() -> Generator[None]:
    """The environment in which Grain's workers start: should anything in them import jax (Grain
    does), it can find a CPU only."""
    hidden = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TPU_SKIP_MDS_QUERY": "1"}
    before = {name: os.environ.get(name) for name in hidden}
    os.environ.update(hidden)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def begin_worker(index: int, count: int) -> None:
    """What a worker does first: leaves Ctrl-C and SIGTERM to the run, which saves and then ends
    it, and ends by itself when the run was killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch():
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
