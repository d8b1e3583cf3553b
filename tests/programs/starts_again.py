"""A command line that starts itself again where that makes it faster: each start appends its pid to
the file argv[1]; prints AEJAX_REEXEC, whether malloc is tuned, and its arguments."""

import os
import sys

from aejax.machine import allocator

with open(sys.argv[1], "a") as f:
    f.write(f"{os.getpid()} ")
allocator.reexec_if_useful()
assert "jax" not in sys.modules
print(os.environ.get("AEJAX_REEXEC"), allocator.is_tuned(), *sys.argv[1:])
