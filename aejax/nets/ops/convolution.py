"""Convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from aejax.nets.ops import winograd
from aejax.nets.ops.choice import float32_requested, form
from aejax.nets.ops.products import dense, dot, row_major

# Smallest number of pixels x input channels x output channels for which 3x3 convolutions use
# Winograd's algorithm: its compile time of one or two seconds pays off in about a thousand steps.
MIN_WINOGRAD = 1 << 24


def _conv_plain(x: Array, w: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _patches(x: Array, kh: int, kw: int, stride: int) -> Array:
    """im2col: [n, h, w, c] -> [n * h/s * w/s, kh * kw * c], materialised by a barrier."""
    n, h, w, c = x.shape
    pads = lax.padtype_to_pads((h, w), (kh, kw), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    ho, wo = -(-h // stride), -(-w // stride)
    parts = [
        lax.slice(
            x,
            (0, i, j, 0),
            (n, i + (ho - 1) * stride + 1, j + (wo - 1) * stride + 1, c),
            (1, stride, stride, 1),
        )
        for i in range(kh)
        for j in range(kw)
    ]
    return lax.optimization_barrier(jnp.concatenate(parts, -1).reshape(n * ho * wo, kh * kw * c))


def _uses_winograd(kernel: tuple[int, ...], stride: int, pixels: int) -> bool:
    """Whether a convolution with a kernel [kh, kw, c, o] is 3x3 with stride 1, and large enough."""
    kh, kw, c, o = kernel
    return stride == 1 and (kh, kw) == (3, 3) and pixels * c * o >= MIN_WINOGRAD


def _conv_dw(x: Array, g: Array, kh: int, kw: int, stride: int, bf16: bool) -> Array:
    """The weight gradient, computed for one image (or a few small ones) at a time, so that the
    patches stay in cache."""
    (n, ho, wo, o), c = g.shape, x.shape[-1]
    if bf16:
        x, g = x.astype(jnp.bfloat16), g.astype(jnp.bfloat16)
    elif _uses_winograd((kh, kw, c, o), stride, n * ho * wo):
        return winograd.weight_gradient(x, g)

    def add_images(total, images):
        x, g = images
        p = _patches(x, kh, kw, stride)
        return total + dot(row_major(g.reshape(-1, o).T), p, bf16), None

    m = max(d for d in range(1, n + 1) if n % d == 0 and (d == 1 or d * ho * wo <= 256))
    groups = (a.reshape(n // m, m, *a.shape[1:]) for a in (x, g))
    total, _ = lax.scan(add_images, jnp.zeros((o, kh * kw * c), jnp.float32), tuple(groups))
    return total.T.reshape(kh, kw, c, o)


def _conv_bf16(x: Array, w: Array, stride: int) -> Array:
    kh, kw, c, o = w.shape
    w2 = w.reshape(-1, o).astype(jnp.bfloat16)
    n, h, wd, _ = x.shape

    def convolve(xi):
        return dot(_patches(xi[None], kh, kw, stride), w2, True)

    y = lax.map(convolve, x.astype(jnp.bfloat16))
    return y.reshape(n, -(-h // stride), -(-wd // stride), o)


def _conv_f32(x: Array, w: Array, stride: int) -> Array:
    """The fastest of XLA's convolution, Winograd (from 64 channels on), and im2col (for images
    smaller than the kernel)."""
    kh, kw, c, o = w.shape
    n, h, wd, _ = x.shape
    if max(h, wd) >= max(kh, kw):
        if (
            min(c, o) >= 64
            and _uses_winograd(w.shape, stride, n * h * wd)
            and not float32_requested()
        ):
            return winograd.conv(x, w)
        return _conv_plain(x, w, stride)
    y = dot(_patches(x, kh, kw, stride), w.reshape(-1, o), False)
    return y.reshape(n, -(-h // stride), -(-wd // stride), o)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_cpu(x: Array, w: Array, stride: int, bf16: bool) -> Array:
    return (_conv_bf16 if bf16 else _conv_f32)(x, w, stride).astype(x.dtype)


def _conv_fwd(x, w, stride, bf16):
    return _conv_cpu(x, w, stride, bf16), (x, w)


def _conv_bwd(stride, bf16, saved, g):
    x, w, g = (a.astype(jnp.float32) for a in (*saved, g))
    kh, kw = w.shape[:2]
    if stride == 1 and kh % 2 and kw % 2:
        flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
        dx = (_conv_bf16 if bf16 else _conv_f32)(g, flipped, 1)
    else:
        (dx,) = jax.linear_transpose(lambda x: _conv_plain(x, w, stride), x)(g)
    dw = _conv_dw(x, g, kh, kw, stride, bf16)
    return dx.astype(saved[0].dtype), dw.astype(saved[1].dtype)


_conv_cpu.defvjp(_conv_fwd, _conv_bwd)


def conv(
    x: Float[Array, "b h w c"], w: Float[Array, "k k c o"], stride: int = 1
) -> Float[Array, "b h/s w/s o"]:
    """A convolution with zero padding ("SAME").

    Args:
      w: [kh, kw, input channels, output channels].
      stride: s; the output is [b, ceil(h/s), ceil(w/s), o].

    >>> conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), stride=2).shape
    (1, 2, 2, 5)
    """
    kind = form("conv", x)
    w = w.astype(x.dtype)
    if kind == "plain":
        return _conv_plain(x, w, stride)
    if w.shape[:2] == (1, 1):
        return dense(x[:, ::stride, ::stride], w[0, 0])
    return _conv_cpu(x, w, stride, kind == "cpu_bf16")
