"""One of two processes that meet; process 1 works slowly, and comes late to a barrier."""

import pathlib
import sys
import threading
import time

from aejax.cluster import processes
from aejax.cluster.slow import Watch
from aejax.errors import SavedAndStopped

folder = pathlib.Path(sys.argv[1])


def wait_until_exists(file):
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, f"waited too long for {file}"
        time.sleep(0.05)


def warn(line):
    print("watch:", line, flush=True)
    (folder / "warned").touch()


try:
    processes.initialise()
    import jax

    assert (processes.index(), processes.count()) == (jax.process_index(), jax.process_count())
    assert jax.device_count() == 2, jax.devices()
    processes.barrier("start", 30)
    processes.barrier("start", 30)
    print("together", processes.named(1), flush=True)
    with Watch(every=0.2, warn=warn) as watch:
        waiting = threading.Thread(target=wait_until_exists, args=[folder / "warned"])
        waiting.start()
        step = 0
        while waiting.is_alive():
            watch.note(step, (0.01, 0.5)[processes.index()])
            step += 1
            waiting.join(0.1)
        processes.barrier("watched", 30)
    if processes.index() == 1:
        wait_until_exists(folder / "named")
    processes.barrier("late", 2.0)
except SavedAndStopped as e:
    print("named:", e, flush=True)
    (folder / "named").touch()
    processes.barrier("end", 20)
    sys.exit(75)
processes.barrier("end", 20)
