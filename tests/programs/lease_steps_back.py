"""Holds a lease while another one of the same folder appears, and goes before the second look."""

import pathlib
import sys
import time

from aejax import lease

folder = pathlib.Path(sys.argv[1])
other, sleep = folder / "lease.1", time.sleep


def meanwhile(seconds):
    """The holder has seen the other lease and waits for its second look."""
    other.unlink()
    sleep(seconds)


held = lease.take(folder, timeout=1.2)
time.sleep = meanwhile
other.write_text("{}")
while other.exists():
    sleep(0.01)
beats = set()
while len(beats) < 4:  # it is touched as before
    beats.add(held.path.stat().st_mtime_ns)
    sleep(0.01)
held.release()
