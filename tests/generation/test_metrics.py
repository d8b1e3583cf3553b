"""Sample metrics against SciPy, scikit-learn, `prdc` and the definitions."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats

from aejax.errors import UserError
from aejax.generation import metrics as M
from aejax.generation.score import Reference, score


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12))
    real = rng.normal(size=(700, 12)) @ mix
    fake = 0.8 * rng.normal(size=(600, 12)) @ mix + 0.5 * rng.normal(size=12)
    return real, fake


def test_frechet_against_the_numpy_fid_of_the_papers(sets):
    real, fake = sets
    m1, m2 = real.mean(0), fake.mean(0)
    c1, c2 = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    reference = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)
    assert M.frechet(real, fake) == pytest.approx(reference, rel=1e-6)
    assert M.frechet(real, real) == pytest.approx(0.0, abs=1e-8)
    assert M.frechet(fake, real) == pytest.approx(M.frechet(real, fake), rel=1e-8)


def test_frechet_of_singular_covariances():
    flat = np.random.default_rng(0).normal(size=(50, 2)) @ np.ones((2, 6))
    assert M.frechet(flat, flat + 1.0) == pytest.approx(6.0, abs=1e-4)


def test_frechet_refuses_what_it_cannot_judge():
    with pytest.raises(UserError, match="at least 2"):
        M.frechet(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(UserError, match="NaN"):
        M.frechet(np.full((4, 3), np.nan), np.zeros((5, 3)))


def test_kid_against_scikit_learn(sets):
    from sklearn.metrics.pairwise import polynomial_kernel

    real, fake = sets[0][:300], sets[1][:300]
    xx, yy, xy = (
        polynomial_kernel(a, b, degree=3, gamma=1 / 12, coef0=1)
        for a, b in ((real, real), (fake, fake), (real, fake))
    )
    n = 300
    reference = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1)) - 2 * xy.mean()
    mean, spread = M.kid(real, fake, subsets=3, size=n)
    assert mean == pytest.approx(reference, rel=1e-6) and spread < 1e-6 * abs(reference)
    mean, spread = M.kid(sets[0], sets[1], subsets=50, size=100)
    assert spread > 0 and abs(mean - reference) < 3 * spread


@pytest.mark.parametrize("k", [3, 5])
def test_prdc_against_the_authors_package(sets, k, capsys):
    package = pytest.importorskip("prdc", reason="the package `prdc` is not installed")
    reference = package.compute_prdc(*sets, nearest_k=k)
    ours = M.prdc(*sets, k=k, block=128)
    for name, value in reference.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_prdc_by_the_definition(sets):
    real, fake = sets[0][:60], sets[1][:50]
    distance = lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))  # noqa: E731
    r = np.sort(distance(real, real), 1)[:, 3]
    s = np.sort(distance(fake, fake), 1)[:, 3]
    d = distance(real, fake)
    ours = M.prdc(real, fake, k=3, block=7)
    assert ours["precision"] == pytest.approx((d < r[:, None]).any(0).mean())
    assert ours["recall"] == pytest.approx((d < s[None]).any(1).mean())
    assert ours["density"] == pytest.approx((d < r[:, None]).sum(0).mean() / 3)
    assert ours["coverage"] == pytest.approx((d.min(1) < r).mean())


def test_nearest_and_memorisation_against_scikit_learn(sets):
    from sklearn.neighbors import NearestNeighbors

    real, fake = sets
    distance, index = NearestNeighbors(n_neighbors=1).fit(real).kneighbors(fake)
    ours, where = M.nearest(fake, real, block=100)
    np.testing.assert_allclose(ours, distance[:, 0], rtol=1e-3)
    np.testing.assert_array_equal(where, index[:, 0])


def test_copies_are_seen():
    rng = np.random.default_rng(0)
    train, held_out, fresh = rng.normal(size=(3, 800, 8))
    honest = M.memorisation(train, held_out, fresh)
    assert 0.9 < honest["nn_ratio"] < 1.1 and honest["copies"] < 0.03
    copied = np.concatenate([train[:400] + 1e-3, fresh[:400]])
    assert M.memorisation(train, held_out, copied)["copies"] == pytest.approx(0.5, abs=0.02)


def test_sliced_wasserstein_one_direction_against_scipy(sets):
    real, fake = sets[0][:500], sets[1][:500]
    ours = M.sliced_wasserstein(real[:, :1], fake[:, :1], projections=1, p=1)
    assert ours == pytest.approx(scipy.stats.wasserstein_distance(real[:, 0], fake[:, 0]), rel=1e-6)
    cost = (real[:80, None, 0] - fake[None, :80, 0]) ** 2
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    ours = M.sliced_wasserstein(real[:80, :1], fake[:80, :1], projections=1, p=2)
    assert ours == pytest.approx(math.sqrt(cost[rows, columns].mean()), rel=1e-6)


def test_sliced_wasserstein_of_a_shift(sets):
    """A shift by v moves each direction by theta.v, whose mean square is |v|^2 / d."""
    real, v = sets[0], np.array([3.0] + [0.0] * 11)
    ours = M.sliced_wasserstein(real, real + v, projections=20000, p=2)
    assert ours == pytest.approx(3.0 / math.sqrt(12), rel=0.03)


def test_classes():
    np.testing.assert_allclose(
        M.class_histogram(np.array([0, 0, 2, 3]), 5), [0.5, 0, 0.25, 0.25, 0]
    )
    assert M.class_gap(np.array([0, 1]), np.array([0, 0]), 2) == pytest.approx(0.5)


def test_iwae_nll_of_a_conjugate_model():
    """z ~ N(0, 1), x | z ~ N(z, 1): log p(x) is known, and any q must arrive there."""
    rng, x = np.random.default_rng(0), 1.3
    mean, sd = 0.3, 1.2  # a deliberately wrong posterior
    z = mean + sd * rng.normal(size=(200000, 1))
    log_n = scipy.stats.norm.logpdf
    log_w = log_n(x, z, 1) + log_n(z) - log_n(z, mean, sd)
    assert M.iwae_nll(log_w)[0] == pytest.approx(-log_n(x, 0, math.sqrt(2)), abs=5e-3)


def test_iwae_nll_does_not_overflow():
    np.testing.assert_allclose(M.iwae_nll(np.array([[-1e4, 900.0], [-1e4, 900.0]])), [1e4, -900.0])


def test_bits_per_dim():
    assert M.bits_per_dim(784 * math.log(2), 784) == pytest.approx(1.0)
    assert M.bits_per_dim(0.0, 784, levels=256) == pytest.approx(8.0)  # the uniform density


def test_score_says_what_it_rests_on():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 4, 4, 1), dtype=np.uint8)

    def extract(x):
        f = x.reshape(len(x), -1) / 255.0
        return f, (f.mean(1) > 0.5).astype(int)

    features, labels = extract(images[:100])
    reference = Reference("noise test", "pixels", extract, features, labels, images[100:200],
                            images[:100])  # fmt: skip
    result = score(reference, images[200:])
    names = {"n", "n_real", "reference", "extractor", "fd_floor", "kid_std"}
    assert names <= set(result.to_dict())
    assert result.n == 100 and result.fd < 3 * result.fd_floor
    line = result.caption()
    assert all(part in line for part in ("n = 100", "noise test", "pixels", "real data"))
