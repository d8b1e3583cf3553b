"""Products of matrices: fully connected layers and 1x1 convolutions."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from aejax.nets.ops.choice import form

# Input times output channels over their sum: multiplications per number read or written. Below it
# memory is what a product waits for, and more so if converted (16,384 x 12 -> 64: twice as long).
NARROW = 24


def row_major(x: Array) -> Array:
    """x as a row-major array in memory, whatever XLA would like: bfloat16 products want that."""
    return lax.optimization_barrier(
        with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
    )


def dot(a: Array, b: Array, bf16: bool) -> Array:
    """[m, k] x [k, n] -> float32 [m, n]."""
    if not bf16:
        return lax.dot(a, b, preferred_element_type=jnp.float32)
    a, b = row_major(a.astype(jnp.bfloat16)), row_major(b.astype(jnp.bfloat16))
    return row_major(lax.dot(a, b, preferred_element_type=jnp.float32))


def transposed_dot(a: Array, b: Array) -> Array:
    """a^T b in bfloat16: [k, m] x [k, n] -> [m, n], the narrower one transposed in memory."""
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
    """x w over the last axis: a fully connected layer, or a 1x1 convolution of [b, h, w, c].

    In float32 XLA's own gradients of a product of two matrices are as fast as its products (nine
    ways to write them were timed, none was faster); those of a product of more axes are slower, so
    x is made a matrix first.
    """
    c, o = w.shape
    kind = form("dense", x, x.size * o if c * o >= NARROW * (c + o) else 0)
    w = w.astype(x.dtype)
    if kind == "plain":
        # Not jnp.matmul: it is jitted, and a trace kept for these shapes would be taken again where
        # qwix replaces lax's products (nets/quantise.py), and the other way round.
        return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())))
    flat = x.reshape(-1, x.shape[-1])
    y = _dense_bf16(flat, w) if kind == "cpu_bf16" else lax.dot(flat, w)
    return y.reshape(*x.shape[:-1], w.shape[-1])
