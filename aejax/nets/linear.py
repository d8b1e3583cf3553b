"""The best linear autoencoder in closed form: PCA of whole images, the KLT of their patches.

With squared error the best linear f_E and f_D are PCA (Baldi and Hornik, 1989); of all patches of a
picture they are the Karhunen-Loeve transform, which JPEG's cosine transform approximates. Used as a
baseline (`report.pca`), as a start of the training (`nets.init`), and wherever else variance is
decomposed.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

EXACT = 4096  # side of the largest matrix that is decomposed exactly


def principal_components(
    rows: Float[np.ndarray, "n d"], k: int, exact: int = EXACT
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d k"]]:
    """(mean, basis) of rows [n, d]: the k orthonormal directions of largest variance.

    Where n points span fewer than k directions, random ones orthogonal to them are added, because
    zeros would have no gradient; where k > d, columns of zeros.

    The cost is that of the smaller of n and d: eigenvectors of X'X or of XX'; above `exact` a
    randomised SVD (Halko, Martinsson and Tropp, 2011). Computed in float32, or in float64 if the
    rows are float64.

    >>> mean, basis = principal_components(np.random.rand(72, 2048).astype("float32"), 16)
    >>> basis.shape
    (2048, 16)
    """
    n, d = rows.shape
    mean = rows.mean(0, dtype=np.float64)
    dtype = np.result_type(rows.dtype, np.float32)
    centred = (rows - mean).astype(dtype)
    count = min(k, d, max(1, n - 1))  # n points span no more
    basis = np.zeros((d, k), dtype)
    if min(n, d) > exact:
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
    product = sum(((p.T @ p).astype(np.float64) for p in parts), np.zeros(()))
    side = len(product)
    _, vectors = eigh(product, subset_by_index=(side - count, side - 1))
    vectors = np.asarray(vectors)[:, ::-1]
    if d <= n:
        return vectors
    vectors = centred.T.astype(np.float64) @ vectors
    vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-12)
    basis, triangle = np.linalg.qr(vectors)  # orthogonal even where the variance is but noise
    return basis * np.where(np.diag(triangle) < 0, -1, 1)


def patches(images: Float[np.ndarray, "n h w c"], size: int) -> Float[np.ndarray, "m d"]:
    """All whole size x size blocks as rows, [n h/size w/size, size size c], in the channel order of
    ops.unshuffle."""
    import jax.numpy as jnp

    from aejax.nets import ops

    h, w = images.shape[1] // size * size, images.shape[2] // size * size
    return np.asarray(ops.unshuffle(jnp.asarray(images[:, :h, :w]), size)).reshape(
        -1, size * size * images.shape[-1]
    )


def principal_axes(
    covariance: Float[np.ndarray, "d d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """(variances, axes as columns) of a covariance matrix, largest variance first."""
    variances, axes = np.linalg.eigh(covariance)
    return variances[::-1], axes[:, ::-1]


class Components:
    """Mean and leading principal components of rows [n, d]: a linear autoencoder.

    Attributes:
      k: number of components, at most d and n - 1.
      mean: [d]. basis: [d, k], orthonormal columns, largest variance first.
    """

    def __init__(self, rows: Float[np.ndarray, "n d"], k: int):
        n, d = rows.shape
        self.k = min(k, d, max(1, n - 1))  # n points span no more
        mean, self.basis = principal_components(rows, self.k)
        self.mean = mean.astype(np.float32)

    def project(self, rows: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, "n d"]:
        """Each row's reconstruction from its first k components, [n, d]."""
        basis = self.basis[:, :k]
        return self.mean + (rows - self.mean) @ basis @ basis.T


def to_rows(images: np.ndarray, patch: int) -> Float[np.ndarray, "m d"]:
    """Images [n, h, w, c], uint8 or in [0, 1], as rows in [0, 1]: [n, h w c] if patch is 0, else
    all patch x patch blocks (the border is repeated to whole blocks)."""
    images = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
    if not patch:
        return images.reshape(len(images), -1)
    _, h, w, c = images.shape
    images = np.pad(images, ((0, 0), (0, -h % patch), (0, -w % patch), (0, 0)), mode="edge")
    n, h, w, c = images.shape
    blocks = images.reshape(n, h // patch, patch, w // patch, patch, c)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(-1, patch * patch * c)


def from_rows(rows: Float[np.ndarray, "m d"], shape: Sequence[int], patch: int) -> np.ndarray:
    """The inverse of `to_rows` for images of `shape` [n, h, w, c]."""
    n, h, w, c = shape
    if not patch:
        return rows.reshape(shape)
    high, wide = math.ceil(h / patch), math.ceil(w / patch)
    blocks = rows.reshape(n, high, wide, patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, high * patch, wide * patch, c)[:, :h, :w]
