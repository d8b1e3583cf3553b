"""Prefetching: batches made ahead by a thread, and what Grain's worker processes need.

Workers import this module and no JAX.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Generator, Iterator

import numpy as np

Arrays = dict[str, np.ndarray]  # such as {"image": uint8 [..., h, w, c], "label": int32 [...]}


def prefetched(items: Iterator[Arrays], depth: int = 4) -> Generator[Arrays]:
    """The same items, computed by a thread that is at most `depth` items ahead.

    An exception of `items` is raised here, after the items before it.
    """
    buffer: queue.Queue = queue.Queue(depth)
    stopped, end = threading.Event(), object()

    def put(item) -> bool:
        while not stopped.is_set():
            try:
                buffer.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as e:  # raised again by the consumer
            put((end, e))

    thread = threading.Thread(target=work, name="aejax-data", daemon=True)
    thread.start()
    try:
        while True:
            item, error = buffer.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def cpu_only() -> Generator[None]:
    """Hides accelerators from processes that are started within it: Grain's workers import jax,
    which must not open the device of the training process."""
    settings = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TPU_SKIP_MDS_QUERY": "1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start_worker(index: int, count: int) -> None:
    """Initialises a Grain worker: it ignores SIGINT and SIGTERM, because the training process saves
    first and then ends its workers, and it exits when the training process is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch():
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
