"""Bottlenecks h -> h_hat: what passes from the encoder f_E to the decoder f_D.

Every bottleneck is a Linen module `__call__(h, cond, train) -> (h_hat, terms)`. h is a vector
[b, k] or a map [b, i, j, k], k = `latent`; h_hat has the same shape. `terms` holds named values
per example [b], summed over the latent. They are penalties for the objective to weigh: a
bottleneck adds none of them to a loss, and a term without a weight is only reported. Random numbers
come from the rng "bottleneck"; they are drawn only if train, or if `sample` is set.

    gaussian.py  Gaussian: VAE, beta-VAE, capacity, free bits, beta-TCVAE, WAE, InfoVAE, RAE. One
                 module; they differ in its posterior and in the weights of its terms
    vq.py        VQ: a code book learned by moving averages, with dead codes restarted; ResidualVQ:
                 several code books, each for the residual of those before
    grid.py      FSQ, LFQ: fixed grids (rounding to levels, signs)
    base.py      Identity, and what the others share

Those that pass codes fulfil `aejax.contracts.Codes`, which is all that a prior over codes needs:
`codes(h)` -> integers [b, ..., g], `lookup(codes)` -> h_hat, `vocabulary` values per code. The
continuous one has `posterior(h)` -> (mean, log variance).
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
