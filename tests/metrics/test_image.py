"""Image metrics against scikit-image, against the definition in float64, and at their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from aejax.errors import UserError
from aejax.metrics import image


def pair(shape, noise=0.1, seed=0):
    """A smooth picture and a noisy copy, both in [0, 1]."""
    rng = np.random.default_rng(seed)
    b, h, w, c = shape
    i, j = np.mgrid[:h, :w] / 9.0
    waves = [np.sin(i * f + p) * np.cos(j * g + q) for f, g, p, q in rng.random((b * c, 4)) * 3]
    x = 0.5 + 0.45 * np.stack(waves, -1).reshape(h, w, b, c).transpose(2, 0, 1, 3)
    y = np.clip(x + noise * rng.standard_normal(shape), 0, 1)
    return x.astype(np.float32), y.astype(np.float32)


def reference_ssim(x, y):
    return [
        structural_similarity(
            a.astype(np.float64),
            b.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
        for a, b in zip(x, y, strict=True)
    ]


@pytest.mark.parametrize("shape", [(3, 11, 11, 1), (2, 28, 31, 1), (2, 64, 40, 3)])
@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5])
def test_ssim_is_that_of_scikit_image(shape, noise):
    x, y = pair(shape, noise)
    np.testing.assert_allclose(jax.jit(image.ssim)(x, y), reference_ssim(x, y), atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_ssim_in_flat_areas_keeps_its_digits(level):
    """E[x^2] - E[x]^2 in float32 is the classic way to get this wrong."""
    rng = np.random.default_rng(1)
    x = np.clip(np.full((2, 32, 32, 3), level) + 1e-3 * rng.standard_normal((2, 32, 32, 3)), 0, 1)
    y = np.clip(x + 1e-3 * rng.standard_normal(x.shape), 0, 1)
    x, y = x.astype(np.float32), y.astype(np.float32)
    np.testing.assert_allclose(image.ssim(x, y), reference_ssim(x, y), atol=1e-5)


def test_ssim_of_images_smaller_than_the_window():
    x, y = pair((4, 8, 10, 1))
    g = np.outer(image.window(8), image.window(10))
    assert g.shape == (7, 9)
    expected = []
    for a, b in zip(x[..., 0].astype(np.float64), y[..., 0].astype(np.float64), strict=True):
        values = []
        for i in range(2):
            for j in range(2):
                p, q = a[i : i + 7, j : j + 9], b[i : i + 7, j : j + 9]
                m, n = (g * p).sum(), (g * q).sum()
                v, u = (g * (p - m) ** 2).sum(), (g * (q - n) ** 2).sum()
                cov = (g * (p - m) * (q - n)).sum()
                luminance = (2 * m * n + 1e-4) / (m * m + n * n + 1e-4)
                values.append(luminance * (2 * cov + 9e-4) / (v + u + 9e-4))
        expected.append(np.mean(values))
    np.testing.assert_allclose(image.ssim(x, y), expected, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_tiniest_images_have_a_figure(side):
    x, y = pair((2, side, side, 1))
    for metric in image.METRICS.values():
        assert np.isfinite(metric(x, y)).all()
        assert np.isfinite(jax.grad(lambda y, m=metric: m(x, y).sum())(y)).all()


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_equal_images_are_1(name):
    x, _ = pair((2, 180, 190, 1))
    np.testing.assert_allclose(jax.jit(image.METRICS[name])(x, x), 1.0, atol=1e-6)


def test_psnr_is_that_of_scikit_image_and_ends_at_100():
    x, y = pair((3, 16, 16, 3))
    expected = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(image.psnr(x, y), expected, rtol=1e-5)
    np.testing.assert_allclose(image.psnr(x, x), 100.0, rtol=1e-6)


def test_ms_ssim_by_its_definition():
    """Five scales with scikit-image's filter, float64, Wang's weights."""
    from scipy.ndimage import gaussian_filter

    x, y = pair((2, 179, 186, 1), noise=0.2)
    expected = []
    for a, b in zip(x[..., 0].astype(np.float64), y[..., 0].astype(np.float64), strict=True):
        value = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):

            def f(v):
                return gaussian_filter(v, 1.5, truncate=3.5)[5:-5, 5:-5]

            m, n = f(a), f(b)
            s_aa, s_bb, s_ab = f(a * a) - m * m, f(b * b) - n * n, f(a * b) - m * n
            contrast = (2 * s_ab + 9e-4) / (s_aa + s_bb + 9e-4)
            if scale == 4:
                contrast = contrast * (2 * m * n + 1e-4) / (m * m + n * n + 1e-4)
            value *= contrast.mean() ** weight
            a, b = (np.pad(v, [(0, v.shape[0] % 2), (0, v.shape[1] % 2)], "edge") for v in (a, b))
            a, b = ((v[::2, ::2] + v[1::2, ::2] + v[::2, 1::2] + v[1::2, 1::2]) / 4 for v in (a, b))
        expected.append(value)
    np.testing.assert_allclose(jax.jit(image.ms_ssim)(x, y), expected, atol=1e-5)


def test_scales_that_fit():
    assert [image.ms_ssim_scales(s, 500) for s in (8, 21, 22, 43, 44, 87, 88, 175, 176)] == [
        *(1, 1, 2, 2, 3, 3, 4, 4, 5)
    ]
    x, y = pair((2, 20, 20, 3))
    np.testing.assert_allclose(image.ms_ssim(x, y), image.ssim(x, y), atol=1e-6)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
@pytest.mark.parametrize("shape", [(2, 9, 14, 1), (2, 24, 30, 3)])
def test_gradient_is_the_slope(name, shape):
    """The hand-written backward filter against differences in a random direction."""
    x, y = pair(shape, noise=0.2)
    metric = jax.jit(image.METRICS[name])
    v = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    slope = (metric(x, y + 1e-2 * v).sum() - metric(x, y - 1e-2 * v).sum()) / 2e-2
    for moved in (0, 1):
        arguments = (x, y) if moved else (y, x)  # SSIM is symmetric
        g = jax.grad(lambda *a: metric(*a).sum(), argnums=moved)(*arguments)
        np.testing.assert_allclose(jnp.vdot(g, v), slope, rtol=2e-2)


def test_ms_ssim_of_inverted_images_has_a_finite_gradient():
    """Negative contrast would be nan under a fractional power."""
    x, _ = pair((2, 64, 64, 1))
    value, g = jax.jit(jax.value_and_grad(lambda y: image.ms_ssim(x, y).sum()))(1 - x)
    assert 0 <= value < 0.1 and np.isfinite(g).all()


def test_under_vmap_and_shapes_that_differ():
    x, y = pair((4, 16, 16, 1))
    one = jax.vmap(lambda a, b: image.ssim(a[None], b[None])[0])(x, y)
    np.testing.assert_allclose(one, image.ssim(x, y), atol=1e-6)
    with pytest.raises(UserError, match="equal image shapes"):
        image.ssim(x, y[:, :8])
