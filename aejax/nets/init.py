"""Starting at the linear optimum: PCA of whole images, or the KLT of their patches.

With squared error the best linear autoencoder is PCA (Baldi and Hornik, 1989); of all patches of
a picture it is the Karhunen-Loeve transform, which JPEG's cosine transform approximates.
"""

import logging

import flax.linen as nn
import jax
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float

from aejax.nets.autoencoder import AutoEncoder
from aejax.nets.f_D import LinearDecoder, ResidualDecoder
from aejax.nets.f_E import LinearEncoder, ResidualEncoder
from aejax.types import Variables

EXACT = 4096  # side of the largest matrix that is decomposed exactly


def principal_components(
    rows: Float[np.ndarray, "n d"], k: int
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d k"]]:
    """(mean, basis): the k orthonormal directions of largest variance, zeros where k > d.

    Where n points span fewer than k directions, the others are drawn at random beside them: with
    zeros they would have no gradient.

    Costs the smaller of n and d: the eigenvectors of X'X or of XX', whichever is smaller; above
    EXACT a randomised SVD (Halko, Martinsson and Tropp, 2011).

    >>> mean, basis = principal_components(np.random.rand(72, 27648).astype("float32"), 16)
    >>> basis.shape
    (27648, 16)
    """
    n, d = rows.shape
    mean = rows.mean(0, dtype=np.float64)
    centred = (rows - mean).astype(np.float32)
    count = min(k, d, max(1, n - 1))  # n points span no more
    basis = np.zeros((d, k), np.float32)
    if min(n, d) > EXACT:
        from sklearn.utils.extmath import randomized_svd

        basis[:, :count] = randomized_svd(centred, count, n_iter=6, random_state=0)[2].T
    else:
        basis[:, :count] = _eigenvectors(centred, count)
    if missing := min(k, d) - count:
        free = np.random.default_rng(0).standard_normal((d, missing))
        free -= basis[:, :count] @ (basis[:, :count].T @ free)
        basis[:, count : count + missing] = np.linalg.qr(free)[0]
    return mean, basis


def _eigenvectors(centred: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "d k"]:
    """The leading eigenvectors of X'X, by the smaller of X'X and XX'."""
    from scipy.linalg import eigh

    # Parts are summed in float64, because the last components kept are many orders of magnitude
    # below the first.
    n, d = centred.shape
    factor = centred if d <= n else centred.T
    parts = np.array_split(factor, -(-len(factor) // 4096))
    product = sum((p.T @ p).astype(np.float64) for p in parts)
    side = len(product)
    _, vectors = eigh(product, subset_by_index=(side - count, side - 1))
    vectors = vectors[:, ::-1]
    if d <= n:
        return vectors
    vectors = centred.T.astype(np.float64) @ vectors
    vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-12)
    basis, triangle = np.linalg.qr(vectors)  # orthogonal even where the variance is but noise
    return basis * np.where(np.diag(triangle) < 0, -1, 1)


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
    logger = logging.getLogger(__name__)
    logger.info("model.init = pca: components of %s rows of %s numbers", f"{len(rows):,}",
                f"{rows.shape[1]:,}")  # fmt: skip
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
