"""Importing the package is light, and no module hides a function of the same name."""

import sys

import aejax
import aejax.denoising.cli
from aejax import codec

heavy = {"jax", "numpy", "skimage", "matplotlib", "PIL", "scipy"} & set(sys.modules)
assert not heavy, heavy
from aejax.codec import decode, encode  # noqa: E402, F401

assert aejax.denoise.__name__ == "denoise" and aejax.train.__name__ == "train"
import aejax.denoising.api  # noqa: E402
import aejax.training.run  # noqa: E402

assert aejax.denoise.__name__ == "denoise" and aejax.train.__name__ == "train"
assert codec.encode is encode
