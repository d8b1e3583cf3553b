"""Takes the lease of a folder and holds it until something ends this process."""

import pathlib
import signal
import sys

from aejax import lease

assert lease.take(pathlib.Path(sys.argv[1]), timeout=1.2)
signal.pause()
