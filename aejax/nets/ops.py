"""Fast primitives: one name per operation, its form chosen per platform and size at trace time::

  plain    what `lax` offers: right on GPU and TPU, and the reference that the tests compare with
  cpu_f32  float32 on a CPU: own backward passes, where XLA's are 2 to 80 times too slow, and 3x3
           convolutions of many channels by fewer multiplications (rounded: not if exact)
  cpu_bf16 bfloat16 products with float32 sums on a CPU that has instructions for them (AVX-512
           BF16: twice as fast as float32; Intel AMX: three to five times)

`cpu_bf16` is taken only where `aejax.machine.speed` measured a gain that is worth it. Under
`jax.default_matmul_precision("highest")` (as on a TPU, that is how to ask for float32 products) it
never is, and forward convolutions of whole numbers below 2^24 are exact; dense always are.
`with ops.forms(conv="plain")` overrides single operations, `ops.forms(all="plain")` all of them.
Forms with gradients of their own know reverse mode, of any order; `jax.jvp` needs "plain".
Images are [b, h, w, c]. What is slow on a CPU, and how slow, is in docs/fast-on-a-cpu.md.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.machine import speed
from aejax.nets import target, winograd

FORMS = ("plain", "cpu_f32", "cpu_bf16")
OPERATIONS = ("dense", "conv", "depthwise", "channel_sum")
# How much faster than float32 a CPU's bfloat16 products must be before an operation takes them:
# convolutions in float32 have Winograd's algorithm, which needs up to four times fewer products.
GAIN = {"dense": 1.3, "conv": 2.5}
# Multiplications below which a product is over before conversion to bfloat16 has paid.
FEW = 1 << 20
# Input times output channels over their sum: multiplications per number read or written. Below it
# memory is what a product waits for, and more so if converted (16,384 x 12 -> 64: twice as long).
NARROW = 24
# Pixels x channels x channels below which a 3x3 convolution is not worth Winograd's compile time,
# one or two seconds each: from here on that is earned back within about a thousand steps.
WORTH = 1 << 24

# A user context is part of jit's cache key: leaving `forms` retraces, rather than keeps, a form.
_overrides = jax.make_user_context(())


def _checked(override: dict[str, str]) -> dict[str, str]:
    out = {}
    for name, form in override.items():
        if name not in (*OPERATIONS, "all"):
            raise UserError(f'no operation "{name}" in ops; known: {", ".join(OPERATIONS)}, all')
        if form not in (*FORMS, "auto"):
            raise UserError(f'no form "{form}" of ops.{name}; known: {", ".join(FORMS)}, auto')
        out.update(dict.fromkeys(OPERATIONS, form) if name == "all" else {name: form})
    return out


@contextlib.contextmanager
def forms(**override: str) -> Iterator[None]:
    """Within it, `forms(conv="plain")` fixes an operation's form, `forms(all=...)` every one's.

    Raises:
      UserError: unknown operation or form.
    """
    merged = {**dict(_overrides.value), **_checked(override)}
    with _overrides(tuple(sorted(merged.items()))):
        yield


def traced_with(override: Mapping[str, str], function: Callable) -> Callable:
    """`function`, traced within `forms(**override)` wherever it is compiled.

    Raises:
      UserError: unknown operation or form.
    """
    override = _checked(dict(override))

    @wraps(function)
    def run(*args, **kwargs):
        with forms(**override):
            return function(*args, **kwargs)

    return run


def _exact() -> bool:
    return jax.config.jax_default_matmul_precision in ("highest", "float32", "F32_F32_F32")


def form(operation: str, x: Array | None = None, multiplications: float = float("inf")) -> str:
    """The form that `operation` takes for x here and now: plain, cpu_f32 or cpu_bf16."""
    asked = dict(_overrides.value).get(operation, "auto")
    if asked != "auto":
        return asked
    if target.platform() != "cpu":
        return "plain"
    if x is not None:
        # A loop over the batch is refused where the batch is sharded over an explicit mesh.
        if x.dtype not in (jnp.float32, jnp.bfloat16) or any(jax.typeof(x).sharding.spec):
            return "plain"
    gain = GAIN.get(operation)
    if gain and multiplications >= FEW and not _exact() and speed.bf16_gain() >= gain:
        return "cpu_bf16"
    return "cpu_f32"


# ---- products -----------------------------------------------------------------------------------


def _row_major(x: Array) -> Array:
    """x as a row-major array in memory, whatever XLA would like: bfloat16 products want that."""
    return lax.optimization_barrier(
        with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
    )


def _dot(a: Array, b: Array, bf16: bool) -> Array:
    """[m, k] x [k, n] -> float32 [m, n]."""
    if not bf16:
        return lax.dot(a, b, preferred_element_type=jnp.float32)
    a, b = _row_major(a.astype(jnp.bfloat16)), _row_major(b.astype(jnp.bfloat16))
    return _row_major(lax.dot(a, b, preferred_element_type=jnp.float32))


def _t_dot(a: Array, b: Array) -> Array:
    """a^T b in bfloat16: [k, m] x [k, n] -> [m, n], the narrower one transposed in memory."""
    if a.shape[1] <= b.shape[1]:
        return _dot(a.astype(jnp.bfloat16).T, b, True)
    return _dot(b.astype(jnp.bfloat16).T, a, True).T


# ---- dense --------------------------------------------------------------------------------------


@jax.custom_vjp
def _dense_bf16(x: Array, w: Array) -> Array:
    return _dot(x, w, True).astype(x.dtype)


def _dense_fwd(x, w):
    return _dense_bf16(x, w), (x, w)


def _dense_bwd(saved, g):
    x, w = saved
    return _dot(g, w.T, True).astype(x.dtype), _t_dot(x, g).astype(w.dtype)


_dense_bf16.defvjp(_dense_fwd, _dense_bwd)


def dense(x: Float[Array, "... c"], w: Float[Array, "c o"]) -> Float[Array, "... o"]:
    """x w over the last axis: a fully connected layer, or a 1x1 convolution of [b, h, w, c].

    In float32 XLA's own gradients of a product of two matrices stand at what its products reach
    (nine ways to write them were timed, none was faster); those of a product of more axes do not.
    """
    c, o = w.shape
    kind = form("dense", x, x.size * o if c * o >= NARROW * (c + o) else 0)
    w = w.astype(x.dtype)
    if kind == "plain":
        return jnp.matmul(x, w)
    flat = x.reshape(-1, x.shape[-1])
    y = _dense_bf16(flat, w) if kind == "cpu_bf16" else lax.dot(flat, w)
    return y.reshape(*x.shape[:-1], w.shape[-1])


# ---- convolution --------------------------------------------------------------------------------


def _conv_plain(x: Array, w: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _patches(x: Array, kh: int, kw: int, stride: int) -> Array:
    """[n, h, w, c] -> [n * h/s * w/s, kh * kw * c], in memory (the barrier): im2col."""
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


def _is_worth(kernel: tuple[int, int, int, int], stride: int, pixels: int) -> bool:
    """Whether Winograd's algorithm does this convolution and is worth its compile time."""
    kh, kw, c, o = kernel
    return stride == 1 and (kh, kw) == (3, 3) and pixels * c * o >= WORTH


