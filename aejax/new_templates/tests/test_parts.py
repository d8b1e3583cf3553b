"""Tests of each part, and a training of a few steps with all of them."""

import jax
import jax.numpy as jnp
import numpy as np

import aejax
from aejax.config import load
from my_package.corruption import lighting
from my_package.loss import edges
from my_package.metric import worst_pixel

X = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))


def test_the_loss_is_zero_for_equal_images_and_sees_edges_only():
    np.testing.assert_array_equal(edges(X, X), jnp.zeros(3))
    np.testing.assert_allclose(edges(X, X + 0.5), 0, atol=1e-6)  # a shift of all pixels
    assert (edges(X, X.at[:, 4, 4].add(0.5)) > 0).all()


def test_the_corruption_keeps_shape_and_mean():
    y = lighting(jax.random.key(1), X, strength=0.3)
    assert y.shape == X.shape and not jnp.array_equal(y, X)
    np.testing.assert_allclose(y.mean((1, 2, 3)), X.mean((1, 2, 3)), atol=1e-5)


def test_the_metric_is_the_worst_pixel():
    np.testing.assert_allclose(worst_pixel(X, X.at[:, 2, 3].add(1.0)), 255, rtol=1e-5)


def test_a_training_of_a_few_steps(tmp_path):
    aejax.train(load("experiments/first.py:smoke"), tmp_path / "run", quiet=True)
    model = aejax.load(tmp_path / "run")
    assert model.encode(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 8)
