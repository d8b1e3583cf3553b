"""Every classical filter removes noise, is in the range it was tuned for, and needs no sigma."""

import numpy as np
import pytest

from aejax.denoising import baselines as B
from aejax.denoising import filters, linear
from aejax.denoising.protocol import noisy_image, psnr, rounded
from aejax.errors import UserError


def photo(channels):
    """A photograph that scikit-image carries: 96x96 of the astronaut."""
    from skimage.data import astronaut

    x = astronaut()[80:176, 180:276]
    return x[..., :1] if channels == 1 else x


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [n for n in B.BASELINES if n != "bm3d"])
def test_each_gains_at_every_level_told_or_not(name, channels):
    x = photo(channels)
    f = B.baseline(name)
    for sigma, least in ((25, 2.0), (50, 4.0)):
        noisy = noisy_image(x, sigma, 0)
        y = f(noisy, sigma)
        assert y.shape == x.shape and y.dtype == np.float32
        gain = psnr(x, rounded(y)) - psnr(x, rounded(noisy))
        assert gain > least, (sigma, gain)
    blind = f(noisy)
    assert abs(psnr(x, rounded(blind)) - psnr(x, rounded(y))) < 0.5


def test_order_of_the_filters_is_that_of_the_literature():
    x = photo(1)
    noisy = noisy_image(x, 25, 0)
    got = {n: psnr(x, rounded(B.baseline(n)(noisy, 25))) for n in ("mean", "gaussian", "nlm", "tv")}
    assert got["mean"] < got["gaussian"] < min(got["nlm"], got["tv"])


@pytest.mark.skipif("bm3d" not in B.installed(), reason="bm3d is not installed: SKIPPED")
def test_bm3d_is_the_best_of_them():
    x = photo(1)[:64, :64]
    noisy = noisy_image(x, 25, 0)
    best = psnr(x, rounded(B.baseline("bm3d")(noisy, 25)))
    assert best > psnr(x, rounded(B.baseline("nlm")(noisy, 25)))


def test_the_linear_autoencoder_is_the_optimum_of_its_kind():
    """On data with exactly that covariance no perturbed matrix does better."""
    s = linear.covariance(1)
    sigma = 25 / 255
    w = s @ np.linalg.inv(s + sigma**2 * np.eye(64))

    def error(w):
        d = w - np.eye(64)
        return np.trace(d @ s @ d.T) + sigma**2 * np.trace(w @ w.T)

    rng = np.random.default_rng(0)
    for _ in range(5):
        assert error(w + 1e-3 * rng.standard_normal(w.shape)) > error(w)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_averaged_over_overlaps_are_one_convolution(channels):
    rng = np.random.default_rng(0)
    d, n = linear.PATCH, 24
    w = rng.standard_normal((d * d * channels,) * 2) / 50
    x = rng.random((n, n, channels)).astype(np.float32)
    total, count = np.zeros(x.shape), np.zeros((n, n, 1))
    for i in range(n - d + 1):
        for j in range(n - d + 1):
            patch = (x[i : i + d, j : j + d] - 0.5).ravel()
            total[i : i + d, j : j + d] += (w @ patch).reshape(d, d, channels) + 0.5
            count[i : i + d, j : j + d] += 1
    y = linear.convolve(x, linear.filter_of(w, channels))
    inner = slice(d, n - d)
    np.testing.assert_allclose(y[inner, inner], (total / count)[inner, inner], atol=1e-4)


def test_covariance_is_that_of_the_patches():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 40, 1)).astype(np.uint8) for _ in range(4)]
    s = linear.fit_covariance(images)
    np.testing.assert_allclose(s, s.T)
    np.testing.assert_allclose(np.diag(s).mean(), 1 / 12, rtol=0.05)
    turned = s.reshape(8, 8, 8, 8)[::-1, :, ::-1, :].reshape(64, 64)
    np.testing.assert_allclose(turned, s, atol=1e-12)


def test_tuned_numbers_are_of_the_grids_and_interpolated():
    for name, values in B.TUNED.items():
        for channels in (1, 3):
            assert len(values[channels]) == len(B.LEVELS)
            assert set(values[channels]) <= {float(v) for v in B.GRIDS[name]}
    name = "gaussian"
    low, high = B.setting(name, 25, 1), B.setting(name, 50, 1)
    assert low < B.setting(name, 37.5, 1) < high
    assert set(B.TUNED) == {n for n in B.BASELINES if len(B.GRIDS[n]) > 1}
    with pytest.raises(UserError, match="did you mean"):
        B.baseline("nlmm")


def test_tune_finds_the_best_of_a_grid():
    x = photo(1)
    found = B.tune([x], ["gaussian"], levels=(25.0,))["gaussian"][0]
    noisy = noisy_image(x, 25, 0)
    score = {v: psnr(x, rounded(filters.gaussian(noisy, 25, v))) for v in B.GRIDS["gaussian"]}
    assert found == max(score, key=score.get)
