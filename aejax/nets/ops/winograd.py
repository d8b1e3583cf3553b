"""3x3 convolutions by Winograd's algorithm (Lavin and Gray, 2015, arXiv:1509.09308).

F(t) computes a tile of t x t outputs from (t + 2) x (t + 2) inputs d and the kernel g as

    A^T [(G g G^T) * (B^T d B)] A

where * is a matrix product over the channels at each of the (t + 2)^2 positions. F(2) needs 16
multiplications for 4 outputs instead of 36, F(4) 36 for 16 instead of 144. The weight gradient is
the transpose, G^T [sum of (B^T d B)^T (A dy A^T)] G. The results are not exact for integers,
because G has fractions, so exact codecs use `lax`.

The transforms are sums of shifted images, whose cost is small against the products from about 64
channels on. Their results are several times larger than the input, so a `lax.scan` processes a few
images at a time to bound memory; still fewer would stay in cache, but XLA:CPU would use one thread.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Matrix = Sequence[Sequence[float]]


def _matrices(points: Sequence[float], outputs: int) -> tuple[Matrix, Matrix, Matrix]:
    """B^T, G and A^T of the Cook-Toom algorithm for kernels of size 3, with the interpolation
    points `points` and infinity."""
    b, g, a = [], [], []
    polynomial = np.poly1d(points, r=True).c[::-1]
    for p in points:
        others = [q for q in points if q != p]
        b.append([*np.poly1d(others, r=True).c[::-1], 0.0])
        g.append([p**j / math.prod(p - q for q in others) for j in range(3)])
        a.append([p**i for i in range(outputs)])
    b.append(list(polynomial))
    g.append([0.0, 0.0, 1.0])
    a.append([float(i == outputs - 1) for i in range(outputs)])
    b, g, a = (tuple(tuple(round(float(v), 12) for v in r) for r in m) for m in (b, g, a))
    return b, g, _transposed(a)


def _transposed(m: Matrix) -> Matrix:
    return tuple(zip(*m, strict=True))


# These points of F(4) have a quarter of the rounding error of 0, 1, -1, 2, -2.
B_T, G, A_T = {}, {}, {}
for _t, _points in ((2, (0, 1, -1)), (4, (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)))):
    B_T[_t], G[_t], A_T[_t] = _matrices(_points, _t)
# Pixels per iteration of the scan: small images are grouped up to this number, in the convolution
# and in the weight gradient.
PIXELS, GRADIENT_PIXELS = 65536, 16384


def _times(m: Matrix, xs: Sequence[Array]) -> list[Array]:
    """The matrix-vector product m xs, where xs is a vector of arrays."""
    rows = [sum(k * x if k != 1 else x for k, x in zip(r, xs, strict=True) if k) for r in m]
    return rows  # pyrefly: ignore  no row is empty


def _both_sides(m: Matrix, xs: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """m xs m^T, where xs is a matrix of arrays."""
    down = zip(*(_times(m, column) for column in zip(*xs, strict=True)), strict=True)
    return [_times(m, row) for row in lax.optimization_barrier(list(down))]


def _strided(x: Array, axis: int, start: int, count: int, step: int) -> Array:
    return lax.slice_in_dim(x, start, start + (count - 1) * step + 1, step, axis)


def _transform(m: Matrix, x: Array, t: int, start: int, rows: int, columns: int):
    """m d m^T for all tiles d of x, at a distance of t pixels: a matrix of arrays [tiles, c]."""
    c, size = x.shape[-1], len(m[0])
    down = _times(m, [_strided(x, 1, start + i, rows, t) for i in range(size)])
    down = lax.optimization_barrier(down)
    out = [_times(m, [_strided(d, 2, start + j, columns, t) for j in range(size)]) for d in down]
    return lax.optimization_barrier([[v.reshape(-1, c) for v in row] for row in out])


def _scan_images(f: Callable, total, arrays: Sequence[Array], t: int, pixels: int):
    """A scan of f(total, images) over groups of images, of at most `pixels` pixels or one image.

    Each group is padded with one row and column of zeros at the top and left, and at the other
    sides to 2 more than a multiple of t. The padding is inside the loop because XLA:CPU writes its
    result to memory; slices alone would be repeated in every sum, as XLA:CPU ignores a barrier
    after them.
    """
    n, h, w = arrays[0].shape[:3]
    m = max(d for d in range(1, n + 1) if n % d == 0 and (d == 1 or d * h * w <= pixels))
    sides = ((0, 0), (1, 1 + -h % t), (1, 1 + -w % t), (0, 0))

    def step(total, images):
        return f(total, *(jnp.pad(x, sides) for x in images))

    if m == n:
        return step(total, arrays)
    return lax.scan(step, total, [a.reshape(n // m, m, *a.shape[1:]) for a in arrays])


def conv(
    x: Float[Array, "b h w c"], w: Float[Array, "3 3 c o"], t: int = 4
) -> Float[Array, "b h w o"]:
    """A 3x3 convolution with stride 1 and zero padding; relative float32 error about 1e-6.

    Args:
      t: side of the output tiles, 2 or 4.
    """
    n, h, wd, _ = x.shape
    o = w.shape[-1]
    kernel = _both_sides(G[t], [[w[i, j] for j in range(3)] for i in range(3)])
    kernel = lax.optimization_barrier(kernel)

    def convolve(_, x):
        m, rows, columns = x.shape[0], (x.shape[1] - 2) // t, (x.shape[2] - 2) // t
        d = _transform(B_T[t], x, t, 0, rows, columns)
        y = [list(map(lax.dot, *pair)) for pair in zip(d, kernel, strict=True)]
        y = _both_sides(A_T[t], lax.optimization_barrier(y))
        y = [[a.reshape(m, rows, columns, o) for a in row] for row in y]
        y = [jnp.stack(row, 3).reshape(m, rows, t * columns, o) for row in y]
        y = jnp.stack(y, 2).reshape(m, t * rows, t * columns, o)
        return None, y[:, :h, :wd]

    _, y = _scan_images(convolve, None, [x], t, PIXELS)
    return y.reshape(n, h, wd, o)


def weight_gradient(
    x: Float[Array, "b h w c"], g: Float[Array, "b h w o"], t: int = 4
) -> Float[Array, "3 3 c o"]:
    """The gradient of sum(conv(x, w) * g) with respect to w; relative float32 error about 2e-6."""
    c, o = x.shape[-1], g.shape[-1]
    positions = range(t + 2)

    def add_images(total, x, g):
        rows, columns = (x.shape[1] - 2) // t, (x.shape[2] - 2) // t
        d = _transform(B_T[t], x, t, 0, rows, columns)
        q = _transform(_transposed(A_T[t]), g, t, 1, rows, columns)
        over_tiles = (((0,), (0,)), ((), ()))
        new = [
            [lax.dot_general(d[a][b], q[a][b], over_tiles) for b in positions] for a in positions
        ]
        return jax.tree.map(jnp.add, total, new), None

    total = [[jnp.zeros((c, o), x.dtype) for _ in positions] for _ in positions]
    total, _ = _scan_images(add_images, total, [x, g], t, GRADIENT_PIXELS)
    return jnp.stack([jnp.stack(row) for row in _both_sides(_transposed(G[t]), total)])
