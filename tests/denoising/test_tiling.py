"""Tiles give what the whole image gives, in windows of bounded size and few shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.denoising.api import MARGIN, network_for
from aejax.denoising.models import UNetDenoiser
from aejax.denoising.tiling import tiled, tiles


@pytest.mark.parametrize("h,w", [(64, 64), (96, 200), (520, 136), (1000, 1024)])
@pytest.mark.parametrize("tile,margin", [(96, 24), (128, 40), (256, 8)])
def test_each_pixel_is_kept_once_with_its_margin(h, w, tile, margin):
    count = np.zeros((h, w), int)
    for t in tiles(h, w, tile, margin, 8):
        count[t.ky0 : t.ky1, t.kx0 : t.kx1] += 1
        assert t.y0 % 8 == 0 and t.x0 % 8 == 0
        assert t.y1 - t.y0 == min(h, tile) and t.x1 - t.x0 == min(w, tile)
        assert t.ky0 - t.y0 >= margin or t.y0 == 0
        assert t.y1 - t.ky1 >= margin or t.y1 == h
        assert t.kx0 - t.x0 >= margin or t.x0 == 0
        assert t.x1 - t.kx1 >= margin or t.x1 == w
    assert (count == 1).all()


def network():
    model = UNetDenoiser(widths=(4, 8, 8), blocks=(1, 1, 1, 1, 1))
    x = jnp.zeros((1, 32, 32, 1))
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0), x))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [v + 0.2 * jax.random.normal(k, v.shape) for v, k in zip(leaves, keys, strict=True)]
    variables = jax.tree.unflatten(tree, leaves)
    return model, jax.jit(lambda x: model.apply(variables, x[None]).y[0])


def test_tiled_equals_untiled_and_a_margin_too_small_would_not():
    model, f = network()
    x = np.random.default_rng(0).random((248, 376, 1), np.float32)
    whole = np.asarray(f(x))
    kw = {"tile": 192, "stride": model.stride}
    y = tiled(f, x, margin=model.reach, **kw)
    scale = np.abs(whole).max()
    assert np.abs(y - whole).max() < 1e-4 * max(1, scale)
    assert np.abs(tiled(f, x, margin=8, **kw) - whole).max() > 1e-3 * scale


@pytest.mark.slow
def test_windows_of_the_largest_shipped_model_equal_the_whole():
    """Its margin is smaller than its reach, and enough; one that is smaller still is not."""
    from skimage.data import astronaut

    network = network_for(3, "photo")
    assert network.margin == MARGIN < network.model.reach
    noise = np.random.default_rng(0).normal(0, 25 / 255, (384, 384, 3))
    x = (astronaut()[:384, :384] / 255 + noise).astype(np.float32)
    whole = network(x)
    assert np.abs(network(x, tile=288) - whole).max() < 1e-4
    near = tiled(
        lambda part: network._run(network.variables, part, None), x,
        tile=288, margin=48, stride=network.model.stride,
    )  # fmt: skip
    assert np.abs(near - whole).max() > 1e-4


def test_windows_are_bounded_and_of_one_shape():
    shapes = []

    def f(part):
        shapes.append(part.shape)
        return part

    x = np.random.default_rng(0).random((333, 517, 3), np.float32)
    done = []
    y = tiled(f, x, tile=128, margin=16, stride=8, progress=done.append)
    np.testing.assert_array_equal(y, x)
    assert set(shapes) == {(128, 128, 3)} and done[-1] == 1.0 and done == sorted(done)


def test_small_images_are_mirrored_up_to_few_shapes():
    shapes = set()
    for h in range(8, 140, 3):
        for w in (33, 64):
            x = np.random.default_rng(0).random((h, w, 1), np.float32)
            y = tiled(lambda p: (shapes.add(p.shape), p)[1], x, tile=256, margin=16, stride=8)
            np.testing.assert_array_equal(y, x)
    assert shapes == {(64, 64, 1), (128, 64, 1), (256, 64, 1)}


def test_photographs_of_all_sizes_need_few_shapes():
    shapes = set()
    rng = np.random.default_rng(0)
    for _ in range(60):
        h, w = rng.integers(200, 3000, 2)
        x = np.zeros((h, w, 1), np.float32)
        tiled(lambda p: (shapes.add(p.shape), p)[1], x, tile=1024, margin=140, stride=16)
    sides = {side for h, w, _ in shapes for side in (h, w)}
    assert sides <= {256, 384, 512, 768, 1024} and len(shapes) <= 12
