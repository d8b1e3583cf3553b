"""Takes the lease of a folder and is killed."""

import os
import pathlib
import signal
import sys

from aejax import lease

assert lease.take(pathlib.Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
