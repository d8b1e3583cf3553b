"""The best linear autoencoder in closed form: PCA of whole images, or KLT of patches.

For squared error the best linear f_E and f_D are PCA (Baldi and Hornik, 1989). PCA of the patches
of images is the Karhunen-Loeve transform, which the cosine transform of JPEG approximates. It is a
baseline (`report.pca`) and an initialisation (`nets.init`).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

EXACT = 4096  # side of the largest covariance or Gram matrix that is decomposed exactly


def principal_components(
    rows: Float[np.ndarray, "n d"], k: int, exact: int = EXACT
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d k"]]:
    """Mean and the k leading principal components of rows [n, d].

    It decomposes X'X or XX', whichever is smaller; if both sides are above `exact`, it computes a
    randomised SVD (Halko, Martinsson and Tropp, 2011). float64 rows are computed in float64, others
    in float32.

    Returns:
      (mean float64 [d], orthonormal columns [d, k] in order of decreasing variance). If n rows span
      fewer than k directions, random orthogonal ones are added, because columns of zeros would have
      no gradient in training; columns beyond d are zero.

    >>> mean, basis = principal_components(np.random.rand(72, 2048).astype("float32"), 16)
    >>> basis.shape
    (2048, 16)
    """
    n, d = rows.shape
    mean = rows.mean(0, dtype=np.float64)
    dtype = np.result_type(rows.dtype, np.float32)
    centred = (rows - mean).astype(dtype)
    count = min(k, d, max(1, n - 1))  # n centred points span at most n - 1 directions
    basis = np.zeros((d, k), dtype)
    if min(n, d) > exact:
        from sklearn.utils.extmath import randomized_svd

        basis[:, :count] = randomized_svd(centred, count, n_iter=6, random_state=0)[2].T
    else:
        basis[:, :count] = _eigenvectors(centred, count)
    if missing := min(k, d) - count:
        random = np.random.default_rng(0).standard_normal((d, missing))
        random -= basis[:, :count] @ (basis[:, :count].T @ random)
        basis[:, count : count + missing] = np.linalg.qr(random)[0]
    return mean, basis


def _eigenvectors(centred: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "d k"]:
    """The leading eigenvectors of X'X, from the smaller of X'X and XX'."""
    from scipy.linalg import eigh

    # Sums in float64: the variance of the last components is orders of magnitude below the first.
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
    basis, triangle = np.linalg.qr(vectors)  # orthogonal even for components of rounding noise
    return basis * np.where(np.diag(triangle) < 0, -1, 1)


def patches(images: Float[np.ndarray, "n h w c"], size: int) -> Float[np.ndarray, "m d"]:
    """All complete blocks of size x size pixels as rows [n * h/size * w/size, size * size * c], in
    the channel order of ops.unshuffle."""
    import jax.numpy as jnp

    from aejax.nets import ops

    h, w = images.shape[1] // size * size, images.shape[2] // size * size
    return np.asarray(ops.unshuffle(jnp.asarray(images[:, :h, :w]), size)).reshape(
        -1, size * size * images.shape[-1]
    )


def principal_axes(
    covariance: Float[np.ndarray, "d d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Eigenvalues and eigenvectors (columns) of a covariance matrix, largest variance first."""
    variances, axes = np.linalg.eigh(covariance)
    return variances[::-1], axes[:, ::-1]


class Components:
    """PCA of rows [n, d], as an autoencoder for any number of components up to k.

    Attributes:
      k: number of components, at most d and n - 1.
      mean: float32 [d].
      basis: [d, k], orthonormal columns, largest variance first.

    >>> rows = np.random.default_rng(0).random((20, 6))
    >>> pca = Components(rows, 6)
    >>> bool(np.allclose(pca.project(rows, 6), rows, atol=1e-6))
    True
    """

    def __init__(self, rows: Float[np.ndarray, "n d"], k: int):
        n, d = rows.shape
        self.k = min(k, d, max(1, n - 1))  # n centred points span at most n - 1 directions
        mean, self.basis = principal_components(rows, self.k)
        self.mean = mean.astype(np.float32)

    def project(self, rows: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, "n d"]:
        """The reconstruction [n, d] of each row from its first k components."""
        basis = self.basis[:, :k]
        return self.mean + (rows - self.mean) @ basis @ basis.T


def to_rows(images: np.ndarray, patch: int) -> Float[np.ndarray, "m d"]:
    """Images as rows in [0, 1].

    Args:
      images: [n, h, w, c], uint8 or float in [0, 1].
      patch: 0 = one row [h * w * c] per image; otherwise one row per block of patch x patch pixels,
        after padding by repeating the border.
    """
    images = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
    if not patch:
        return images.reshape(len(images), -1)
    _, h, w, c = images.shape
    images = np.pad(images, ((0, 0), (0, -h % patch), (0, -w % patch), (0, 0)), mode="edge")
    n, h, w, c = images.shape
    blocks = images.reshape(n, h // patch, patch, w // patch, patch, c)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(-1, patch * patch * c)


def from_rows(rows: Float[np.ndarray, "m d"], shape: Sequence[int], patch: int) -> np.ndarray:
    """The inverse of `to_rows`.

    Args:
      shape: (n, h, w, c) of the images.

    >>> x = np.arange(60).reshape(1, 5, 4, 3) / 60
    >>> bool((from_rows(to_rows(x, 2), x.shape, 2) == x).all())
    True
    """
    n, h, w, c = shape
    if not patch:
        return rows.reshape(shape)
    down, across = math.ceil(h / patch), math.ceil(w / patch)
    blocks = rows.reshape(n, down, across, patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, down * patch, across * patch, c)[:, :h, :w]
