"""A second look at a denoised image, with what resembles each place elsewhere in it.

BM3D lives on self-similarity: a U sees a wall of bricks once, BM3D a hundred times.
Here a first network denoises, and in its result, where patches can be compared, each pixel's patch
is compared with those of a window around it; the *noisy* image averaged with the weights that this
gives is an estimate that owes nothing to what was learned, and a small second network joins the two
(non-local means, Buades et al. 2005, with a pilot as in BM3D's second step, Dabov et al. 2007;
learned after it by N3Net, Plötz and Roth 2018, arXiv:1810.12575).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.denoising.models import Images, UNetDenoiser, mirrored
from aejax.nets import ops
from aejax.nets.blocks import Conv, ResBlock, zeros
from aejax.types import Cond, Output


def box_mean(x: Images, side: int) -> Images:
    """The mean over squares of `side` pixels (odd) around each pixel, mirrored at borders."""
    p = side // 2
    x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode="symmetric")
    h, w = x.shape[1] - 2 * p, x.shape[2] - 2 * p
    zero = jnp.zeros((), x.dtype)
    x = sum((x[:, i : i + h] for i in range(side)), zero)
    return sum((x[:, :, i : i + w] for i in range(side)), zero) / side**2


def nonlocal_means(
    x_tilde: Images, pilot: Images, radius: int, patch: int, widths: tuple[float, ...]
) -> tuple[Float[Array, "b h w k c"], Float[Array, "b h w k"]]:
    """x_tilde averaged over the pixels around whose patches in the pilot resemble the pixel's own.

    A pixel at distance d (root mean square difference of the patches) has weight (1 - d^2/t^2)^2 up
    to t and none beyond (Tukey's biweight, cheaper than the exponential); t is `widths` times the
    noise around, which is what the pilot took away. The pixel itself is left out.

    Args:
      radius: of the window, in pixels; (2 radius + 1)^2 - 1 pixels are compared.
      patch: side of the patches, odd.
      widths: k thresholds, in multiples of the noise.

    Returns:
      (averages, sums of the weights); where nothing resembles a pixel, the pilot and 0.
    """
    b, h, w, c = x_tilde.shape
    r, p, side = radius, patch // 2, 2 * radius + 1
    power = box_mean(jnp.mean(jnp.square(x_tilde - pilot), -1, keepdims=True), 17)[..., 0]
    scales = [1 / (limit**2 * power + 1e-7) for limit in widths]
    # channels first: the loop runs over rows of pixels, 5 times as fast as over 1 to 9 channels
    noisy, wide, own = (
        jnp.pad(jnp.moveaxis(v, -1, 0), ((0, 0), (0, 0), (n, n), (n, n)), mode="symmetric")
        for v, n in ((x_tilde, r), (pilot, r + p), (pilot, p))
    )

    def at(v: Array, n: Array, grown: int) -> Array:
        """v [c, b, ...] moved by the n-th shift, with `grown` pixels more on each side."""
        shape = (c, b, h + 2 * grown, w + 2 * grown)
        return jax.lax.dynamic_slice(v, (0, 0, n // side, n % side), shape)

    def add(n: Array, sums: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
        d2 = jnp.mean(jnp.square(at(wide, n, p) - own), 0)
        # the barrier keeps XLA from computing every square again for each of 25 terms
        d2 = jax.lax.optimization_barrier(sum(d2[:, i : i + h] for i in range(patch)))
        d2 = sum(d2[:, :, i : i + w] for i in range(patch)) / patch**2
        moved, other = at(noisy, n, 0), n != side**2 // 2
        weights = [jnp.square(jnp.maximum(0, 1 - d2 * scale)) * other for scale in scales]
        return [(t + v * moved, u + v) for (t, u), v in zip(sums, weights, strict=True)]

    zero = jnp.zeros((b, h, w))
    sums = [(jnp.broadcast_to(zero, (c, b, h, w)), zero) for _ in scales]
    sums = jax.lax.fori_loop(0, side**2, add, sums)
    weights = jnp.stack([u for _, u in sums], -1)
    averages = jnp.stack([jnp.moveaxis(t / (u + 1e-9), 0, -1) for t, u in sums], -2)
    share = (weights / (weights + 0.1))[..., None]  # continuous: no switch where weights vanish
    return share * averages + (1 - share) * pilot[..., None, :], weights


class SimilarDenoiser(nn.Module):
    """A U, then a refinement that also sees non-local averages of the noisy image.

        x_tilde ── first (U) ── y1 ──────────────┬───────────────────┐
           │                     └─ patches      │                   │
           └── non-local means of x_tilde ─ a_k ─┴─ residual blocks ─ + ── y

    The refinement works on pixels unshuffled by 2 and sees x_tilde - y1, a_k - y1 and the logarithm
    of how much was averaged; it starts as nothing (y = y1).

    Attributes:
      widths, blocks, told: of the first network, a `UNetDenoiser`.
      fine, depth: channels and residual blocks of the refinement.
      radius, patch, limits: of `nonlocal_means`; limits () leaves the averages out.
      frozen: the first network takes no gradient.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    blocks: tuple[int, ...] = (1, 1, 2, 1, 1)
    told: str = "never"
    fine: int = 48
    depth: int = 4
    radius: int = 7
    patch: int = 5
    limits: tuple[float, ...] = (0.08, 0.2, 0.5)
    frozen: bool = False

    def _first(self, **where: Any) -> UNetDenoiser:
        return UNetDenoiser(tuple(self.widths), tuple(self.blocks), told=self.told, **where)

    @property
    def stride(self) -> int:
        """Image sides are mirrored up to a multiple of this."""
        return self._first(parent=None).stride

    @property
    def reach(self) -> int:
        """How far, in pixels, an input can influence an output."""
        return self._first(parent=None).reach + self.radius + 8 + 2 * (2 * self.depth + 3)

    @nn.compact
    def __call__(self, x: Images, cond: Cond = None, train: bool = False) -> Output:
        c = x.shape[-1]
        padded = mirrored(x, self.stride)
        out = self._first(name="first")(padded, cond, train)
        y1 = jax.lax.stop_gradient(out.y) if self.frozen else out.y
        seen = [padded - y1]
        if self.limits:
            pilot = jax.lax.stop_gradient(y1)
            averages, weights = nonlocal_means(
                padded, pilot, self.radius, self.patch, tuple(self.limits)
            )
            differences = averages - y1[..., None, :]
            level = jnp.sqrt(jnp.mean(jnp.square(padded - pilot), (-1,), keepdims=True) + 1e-12)
            seen += [differences.reshape(*y1.shape[:3], -1), level * jnp.log1p(weights) / 4]
        u = ops.unshuffle(jnp.concatenate(seen, -1), 2)
        h = Conv(self.fine, name="head", bias_free=True)(u)
        for i in range(self.depth):
            h = ResBlock(name=f"block_{i}", bias_free=True)(h)
        y = Conv(4 * c, init=zeros, name="tail", bias_free=True)(h)
        y = (y1 + ops.shuffle(y, 2))[:, : x.shape[1], : x.shape[2]]
        return Output(out.h, out.h, y)
