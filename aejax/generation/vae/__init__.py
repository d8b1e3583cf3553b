"""Variational autoencoders that are more than an `AutoEncoder` with a bottleneck.

vamp.py    VampAutoEncoder: the prior is a mixture of the model's own posteriors
ladder.py  HierarchicalVAE: latents at several resolutions, each conditioned on the coarser ones
"""

from aejax.generation.vae.ladder import HierarchicalVAE
from aejax.generation.vae.vamp import VampAutoEncoder

__all__ = ["HierarchicalVAE", "VampAutoEncoder"]
