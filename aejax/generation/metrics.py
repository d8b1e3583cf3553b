"""Metrics of generative models: distances between samples and real images, on features [n, d].

They use NumPy in float64 on the host, since they run once per evaluation and must be accurate. A
Frechet distance can be judged only with n, the split, the extractor and the distance of real data:
`score.score` reports them together.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from aejax.errors import UserError

Features = Float[np.ndarray, "n d"]


# Moments ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean [d] and covariance [d, d] of n feature vectors."""

    mean: np.ndarray
    cov: np.ndarray
    n: int


def moments(features: Features) -> Moments:
    """Mean and covariance in float64; the covariance is the unbiased one, as in published FIDs.

    Raises:
      UserError: fewer than two examples, or values that are not finite.
    """
    f = np.asarray(features, np.float64)
    if f.ndim != 2 or len(f) < 2:
        raise UserError(f"a Frechet distance needs at least 2 examples; got shape {f.shape}")
    if not np.isfinite(f).all():
        raise UserError("some features are NaN or infinite; look at the samples first")
    return Moments(f.mean(0), np.atleast_2d(np.cov(f, rowvar=False)), len(f))


def frechet(a: Moments | Features, b: Moments | Features) -> float:
    """Frechet distance of two normal distributions, |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a
    C_b)^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500).

    The trace of the root is computed from the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is
    symmetric: no complex numbers, and no offset for singular covariances. The estimate is biased
    upwards by about d^2 / n: compare values of equal n only.

    >>> features = np.random.default_rng(0).normal(size=(100, 4))
    >>> round(aejax.generation.metrics.frechet(features, features + 1.0), 6)
    4.0
    """
    a = a if isinstance(a, Moments) else moments(a)
    b = b if isinstance(b, Moments) else moments(b)
    value, vector = np.linalg.eigh(a.cov)
    root = (vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T
    product = np.linalg.eigvalsh(root @ b.cov @ root)
    cross = np.sqrt(np.maximum(product, 0.0)).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.cov) + np.trace(b.cov) - 2.0 * cross
    return float(max(distance, 0.0))


