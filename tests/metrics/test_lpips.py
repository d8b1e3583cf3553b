"""LPIPS with weights of a user's file: names, hash, layout, and the formula written another way."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from aejax.errors import UserError
from aejax.metrics import lpips


def stored(seed=0):
    rng = np.random.default_rng(seed)
    made = {n: rng.normal(0, 0.05, s).astype(np.float32) for n, s in lpips.shapes().items()}
    return {n: np.abs(v) if n.startswith("lin") else v for n, v in made.items()}


def as_in_torch(weights, x):
    """The stages in torch's layouts: pictures [b, c, h, w], kernels [o, c, 3, 3]."""
    x = (x * 2 - 1 - np.array(lpips.SHIFT).reshape(1, 3, 1, 1)) / np.array(lpips.SCALE).reshape(
        1, 3, 1, 1
    )
    out, x = [], jnp.asarray(x, jnp.float32)
    for stage in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
        if out:
            b, c, h, w = x.shape
            x = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(b, c, h // 2, 2, w // 2, 2).max((3, 5))
        for n in stage:
            x = jax.lax.conv_general_dilated(
                x, weights[f"features.{n}.weight"], (1, 1), [(1, 1), (1, 1)]
            )
            x = jax.nn.relu(x + weights[f"features.{n}.bias"].reshape(1, -1, 1, 1))
        out.append(x / (jnp.sqrt(jnp.sum(x**2, 1, keepdims=True)) + 1e-10))
    return out


@pytest.mark.slow
def test_the_formula(tmp_path):
    weights = stored()
    save_file(weights, tmp_path / "w.safetensors")
    digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    x, y = np.random.default_rng(1).uniform(size=(2, 2, 18, 16, 3)).astype(np.float32)
    a, b = (as_in_torch(weights, v.transpose(0, 3, 1, 2)) for v in (x, y))
    expected = sum(
        jnp.mean(jnp.sum((p - q) ** 2 * weights[f"lin{i}.model.1.weight"], 1), (1, 2))
        for i, (p, q) in enumerate(zip(a, b, strict=True))
    )
    found = lpips.lpips(lpips.load(str(tmp_path / "w.safetensors"), digest), x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert found.min() > 1e-3


@pytest.mark.slow
def test_the_same_picture_is_no_distance_away_and_gray_is_three_times_gray():
    weights = lpips.load("random")
    x = jax.random.uniform(jax.random.key(0), (1, 16, 16, 1))
    y = 1.0 - x
    three = lambda v: jnp.repeat(v, 3, -1)  # noqa: E731
    assert lpips.lpips(weights, x, x)[0] == 0
    np.testing.assert_allclose(
        lpips.lpips(weights, x, y), lpips.lpips(weights, three(x), three(y)), rtol=1e-5
    )
    grad = jax.grad(lambda y: lpips.lpips(weights, x, y).sum())
    assert np.isfinite(grad(x)).all() and np.isfinite(grad(y)).all()


def test_mistakes_are_named(tmp_path):
    file = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="no LPIPS weights .* says how to write them"):
        lpips.load(str(file))
    weights = stored(1)
    save_file(weights, file)
    with pytest.raises(UserError, match="SHA-256 .*, not abc"):
        lpips.load(str(file), "abc")
    save_file(weights | {"lin3.model.1.weight": np.ones((1, 9, 1, 1), np.float32)}, file)
    with pytest.raises(UserError, match=r"lin3.*has shape \(1, 9, 1, 1\), not \(1, 512"):
        lpips.load(str(file), "")
    del weights["features.0.bias"]
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match="features.0.bias .* is missing"):
        lpips.load(str(tmp_path / "less.safetensors"))
    with pytest.raises(UserError, match="at least 16x16, not 8x16"):
        lpips.lpips(lpips.load("random"), jnp.zeros((1, 8, 16, 3)), jnp.zeros((1, 8, 16, 3)))
