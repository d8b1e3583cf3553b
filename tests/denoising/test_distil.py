"""A student between the clean picture and its teacher; one network for colour and gray."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.denoising import distil
from aejax.denoising.models import DnCNN, ResidualDenoiser, UNetDenoiser
from aejax.errors import UserError
from aejax.nets import ops

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (4, 16, 16, 3))


def _some(tree, scale=0.1):
    """Variables without zeros, so that nothing is hidden."""
    leaves, shape = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [scale * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(shape, drawn)


@pytest.mark.parametrize(
    "model",
    [UNetDenoiser((8, 8), (1, 1, 1), unshuffle=4, block="plain", head_kernel=1),
     UNetDenoiser((8, 8), (1, 1, 1), told="sometimes"), ResidualDenoiser(8, 1, bias_free=False),
     DnCNN(3, 8, norm=False)],
    ids=lambda m: f"{type(m).__name__}-{getattr(m, 'told', '')}",
)  # fmt: skip
def test_a_folded_network_does_in_gray_what_the_colour_one_does(model):
    variables = model.init(KEY, X)
    variables = {**variables, "params": _some(variables["params"])}
    gray = X[..., :1]
    folded = {**variables, "params": distil.in_gray(variables["params"])}
    with ops.forms(all="plain"):  # others may multiply in bfloat16
        want = model.apply(variables, jnp.repeat(gray, 3, -1)).y.mean(-1, keepdims=True)
        y = model.apply(folded, gray).y
    np.testing.assert_allclose(y, want, atol=2e-6)


class Student:
    """y = x_tilde + a."""

    def apply(self, variables, x, cond, train, method=None, rngs=None, mutable=False):
        from aejax.types import Output

        return Output(x, x, x + variables["params"]["a"])


class Distilled(distil.Distilled):
    """Its teachers add something to what they are shown, and `asked` keeps what that was."""

    asked: ClassVar[list] = []

    def _teacher_output(self, name, x_tilde):
        self.asked.append((name, x_tilde.shape))
        return x_tilde + {"near": 0.01, "far": 0.5, "gray": 0.02}[name]


@pytest.fixture
def asked():
    Distilled.asked.clear()
    return Distilled.asked


def _loss(a=0.1, train=True, **options):
    options = {"loss": {"mae": 1.0}, "balance": 0.0, "teacher": "near"} | options
    variables = {"params": {"a": jnp.float32(a)}}
    return Distilled(**options)(Student(), variables, {"image": X}, KEY, train)


def test_the_loss_is_a_mixture_of_both_targets(asked):
    for share, want in ((0.0, 0.1), (0.5, 0.095), (1.0, 0.09)):
        np.testing.assert_allclose(_loss(share=share)[0], want, atol=1e-6)
    assert asked == [("near", X.shape)] * 3


def test_a_teacher_that_is_worse_than_the_student_is_not_listened_to():
    np.testing.assert_allclose(_loss(teacher="far", share=1.0)[0], 0.1, atol=1e-6)


def test_a_part_of_each_batch_is_gray(asked):
    loss, aux = _loss(gray=0.25, gray_teacher="gray", share=1.0,
                      corrupt=({"name": "gaussian", "sigma": 25.0},))  # fmt: skip
    assert asked == [("gray", (1, 16, 16, 1)), ("near", (3, 16, 16, 3))]
    x, x_tilde = np.asarray(aux.pictures["x"]), np.asarray(aux.pictures["x_tilde"])
    for picture in (x[0], x_tilde[0]):
        np.testing.assert_array_equal(picture[..., 0], picture[..., 2])
    np.testing.assert_array_equal(x[1:], X[1:])
    assert np.std(x_tilde[0] - x[0]) * 255 == pytest.approx(25, rel=0.2)


@pytest.mark.parametrize("objective", ["Supervised", "Distilled"])
def test_a_share_that_is_no_whole_number_of_examples_holds_in_the_mean(objective):
    make = getattr(distil, objective)({"mae": 1.0}, gray=0.4)  # 1.6 of 4

    @jax.jit
    @jax.vmap
    def grays(key):
        x, x_tilde, _ = make._pair(key, X)
        return [(v == v[..., :1]).all((1, 2, 3)) for v in (x, x_tilde)]

    of_x, of_x_tilde = grays(jax.random.split(KEY, 300))
    np.testing.assert_array_equal(of_x, of_x_tilde)
    first, second, *others = np.asarray(of_x).mean(0)
    assert (first, *others) == (1.0, 0.0, 0.0) and second == pytest.approx(0.6, abs=0.1)


def test_a_picture_of_one_channel_is_gray_already():
    x, x_tilde, _ = distil.Supervised({"mae": 1.0}, gray=0.5)._pair(KEY, X[..., :1])
    assert x.shape == x_tilde.shape == (4, 16, 16, 1)


def test_no_teacher_is_asked_in_evaluation(asked):
    loss, _ = _loss(gray=0.5, train=False)
    np.testing.assert_allclose(loss, 0.1, atol=1e-6)
    assert not asked


def test_a_teacher_is_a_denoiser_by_name(tiny):
    """No gradient goes through it."""
    x = X[:1, ..., :1]
    y = distil.teacher_output(tiny[1], x)
    assert y.shape == x.shape and not np.allclose(y, x)
    assert not np.any(jax.grad(lambda x: distil.teacher_output(tiny[1], x).sum())(x))


def test_shares_that_cannot_be():
    for wrong in ({"share": 1.5}, {"gray": -0.1}):
        with pytest.raises(UserError, match="between 0 and 1"):
            distil.Distilled({"mae": 1.0}, **wrong)
    with pytest.raises(UserError, match="gray = 2 is not between 0 and 1"):
        distil.Supervised({"mae": 1.0}, gray=2)
