"""Variational autoencoders whose prior needs more than a bottleneck.

vamp.py    VampAutoEncoder: a prior that is a mixture of the model's own posteriors
ladder.py  HierarchicalVAE: latents at several resolutions, each given those above it
"""

from aejax.generation.vae.ladder import HierarchicalVAE
from aejax.generation.vae.vamp import VampAutoEncoder

__all__ = ["HierarchicalVAE", "VampAutoEncoder"]
