"""Starting at the linear optimum: PCA of whole images, or the KLT of their patches.

With squared error the best linear autoencoder is PCA (Baldi and Hornik, 1989); of all patches of
a picture it is the Karhunen-Loeve transform, which JPEG's cosine transform approximates.
"""

import flax.linen as nn
import jax
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float

from aejax.nets.autoencoder import AutoEncoder
from aejax.nets.f_D import LinearDecoder, ResidualDecoder
from aejax.nets.f_E import LinearEncoder, ResidualEncoder
from aejax.types import Variables


def principal_components(
    rows: Float[np.ndarray, "n d"], k: int
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d k"]]:
    """(mean, basis): the k orthonormal directions of largest variance, zeros where k > d."""
    mean = rows.mean(0, dtype=np.float64)
    centred = (rows - mean).astype(np.float32)
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    basis = np.zeros((rows.shape[1], k))
    count = min(k, rows.shape[1])
    basis[:, :count] = vectors[:, ::-1][:, :count]
    return mean, basis


def patches(images: Float[np.ndarray, "n h w c"], size: int) -> Float[np.ndarray, "m d"]:
    """All whole size x size blocks as rows, in the channel order of ops.unshuffle."""
    h, w = images.shape[1] // size * size, images.shape[2] // size * size
    from aejax.nets import ops

    return np.asarray(ops.unshuffle(images[:, :h, :w], size)).reshape(
        -1, size * size * images.shape[-1]
    )


def at_linear_optimum(
    model: nn.Module, variables: Variables, images: Float[Array, "n h w c"]
) -> Variables:
    """Fills the `linear` of f_E and f_D so that y is the projection of x on h's best subspace."""
    if not isinstance(model, AutoEncoder):
        return variables
    f_E = model.f_E.linear if isinstance(model.f_E, ResidualEncoder) else model.f_E
    f_D = model.f_D.linear if isinstance(model.f_D, ResidualDecoder) else model.f_D
    if not isinstance(f_E, LinearEncoder) or not isinstance(f_D, LinearDecoder):
        return variables
    images = np.asarray(images)
    rows = patches(images, f_E.patch) if f_E.patch else rearrange(images, "n h w c -> n (h w c)")
    mean, basis = principal_components(rows, f_E.latent)
    found = {
        "f_E": {"kernel": basis, "bias": -mean @ basis},
        "f_D": {"kernel": basis.T, "bias": mean},
    }
    params = dict(variables["params"])
    for slot, part in (("f_E", model.f_E), ("f_D", model.f_D)):
        new = jax.tree.map(lambda v: v.astype(np.float32), {"linear": found[slot]})
        if isinstance(part, (ResidualEncoder, ResidualDecoder)):
            new = {"linear": new}
        params[slot] = {**params[slot], **new}
    return {**variables, "params": params}
