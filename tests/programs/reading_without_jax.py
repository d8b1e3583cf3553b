"""Ends with 1 if what reads data imports jax: each worker would start the accelerator."""

import sys

import aejax.data.pipeline
import aejax.data.source

assert aejax.data.pipeline and aejax.data.source
sys.exit("jax" in sys.modules)
