"""Matrix products: dense layers and 1x1 convolutions."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from aejax.nets.ops.choice import form

# Smallest arithmetic intensity c o / (c + o), multiplications per number read or written, for which
# dense layers use bfloat16. Below it they are memory-bound, and converting the operands makes them
# slower (16,384 rows, 12 -> 64: by a factor of two).
MIN_INTENSITY = 24


def row_major(x: Array) -> Array:
    """x, forced to a row-major layout in memory, which fast bfloat16 products on a CPU need."""
    return lax.optimization_barrier(
        with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
    )


def dot(a: Array, b: Array, bf16: bool) -> Array:
    """[m, k] x [k, n] -> float32 [m, n]; `bf16`: multiply in bfloat16."""
    if not bf16:
        return lax.dot(a, b, preferred_element_type=jnp.float32)
    a, b = row_major(a.astype(jnp.bfloat16)), row_major(b.astype(jnp.bfloat16))
    return row_major(lax.dot(a, b, preferred_element_type=jnp.float32))


def transposed_dot(a: Array, b: Array) -> Array:
    """a^T b in bfloat16, [k, m] x [k, n] -> [m, n]; transposes the narrower operand in memory."""
    if a.shape[1] <= b.shape[1]:
        return dot(a.astype(jnp.bfloat16).T, b, True)
    return dot(b.astype(jnp.bfloat16).T, a, True).T


@jax.custom_vjp
def _dense_bf16(x: Array, w: Array) -> Array:
    return dot(x, w, True).astype(x.dtype)


def _dense_fwd(x, w):
    return _dense_bf16(x, w), (x, w)


def _dense_bwd(saved, g):
    x, w = saved
    return dot(g, w.T, True).astype(x.dtype), transposed_dot(x, g).astype(w.dtype)


_dense_bf16.defvjp(_dense_fwd, _dense_bwd)


def dense(x: Float[Array, "... c"], w: Float[Array, "c o"]) -> Float[Array, "... o"]:
    """x w over the last axis: a dense layer, or a 1x1 convolution of images [b, h, w, c].

    On a CPU x is reshaped to a matrix: XLA's gradients of a product of matrices are fast in
    float32, those of a product with more axes are slower.

    >>> dense(jnp.ones((2, 4, 4, 3)), jnp.ones((3, 5))).shape
    (2, 4, 4, 5)
    """
    c, o = w.shape
    kind = form("dense", x, x.size * o if c * o >= MIN_INTENSITY * (c + o) else 0)
    w = w.astype(x.dtype)
    if kind == "plain":
        # Not jnp.matmul: it is jitted, so that quantised and float models of the same shapes would
        # share a trace, although qwix replaces products while tracing (nets/quantise.py).
        return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())))
    flat = x.reshape(-1, x.shape[-1])
    y = _dense_bf16(flat, w) if kind == "cpu_bf16" else lax.dot(flat, w)
    return y.reshape(*x.shape[:-1], w.shape[-1])