def kid(
    real: Features, fake: Features, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel Inception distance: (mean, standard deviation) over random subsets of the unbiased
    squared MMD with the kernel (x.y / d + 1)^3 (Binkowski et al. 2018, arXiv 1801.01401).

    Args:
      subsets: number of random subsets.
      size: examples per subset, at most those available.

    Raises:
      UserError: fewer than two examples on a side.
    """
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    rng, d = np.random.default_rng(seed), real.shape[1]
    size = min(size, len(real), len(fake))
    if size < 2:
        raise UserError("KID needs at least 2 examples on both sides")
    values = []
    for _ in range(subsets):
        x = real[rng.choice(len(real), size, replace=False)]
        y = fake[rng.choice(len(fake), size, replace=False)]
        xx, yy, xy = (_cube(u @ v.T / d + 1.0) for u, v in ((x, x), (y, y), (x, y)))
        within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (size * (size - 1))
        values.append(within - 2.0 * xy.mean())
    return float(np.mean(values)), float(np.std(values))


def _cube(a: np.ndarray) -> np.ndarray:
    return a * a * a  # 9 times as fast as a power, in NumPy


# Neighbours ---------------------------------------------------------------------------------------


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    d2 = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2.0 * (a @ b.T)
    return np.maximum(d2, 0.0, out=d2)


def _radii(f: np.ndarray, k: int, block: int) -> np.ndarray:
    """Squared distance of each point to its k-th neighbour in its own set."""
    rows = [np.partition(_squared(f[i : i + block], f), k, axis=1)[:, k] for i in _steps(f, block)]
    return np.concatenate(rows)


def _steps(f, block):
    return range(0, len(f), block)


def prdc(real: Features, fake: Features, k: int = 5, block: int = 1000) -> dict[str, float]:
    """Precision, recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), density and coverage (Naeem
    et al. 2020, arXiv 2002.09797).

    Args:
      k: the neighbourhood of a point is the ball up to its k-th nearest neighbour in its own set.
      block: rows of the distance matrix that are in memory at once.

    Returns:
      "precision": fraction of samples in the neighbourhood of some real point; "recall": the
      reverse; "density": mean number of neighbourhoods that a sample is in, over k (can be above
      1); "coverage": fraction of real points with a sample in their neighbourhood.

    Raises:
      UserError: no more than k examples on a side.
    """
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    if min(len(real), len(fake)) <= k:
        raise UserError(f"prdc with k = {k} needs more than {k} examples on both sides")
    r_real, r_fake = _radii(real, k, block), _radii(fake, k, block)
    precise, neighbourhoods = np.zeros(len(fake), bool), np.zeros(len(fake))
    recalled, covered = [], []
    for i in _steps(real, block):
        d2 = _squared(real[i : i + block], fake)
        is_inside = d2 < r_real[i : i + block, None]
        precise |= is_inside.any(0)
        neighbourhoods += is_inside.sum(0)
        recalled.append((d2 < r_fake[None]).any(1))
        covered.append(d2.min(1) < r_real[i : i + block])
    return {
        "precision": float(precise.mean()),
        "recall": float(np.concatenate(recalled).mean()),
        "density": float(neighbourhoods.mean() / k),
        "coverage": float(np.concatenate(covered).mean()),
    }


def nearest(queries: Features, data: Features, block: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """(Euclidean distance [n], index [n]) of the nearest neighbour of each query in data."""
    queries, data = np.asarray(queries, np.float32), np.asarray(data, np.float32)
    distance, index = [], []
    for i in _steps(queries, block):
        q = queries[i : i + block]
        j = _squared(q, data).argmin(1)
        index.append(j)
        # computed again: |a|^2 + |b|^2 - 2 ab is inexact for small distances
        distance.append(np.sqrt(np.square(q.astype(np.float64) - data[j]).sum(1)))
    return np.concatenate(distance), np.concatenate(index)


def memorisation(train: Features, held_out: Features, fake: Features) -> dict[str, float]:
    """Tests whether samples are closer to training images than held-out real images are.

    Returns:
      "nn_ratio": median distance to the nearest training image of the samples, over that of
      held-out images (about 1 without memorisation, far below 1 with copies); "copies": fraction of
      samples that are closer than the closest 1 % of held-out images (0.01 without memorisation).
    """
    of_held_out, of_samples = nearest(held_out, train)[0], nearest(fake, train)[0]
    return {
        "nn_ratio": float(np.median(of_samples) / max(np.median(of_held_out), 1e-12)),
        "copies": float((of_samples < np.quantile(of_held_out, 0.01)).mean()),
    }


# Other --------------------------------------------------------------------------------------------


def sliced_wasserstein(
    real: Features, fake: Features, projections: int = 512, p: int = 2, seed: int = 0
) -> float:
    """Sliced Wasserstein distance: (mean over random directions of W_p^p)^(1/p), exact in each
    direction (Bonneel et al. 2015). If the sets differ in size, the larger is subsampled."""
    rng, n = np.random.default_rng(seed), min(len(real), len(fake))

    def subsample(f):
        f = np.asarray(f, np.float64)
        return f if len(f) == n else f[rng.choice(len(f), n, replace=False)]

    real, fake = subsample(real), subsample(fake)
    theta = rng.normal(size=(real.shape[1], projections))
    theta /= np.linalg.norm(theta, axis=0)
    gap = np.sort(real @ theta, axis=0) - np.sort(fake @ theta, axis=0)
    return float((np.abs(gap) ** p).mean() ** (1.0 / p))


def class_histogram(labels: Int[np.ndarray, " n"], classes: int) -> np.ndarray:
    """Fraction of each class, [classes]."""
    return np.bincount(np.asarray(labels), minlength=classes) / max(len(labels), 1)


def class_gap(real: Int[np.ndarray, " n"], fake: Int[np.ndarray, " m"], classes: int) -> float:
    """Total variation distance of the class distributions of two sets: 0 = equal, 1 = disjoint."""
    gap = class_histogram(real, classes) - class_histogram(fake, classes)
    return float(np.abs(gap).sum() / 2.0)


def iwae_nll(log_weights: Float[np.ndarray, "k b"]) -> np.ndarray:
    """-log mean_k w_k in nats, [b], from log w = log p(x|z) p(z) / q(z|x) (Burda et al. 2016, arXiv
    1509.00519): in expectation an upper bound of -log p(x), tighter for larger k."""
    log_w = np.asarray(log_weights, np.float64)
    top = log_w.max(0)
    return -(top + np.log(np.exp(log_w - top).mean(0)))


def bits_per_dim(nats: float, dims: int, levels: int = 1) -> float:
    """Converts nats per image to bits per dimension.

    Args:
      dims: number of elements of an image.
      levels: 1 for a probability of discrete values; for a density over [0, 1], the number of
        values in it (256 for 8 bits), whose log2 is added.

    >>> float(round(aejax.generation.metrics.bits_per_dim(784 * np.log(2), 784), 6))
    1.0
    """
    return nats / (dims * math.log(2.0)) + math.log2(levels)
