"""Depthwise convolutions; on CPUs as sums of shifted images."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.nets.ops.choice import form


def _depthwise_plain(x: Array, w: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        w[:, :, None, :],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _shifts(x: Array, k: int, kw: int) -> Iterator[tuple[int, int, Array]]:
    """(i, j, x shifted by (i, j)) for each position of a k x kw kernel; x [..., h, w, c]."""
    h, w = x.shape[-3:-1]
    pads = lax.padtype_to_pads((h, w), (k, kw), (1, 1), "SAME")
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*pads, (0, 0)])
    for i in range(k):
        for j in range(kw):
            yield i, j, x[..., i : i + h, j : j + w, :]


@jax.custom_vjp
def _depthwise_cpu(x: Array, w: Array) -> Array:
    # Without the barriers XLA fuses the computation of x into the k*k reads, and repeats it k*k
    # times.
    x = lax.optimization_barrier(x)
    return lax.optimization_barrier(sum(s * w[i, j] for i, j, s in _shifts(x, *w.shape[:2])))


def _depthwise_fwd(x, w):
    return _depthwise_cpu(x, w), (x, w)


def _depthwise_dw(x: Array, g: Array, k: int, kw: int) -> Array:
    """The weight gradient, by k * kw running sums [w, c] to which q rows of an image are added at a
    time. XLA:CPU vectorises sums of rows but not a reduction to [c], which is 4 times slower.
    """
    n, h, w, c = x.shape
    strips = -(-h // 16)
    q = -(-h // strips)
    (top, bottom), sides = lax.padtype_to_pads((h, w), (k, kw), (1, 1), "SAME")
    x = jnp.pad(x, ((0, 0), (top, bottom + strips * q - h), sides, (0, 0)))
    g = jnp.pad(g, ((0, 0), (0, strips * q - h), (0, 0), (0, 0)))
    x, g = lax.optimization_barrier((x, g))

    def strip(total, t):
        at = (t // strips, t % strips * q, 0, 0)
        xi = lax.dynamic_slice(x, at, (1, q + k - 1, w + kw - 1, c))[0]
        gi = lax.dynamic_slice(g, at, (1, q, w, c))[0]
        xi, gi = lax.optimization_barrier((xi, gi))
        parts = [
            sum(xi[i + r, j : j + w] * gi[r] for r in range(q)) for i in range(k) for j in range(kw)
        ]
        return tuple(a + b for a, b in zip(total, parts, strict=True)), None

    zeros = (jnp.zeros((w, c), x.dtype),) * (k * kw)
    total, _ = lax.scan(strip, zeros, jnp.arange(n * strips))
    return jnp.stack([t.sum(0) for t in total]).reshape(k, kw, c)


def _depthwise_bwd(saved, g):
    x, w = saved
    return _depthwise_cpu(g, jnp.flip(w, (0, 1))), _depthwise_dw(x, g, *w.shape[:2])


_depthwise_cpu.defvjp(_depthwise_fwd, _depthwise_bwd)


def depthwise(x: Float[Array, "b h w c"], w: Float[Array, "k k c"]) -> Float[Array, "b h w c"]:
    """A depthwise convolution with zero padding: each channel has its own k x k kernel, k odd.

    Raises:
      UserError: k is even.
    """
    if not (w.shape[0] % 2 and w.shape[1] % 2):
        raise UserError(f"a depthwise kernel is odd by odd, not {w.shape[0]}x{w.shape[1]}")
    w = w.astype(x.dtype)
    if form("depthwise", x) == "plain":
        return _depthwise_plain(x, w)
    # Never in bfloat16 on a CPU: the gradient would be ten times slower than in float32.
    return _depthwise_cpu(x.astype(jnp.float32), w.astype(jnp.float32)).astype(x.dtype)
