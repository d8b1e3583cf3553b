"""Each corruption does to the statistics what its name says, under jit, and composes."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.corrupt import CORRUPTIONS, camera, chain, gaussian, jpeg, level, one_of
from aejax.errors import UserError
from tests.helpers import others_slow

KEY = jax.random.key(0)
LONG = {"camera", "shuffled"}  # to compile


def flat(value=0.5, b=2, side=64, c=3):
    return jnp.full((b, side, side, c), value)


def texture(side=64, c=3):
    """A smooth picture with an edge: something JPEG and blur act on."""
    y, x = np.mgrid[:side, :side] / side
    base = 0.5 + 0.3 * np.sin(9 * x + 4 * y) + 0.15 * (x > y)
    return jnp.asarray(np.stack([base * s for s in (1.0, 0.8, 0.6)[:c]], -1)[None], jnp.float32)


CHOICES = {"choices": [{"name": "gaussian"}, {"name": "jpeg"}], "weights": [1, 2]}


@pytest.mark.parametrize("name", others_slow(CORRUPTIONS, *(set(CORRUPTIONS) - LONG)))
@pytest.mark.parametrize("shape", [(2, 17, 23, 3), (1, 8, 8, 1)])
def test_every_one_keeps_shape_and_is_a_function_of_the_key_under_jit(name, shape):
    x = jax.random.uniform(KEY, shape)
    more = {"choices": [{"name": "gaussian"}], "weights": [1]} if name == "one_of" else {}
    f = jax.jit(chain([{"name": name} | more]))
    a, b, other = f(KEY, x)[0], f(KEY, x)[0], f(jax.random.key(1), x)[0]
    assert a.shape == shape and a.dtype == jnp.float32 and bool(jnp.isfinite(a).all())
    np.testing.assert_array_equal(a, b)
    fixed = name in ("identity", "jpeg", "blur", "quantise")
    fixed |= name == "halved_chroma"
    assert bool((a == other).all()) == fixed
    same = name == "identity" or name == "halved_chroma" and shape[-1] == 1
    assert bool((a == x).all()) == same


@pytest.mark.parametrize(
    "name,params,variance",
    [
        ("gaussian", {"sigma": 25.0}, (25 / 255) ** 2),
        ("poisson", {"peak": 20.0}, 0.5 / 20),
        ("poisson_gaussian", {"peak": 20.0, "sigma": 25.0}, 0.5 / 20 + (25 / 255) ** 2),
        ("speckle", {"sigma": 50.0}, (0.5 * 50 / 255) ** 2),
        ("salt_and_pepper", {"p": 0.2}, 0.2 * 0.25),
        ("mask", {"ratio": 0.3}, 0.3 * 0.25 - (0.3 * 0.5) ** 2),
    ],
)
def test_noise_has_the_mean_and_variance_of_its_definition(name, params, variance):
    x = flat(side=128)
    y = CORRUPTIONS[name](KEY, x, **params)
    mean = 0.5 * (1 - params["ratio"]) if name == "mask" else 0.5
    np.testing.assert_allclose(float(y.mean()), mean, atol=0.005)
    np.testing.assert_allclose(float(y.var()), variance, rtol=0.05)


def test_gaussian_is_not_clipped():
    y = gaussian(KEY, flat(1.0), 50.0)
    assert float(y.max()) > 1.3 and 0.45 < float((y > 1).mean()) < 0.55


def test_a_range_draws_a_level_per_example_and_tells_it():
    x = flat(b=64, side=32, c=1)
    y, cond = jax.jit(chain([{"name": "gaussian", "sigma": (0, 55)}]))(KEY, x)
    told = np.asarray(cond["sigma"])
    assert told.shape == (64,) and 0 <= told.min() < 0.03 and 0.18 < told.max() <= 55 / 255
    np.testing.assert_allclose(np.asarray((y - x).std((1, 2, 3))), told, rtol=0.15, atol=1e-3)


def test_a_chain_runs_in_order_and_adds_up_gaussian_levels():
    specs = [
        {"name": "gaussian", "sigma": 30.0},
        {"name": "quantise", "levels": 2},
        {"name": "gaussian", "sigma": 40.0},
    ]
    y, cond = chain(specs)(KEY, flat())
    np.testing.assert_allclose(np.asarray(cond["sigma"]) * 255, 50.0, rtol=1e-5)
    assert len(np.unique(np.asarray(y))) > 100  # quantised before the second noise, not after it
    assert chain([])(KEY, flat())[1] == {}
    again = chain(specs[:2])(KEY, flat())[0]
    assert set(np.unique(np.asarray(again))) == {0.0, 1.0}


@pytest.mark.parametrize("quality", [10, 30, 60, 95])
@pytest.mark.parametrize("subsample", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_jpeg_is_what_libjpeg_writes(quality, subsample):
    from PIL import Image

    from aejax.metrics.image import psnr

    x = jnp.round(texture(60) * 255) / 255
    file = io.BytesIO()
    picture = Image.fromarray(np.asarray(x[0] * 255).astype(np.uint8))
    picture.save(file, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    real = jnp.asarray(Image.open(file), jnp.float32)[None] / 255
    ours = jax.jit(lambda v: jpeg(KEY, v, float(quality), subsample=subsample))(x)
    # as far from the truth as the real one, and much nearer to it than to the truth
    assert abs(float(psnr(x, ours)[0] - psnr(x, real)[0])) < (1.0 if quality < 90 else 1.5)
    assert float(psnr(real, ours)[0]) > float(psnr(x, real)[0]) + (2 if quality < 90 else -2)


def test_jpeg_gray_is_the_luma_plane_and_rejects_two_channels():
    gray = texture(c=1)
    colour = jnp.repeat(gray, 3, -1)
    a, b = jpeg(KEY, gray, 20.0), jpeg(KEY, colour, 20.0)
    assert float(jnp.abs(a - b[..., :1]).max()) < 2.5 / 255
    with pytest.raises(UserError, match="channels"):
        jpeg(KEY, jnp.zeros((1, 8, 8, 2)))


def test_blur_is_the_gaussian_filter():
    from scipy.ndimage import gaussian_filter

    x = texture()
    want = gaussian_filter(np.asarray(x), (0, 1.5, 1.5, 0), mode="nearest", radius=(0, 5, 5, 0))
    np.testing.assert_allclose(CORRUPTIONS["blur"](KEY, x, 1.5), want, atol=2e-5)


def test_halved_chroma_keeps_luma_and_shares_chroma_of_four_pixels():
    x = jax.random.uniform(KEY, (2, 9, 12, 3))
    y = np.asarray(CORRUPTIONS["halved_chroma"](KEY, x))
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(y @ luma, np.asarray(x) @ luma, atol=1e-6)
    chroma = y - (y @ luma)[..., None]
    np.testing.assert_allclose(chroma[:, ::2][:, :4], chroma[:, 1::2], atol=1e-6)
    np.testing.assert_allclose(chroma[:, :, ::2], chroma[:, :, 1::2], atol=1e-6)
    np.testing.assert_array_equal(CORRUPTIONS["halved_chroma"](KEY, x, share=0.0), x)


def test_mask_hides_whole_patches_at_the_asked_ratio():
    y = CORRUPTIONS["mask"](KEY, flat(1.0, side=128), ratio=0.75, patch=16)
    cells = np.asarray(y)[..., 0].reshape(2, 8, 16, 8, 16).transpose(0, 1, 3, 2, 4)
    means = cells.mean((3, 4))
    assert set(np.unique(means)) == {0.0, 1.0} and 0.6 < 1 - means.mean() < 0.9


def test_quantise_has_that_many_levels():
    x = jax.random.uniform(KEY, (1, 64, 64, 1))
    assert len(np.unique(np.asarray(CORRUPTIONS["quantise"](KEY, x, 5)))) == 5


def test_levels_may_be_arrays_ranges_or_numbers():
    np.testing.assert_allclose(level(KEY, 3.0, 2), [3, 3])
    np.testing.assert_allclose(level(KEY, jnp.array([1.0, 2.0]), 2), [1, 2])
    with pytest.raises(UserError, match="range"):
        level(KEY, (5, 1), 2)


@pytest.mark.parametrize(
    "spec,words",
    [
        ({"name": "gausian"}, 'did you mean "gaussian"'),
        ({"name": "gaussian", "sigm": 3}, 'did you mean "sigma"'),
        ({"sigma": 3}, "no"),
        ({"name": "jpeg", "x": 3}, "no parameter"),
    ],
)
def test_mistakes_in_a_chain_are_named(spec, words):
    with pytest.raises(UserError, match=words):
        chain([spec])


def correlation(noise, lag):
    """Of horizontal neighbours `lag` pixels apart, over all images and channels."""
    n = noise - noise.mean((1, 2), keepdims=True)
    return float((n[:, :, lag:] * n[:, :, :-lag]).mean() / (n * n).mean())


@pytest.fixture(scope="module")
def photographs():
    """(x, what the camera makes of it without JPEG, at 6 rms): a dark and a bright half."""
    x = jnp.concatenate([flat(0.15, 16, 64), flat(0.6, 16, 64)], 2)
    return x, jax.jit(lambda k, v: camera(k, v, rms=6.0, compressed=0.0))(KEY, x)


def test_camera_noise_has_the_asked_strength_and_no_bias(photographs):
    x, y = photographs
    np.testing.assert_allclose(255 * jnp.sqrt(((y - x) ** 2).mean((1, 2, 3))), 6.0, rtol=0.15)
    assert abs(float((y - x).mean())) * 255 < 0.5
    assert float(y.min()) >= 0 and float(y.max()) <= 1
    np.testing.assert_allclose(y * 255, jnp.round(y * 255), atol=1e-3)


def test_camera_noise_is_coarse_and_depends_on_the_signal(photographs):
    x, y = photographs
    noise = y - x
    white = gaussian(KEY, x, 6.0) - x
    assert correlation(noise, 2) > 0.3 > 0.05 > abs(correlation(white, 2))
    assert correlation(noise, 4) > 0.08 > 0.03 > abs(correlation(white, 4))  # blotches
    dark, bright = noise[:, :, :64].std((1, 2, 3)), noise[:, :, 64:].std((1, 2, 3))
    assert float(jnp.abs(jnp.log(dark / bright)).mean()) > 0.2


@pytest.mark.parametrize(
    "name", others_slow(["camera", "shuffled", "one_of", "film_grain"], "one_of")
)
def test_an_image_is_corrupted_alike_whatever_is_beside_it_and_without_jit(name):
    params = CHOICES if name == "one_of" else {}
    x = jax.random.uniform(KEY, (3, 24, 32, 3))
    other = x.at[2].set(1 - x[2])
    f = jax.jit(lambda v: CORRUPTIONS[name](KEY, v, **params))
    np.testing.assert_allclose(f(x)[:2], f(other)[:2], atol=1e-6)
    assert float(jnp.abs(f(x)[2] - f(other)[2]).max()) > 0.1
    eager = CORRUPTIONS[name](KEY, x, **params)
    # a rounding to 8 bits, or of a DCT coefficient, may fall on the other side
    assert float((jnp.abs(f(x) - eager) > 2e-5).mean()) < 0.02


def test_one_of_draws_by_its_weights():
    x = flat(b=200, side=8)
    noisy = jax.jit(lambda k, v: one_of(k, v, **CHOICES))(KEY, x)
    share = float((noisy != jnp.round(noisy * 255) / 255).any((1, 2, 3)).mean())
    assert abs(share - 1 / 3) < 0.1  # jpeg leaves whole values


@pytest.mark.slow
def test_film_grain_is_strongest_in_the_middle_tones():
    for v, want in ((0.5, 10.0), (0.1, 10 * 2 * np.sqrt(0.1 * 0.9)), (0.0, 0.0)):
        y = CORRUPTIONS["film_grain"](KEY, flat(v, 4), sigma=10.0)
        np.testing.assert_allclose(255 * float((y - v).std()), want, rtol=0.03, atol=1e-4)
    noise = CORRUPTIONS["film_grain"](KEY, flat(0.5, 4), size=1.0) - 0.5
    assert correlation(noise, 1) > 0.6


@pytest.mark.slow
def test_shuffled_leaves_the_picture_recognisable_and_does_more_with_more_share():
    x = jnp.repeat(texture(48), 8, 0)
    error = [
        float(jnp.square(CORRUPTIONS["shuffled"](KEY, x, share) - x).mean()) for share in (0.0, 1.0)
    ]
    assert 0 < error[0] < error[1] < 0.05
