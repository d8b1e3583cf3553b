"""Bottlenecks h -> h_hat between the encoder f_E and the decoder f_D.

A bottleneck is a Linen module `__call__(h, cond, train) -> (h_hat, terms)`. h is a vector [b, k] or
a map [b, i, j, k], k = `latent`; h_hat has the same shape. `terms` are named penalties per example
[b], summed over the latent. The objective weights them (config.objective.terms); a term without a
weight is only reported. Random numbers come from the rng "bottleneck", if `train` or `sample` is
set.

    gaussian.py  Gaussian: VAE, beta-VAE, capacity, free bits, beta-TCVAE, WAE, InfoVAE and RAE,
    which
                 differ in the posterior and in the weights of the terms
    vq.py        VQ: a code book learned by moving averages, with restart of dead codes; ResidualVQ:
                 several code books, each for the residual of the previous ones
    grid.py      FSQ, LFQ: fixed grids (rounding to levels, signs)
    base.py      Identity, and helpers

Discrete bottlenecks implement `aejax.contracts.Codes`, for priors over codes: `codes(h)` ->
integers [b, ..., g], `lookup(codes)` -> h_hat, and `vocabulary`, the number of values of a code.
Gaussian has `posterior(h)` -> (mean, log variance).
"""

from aejax.nets.bottleneck.base import Identity
from aejax.nets.bottleneck.gaussian import Gaussian
from aejax.nets.bottleneck.grid import FSQ, LFQ
from aejax.nets.bottleneck.vq import VQ, ResidualVQ

__all__ = ["BOTTLENECKS", "FSQ", "LFQ", "VQ", "Gaussian", "Identity", "ResidualVQ"]

BOTTLENECKS = {
    "identity": Identity,
    "gaussian": Gaussian,
    "vq": VQ,
    "residual_vq": ResidualVQ,
    "fsq": FSQ,
    "lfq": LFQ,
}
