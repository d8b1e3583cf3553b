"""Priors p(z), from which new latents are sampled.

Each is a Linen module over one example's latent z of `shape`. A continuous z is standardised per
channel; a discrete one holds integers below `vocabulary`.

    prior(z [b, *shape], label [b] | None, train) -> loss [b]
    prior.draw(variables, key, n, label, ...)     -> z [n, *shape]
    prior.fit(z, label, seed)                     -> variables    (those fitted in closed form)

    base.py      Prior: the base class, with the labels
    fitted.py    Normal, Mixture: no gradient steps; Mixture is fitted by scikit-learn
    coupling.py  CouplingFlow: exact density, trained
    flow.py      FlowMatching: trained, sampled by an ODE solver
    codes.py     Autoregressive, MaskGIT: transformers over codes

All but those of fitted.py are trained by the package's training loop, see `latent.LatentModel`.
"""

from aejax.generation.priors.base import Prior
from aejax.generation.priors.codes import Autoregressive, MaskGIT
from aejax.generation.priors.coupling import CouplingFlow
from aejax.generation.priors.fitted import Mixture, Normal
from aejax.generation.priors.flow import FlowMatching

__all__ = [
    "PRIORS",
    "Autoregressive",
    "CouplingFlow",
    "FlowMatching",
    "MaskGIT",
    "Mixture",
    "Normal",
    "Prior",
]

PRIORS = {
    "normal": Normal,
    "mixture": Mixture,
    "coupling": CouplingFlow,
    "flow_matching": FlowMatching,
    "autoregressive": Autoregressive,
    "maskgit": MaskGIT,
}