def _conv_dw(x: Array, g: Array, kh: int, kw: int, stride: int, bf16: bool) -> Array:
    """The weight gradient, an image (small ones: a few) at a time: its patches stay in cache."""
    (n, ho, wo, o), c = g.shape, x.shape[-1]
    if bf16:
        x, g = x.astype(jnp.bfloat16), g.astype(jnp.bfloat16)
    elif _is_worth((kh, kw, c, o), stride, n * ho * wo):
        return winograd.weight_gradient(x, g)

    def few(total, xg):
        x, g = xg
        p = _patches(x, kh, kw, stride)
        return total + _dot(_row_major(g.reshape(-1, o).T), p, bf16), None

    m = max(d for d in range(1, n + 1) if n % d == 0 and (d == 1 or d * ho * wo <= 256))
    groups = (a.reshape(n // m, m, *a.shape[1:]) for a in (x, g))
    total, _ = lax.scan(few, jnp.zeros((o, kh * kw * c), jnp.float32), tuple(groups))
    return total.T.reshape(kh, kw, c, o)


def _conv_bf16(x: Array, w: Array, stride: int) -> Array:
    kh, kw, c, o = w.shape
    w2 = w.reshape(-1, o).astype(jnp.bfloat16)
    n, h, wd, _ = x.shape

    def one(xi):
        return _dot(_patches(xi[None], kh, kw, stride), w2, True)

    y = lax.map(one, x.astype(jnp.bfloat16))
    return y.reshape(n, -(-h // stride), -(-wd // stride), o)


def _conv_f32(x: Array, w: Array, stride: int) -> Array:
    """XLA's own where that is fast: not from 64 channels on, not on pictures below the kernel's."""
    kh, kw, c, o = w.shape
    n, h, wd, _ = x.shape
    if max(h, wd) >= max(kh, kw):
        if min(c, o) >= 64 and _is_worth(w.shape, stride, n * h * wd) and not _exact():
            return winograd.conv(x, w)
        return _conv_plain(x, w, stride)
    y = _dot(_patches(x, kh, kw, stride), w.reshape(-1, o), False)
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
    """Convolution, zeros around the picture ("SAME"): out[i, j] covers x[s*i, s*j]."""
    kind = form("conv", x)
    w = w.astype(x.dtype)
    if kind == "plain":
        return _conv_plain(x, w, stride)
    if w.shape[:2] == (1, 1):
        return dense(x[:, ::stride, ::stride], w[0, 0])
    return _conv_cpu(x, w, stride, kind == "cpu_bf16")


# ---- depthwise convolution ----------------------------------------------------------------------


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
    """(i, j, x moved by (i, j)) for each position of the kernel; x [..., h, w, c]."""
    h, w = x.shape[-3:-1]
    pads = lax.padtype_to_pads((h, w), (k, kw), (1, 1), "SAME")
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*pads, (0, 0)])
    for i in range(k):
        for j in range(kw):
            yield i, j, x[..., i : i + h, j : j + w, :]


@jax.custom_vjp
def _depthwise_cpu(x: Array, w: Array) -> Array:
    # Without the barriers XLA fuses what made x into all k*k reads and computes it k*k times.
    x = lax.optimization_barrier(x)
    return lax.optimization_barrier(sum(s * w[i, j] for i, j, s in _shifts(x, *w.shape[:2])))


def _depthwise_fwd(x, w):
    return _depthwise_cpu(x, w), (x, w)


def _depthwise_dw(x: Array, g: Array, k: int, kw: int) -> Array:
    """The weight gradient: k * kw running sums [w, c], fed with q rows of an image at a time.

    A reduction straight to [c] is not vectorised by XLA:CPU; sums of whole rows are (4 times).
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
    """Each channel convolved with its own k x k kernel (k odd), zeros around the picture."""
    if not (w.shape[0] % 2 and w.shape[1] % 2):
        raise UserError(f"a depthwise kernel is odd by odd, not {w.shape[0]}x{w.shape[1]}")
    w = w.astype(x.dtype)
    if form("depthwise", x) == "plain":
        return _depthwise_plain(x, w)
    # Never in bfloat16 on a CPU: the gradient would be ten times slower than in float32.
    return _depthwise_cpu(x.astype(jnp.float32), w.astype(jnp.float32)).astype(x.dtype)


# ---- pixels <-> channels ------------------------------------------------------------------------


def unshuffle(x: Float[Array, "b h w c"], r: int) -> Float[Array, "b h/r w/r r*r*c"]:
    """Each r x r square of pixels becomes one pixel of r*r*c channels (space to depth)."""
    b, h, w, c = x.shape
    if h % r or w % r:
        raise UserError(f"a picture of {h}x{w} does not divide into {r}x{r} squares; pad it first")
    x = x.reshape(b, h // r, r, w // r, r, c).swapaxes(2, 3)
    return x.reshape(b, h // r, w // r, r * r * c)


def shuffle(x: Float[Array, "b h w r*r*c"], r: int) -> Float[Array, "b h*r w*r c"]:
    """The inverse of `unshuffle` (depth to space; Shi et al., 2016, arXiv:1609.05158)."""
    b, h, w, c = x.shape
    if c % (r * r):
        raise UserError(f"{c} channels do not make {r}x{r} squares of pixels")
    x = x.reshape(b, h, w, r, r, c // (r * r)).swapaxes(2, 3)
    return x.reshape(b, h * r, w * r, c // (r * r))


# ---- per channel --------------------------------------------------------------------------------


def _sum_plain(x: Array) -> Array:
    return x.sum(tuple(range(x.ndim - 1)))


def _sum_cpu(x: Array) -> Array:
    # XLA:CPU gives a reduction to c values one thread: sum each image first, in parallel.
    if x.ndim < 3:
        return _sum_plain(x)
    return lax.optimization_barrier(x.sum(tuple(range(1, x.ndim - 1)))).sum(0)


def channel_sum(x: Float[Array, "b ... c"]) -> Float[Array, " c"]:
    """The sum of each channel over the batch and all positions."""
    return (_sum_plain if form("channel_sum", x) == "plain" else _sum_cpu)(x)


@jax.custom_vjp
def _bias_cpu(x: Array, b: Array) -> Array:
    return x + b


def _bias_fwd(x, b):
    return x + b, None


def _bias_bwd(_, g):
    return g, _sum_cpu(g)


_bias_cpu.defvjp(_bias_fwd, _bias_bwd)


def add_bias(x: Float[Array, "b ... c"], b: Float[Array, " c"]) -> Float[Array, "b ... c"]:
    """x + b with the gradient of b by `channel_sum`."""
    b = b.astype(x.dtype)
    return x + b if form("channel_sum", x) == "plain" else _bias_cpu(x, b)


@jax.custom_vjp
def _scale_cpu(x: Array, s: Array) -> Array:
    return x * s


def _scale_fwd(x, s):
    return x * s, (x, s)


def _scale_bwd(saved, g):
    x, s = saved
    return g * s, _sum_cpu(g * x)


_scale_cpu.defvjp(_scale_fwd, _scale_bwd)


def channel_norm(
    x: Float[Array, "b ... c"], scale: Float[Array, " c"] | None = None, eps: float = 1e-6
) -> Float[Array, "b ... c"]:
    """Each pixel's channels divided by their root mean square, times `scale` if given.

    RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467): no mean is taken off, which a 1x1
    convolution after it can learn. Before a dense layer `scale` too is of no use. The gradient is
    XLA's: those written by hand were slower inside a block.
    """
    x32 = x.astype(jnp.float32)
    y = x32 * lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + eps)
    if scale is not None:
        plain = form("channel_sum", x) == "plain"
        y = y * scale if plain else _scale_cpu(y, scale.astype(jnp.float32))
    return y.astype(x.dtype)
