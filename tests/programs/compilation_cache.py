"""Prints the folder of compiled programs and how many it holds after one compilation."""

import os
import sys

from aejax.machine import cache

folder = cache.compilation_cache()
assert "jax" not in sys.modules
import jax  # noqa: E402

jax.jit(lambda x: x * 3.5 + 1)(2.0)
assert jax.config.jax_compilation_cache_dir == str(folder)
print(folder, len(os.listdir(folder)))
