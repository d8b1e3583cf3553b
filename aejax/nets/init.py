"""Initialisation with the best linear autoencoder: PCA of whole images, or KLT of patches."""

import logging

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float

from aejax.nets.autoencoder import AutoEncoder
from aejax.nets.f_D import LinearDecoder, ResidualDecoder
from aejax.nets.f_E import LinearEncoder, ResidualEncoder
from aejax.nets.linear import patches, principal_components
from aejax.types import Variables


def at_linear_optimum(
    model: nn.Module, variables: Variables, images: Float[Array, "n h w c"]
) -> Variables:
    """Sets the linear parts of f_E and f_D to the leading principal components of some images.

    Models without linear parts are returned unchanged.

    Args:
      images: training images in [0, 1].

    Returns:
      the variables, with which y is the projection of x onto the components.
    """
    if not isinstance(model, AutoEncoder):
        return variables
    f_E = model.f_E.linear if isinstance(model.f_E, ResidualEncoder) else model.f_E
    f_D = model.f_D.linear if isinstance(model.f_D, ResidualDecoder) else model.f_D
    if not isinstance(f_E, LinearEncoder) or not isinstance(f_D, LinearDecoder):
        return variables
    pictures = np.asarray(images)
    if f_E.patch:
        rows = patches(pictures, f_E.patch)
    else:
        rows = pictures.reshape(len(pictures), -1)
    logger = logging.getLogger(__name__)
    logger.info("model.init = pca: components of %s rows of %s numbers", f"{len(rows):,}",
                f"{rows.shape[1]:,}")  # fmt: skip
    mean, basis = principal_components(rows, f_E.latent)
    initial = {
        "f_E": {"kernel": basis, "bias": -mean @ basis},
        "f_D": {"kernel": basis.T, "bias": mean},
    }
    params = dict(variables["params"])
    for slot, part in (("f_E", model.f_E), ("f_D", model.f_D)):
        new = jax.tree.map(lambda v: v.astype(np.float32), {"linear": initial[slot]})
        if isinstance(part, (ResidualEncoder, ResidualDecoder)):
            new = {"linear": new}
        params[slot] = {**params[slot], **new}
    return {**variables, "params": params}
