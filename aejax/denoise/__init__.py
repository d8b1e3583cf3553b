"""Denoising: x_tilde = x + noise, y = f_D(f_E(x_tilde)).

The module is its own main function: `aejax.denoise(image)` is `aejax.denoise.api.denoise(image)`.
Nothing heavy is imported until it is called.
"""

import sys
import types


class _Denoise(types.ModuleType):
    """A module that can be called, so that one name serves the function and the package."""

    def __call__(self, image, sigma=None, **options):
        """See `aejax.denoise.api.denoise`."""
        from aejax.denoise.api import denoise

        return denoise(image, sigma, **options)


sys.modules[__name__].__class__ = _Denoise
