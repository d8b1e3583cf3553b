"""Denoising in two steps that also uses self-similarity, as BM3D does.

A first network denoises. Its result, the pilot, gives the weights of non-local means (Buades et al.
2005): each pixel's patch is compared with those in a window around it, and the *noisy* image is
averaged with these weights, as in the second step of BM3D (Dabov et al. 2007). A second, small
network combines both estimates. A learned form of this is N3Net (Plötz and Roth 2018,
arXiv:1810.12575).
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
    """The mean over a square of `side` (odd) pixels around each pixel, with mirrored borders."""
    p = side // 2
    x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode="symmetric")
    h, w = x.shape[1] - 2 * p, x.shape[2] - 2 * p
    zero = jnp.zeros((), x.dtype)
    x = sum((x[:, i : i + h] for i in range(side)), zero)
    return sum((x[:, :, i : i + w] for i in range(side)), zero) / side**2


def nonlocal_means(
    x_tilde: Images, pilot: Images, radius: int, patch: int, widths: tuple[float, ...]
) -> tuple[Float[Array, "b h w k c"], Float[Array, "b h w k"]]:
    """Non-local means of x_tilde, with weights from the patches of a pilot.

    A pixel whose patch has the RMS distance d has weight (1 - d^2 / t^2)^2 for d < t, else 0
    (Tukey's biweight, which is cheaper than the exponential). t is `widths` times the local noise
    level, estimated as the RMS of x_tilde - pilot. The pixel itself is excluded.

    Args:
      x_tilde: the noisy image.
      pilot: its denoised version.
      radius: of the search window, in pixels; (2 radius + 1)^2 - 1 pixels are compared.
      patch: side of the patches, odd.
      widths: k thresholds, in multiples of the noise level.

    Returns:
      (averages, sums of the weights); where no patch is similar, the pilot and 0.
    """
    b, h, w, c = x_tilde.shape
    r, p, side = radius, patch // 2, 2 * radius + 1
    power = box_mean(jnp.mean(jnp.square(x_tilde - pilot), -1, keepdims=True), 17)[..., 0]
    scales = [1 / (limit**2 * power + 1e-7) for limit in widths]
    # channels first: then the inner loop is over rows of pixels, 5 times as fast as over channels
    noisy, pilot_window, pilot_patch = (
        jnp.pad(jnp.moveaxis(v, -1, 0), ((0, 0), (0, 0), (n, n), (n, n)), mode="symmetric")
        for v, n in ((x_tilde, r), (pilot, r + p), (pilot, p))
    )

    def shifted(v: Array, n: Array, border: int) -> Array:
        """v [c, b, ...] moved by the n-th shift, with `border` additional pixels on each side."""
        shape = (c, b, h + 2 * border, w + 2 * border)
        return jax.lax.dynamic_slice(v, (0, 0, n // side, n % side), shape)

    def add(n: Array, sums: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
        d2 = jnp.mean(jnp.square(shifted(pilot_window, n, p) - pilot_patch), 0)
        # without the barrier XLA fuses the sums and computes each square 25 times
        d2 = jax.lax.optimization_barrier(sum(d2[:, i : i + h] for i in range(patch)))
        d2 = sum(d2[:, :, i : i + w] for i in range(patch)) / patch**2
        pixel, is_other = shifted(noisy, n, 0), n != side**2 // 2
        weights = [jnp.square(jnp.maximum(0, 1 - d2 * scale)) * is_other for scale in scales]
        return [(t + v * pixel, u + v) for (t, u), v in zip(sums, weights, strict=True)]

    zero = jnp.zeros((b, h, w))
    sums = [(jnp.broadcast_to(zero, (c, b, h, w)), zero) for _ in scales]
    sums = jax.lax.fori_loop(0, side**2, add, sums)
    weights = jnp.stack([u for _, u in sums], -1)
    averages = jnp.stack([jnp.moveaxis(t / (u + 1e-9), 0, -1) for t, u in sums], -2)
    share = (weights / (weights + 0.1))[..., None]  # continuous: no switch where weights vanish
    return share * averages + (1 - share) * pilot[..., None, :], weights


class SimilarDenoiser(nn.Module):
    """A UNetDenoiser, then a refinement that also sees non-local means of the noisy image.

        x_tilde ── first (U) ── y1 ──────────────┬───────────────────┐
           │                     └─ patches      │                   │
           └── non-local means of x_tilde ─ a_k ─┴─ residual blocks ─ + ── y

    Images are [b, H, W, c] of any size. The refinement works behind a pixel unshuffle of 2. Its
    inputs are x_tilde - y1, a_k - y1 and the logarithm of the sums of weights. At initialisation
    y = y1.

    Attributes:
      widths, blocks, told: of the first network, a `UNetDenoiser`.
      fine: channels of the refinement.
      depth: residual blocks of the refinement.
      radius, patch: of `nonlocal_means`.
      limits: `widths` of `nonlocal_means`; () leaves the averages out.
      frozen: no gradient flows to the first network.
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

    def _first(self, **kwargs: Any) -> UNetDenoiser:
        return UNetDenoiser(tuple(self.widths), tuple(self.blocks), told=self.told, **kwargs)

    @property
    def stride(self) -> int:
        """Image sides are padded to a multiple of this."""
        return self._first(parent=None).stride

    @property
    def reach(self) -> int:
        """Radius of the receptive field in pixels."""
        return self._first(parent=None).reach + self.radius + 8 + 2 * (2 * self.depth + 3)

    @nn.compact
    def __call__(self, x: Images, cond: Cond = None, train: bool = False) -> Output:
        c = x.shape[-1]
        padded = mirrored(x, self.stride)
        out = self._first(name="first")(padded, cond, train)
        y1 = jax.lax.stop_gradient(out.y) if self.frozen else out.y
        inputs = [padded - y1]
        if self.limits:
            pilot = jax.lax.stop_gradient(y1)
            averages, weights = nonlocal_means(
                padded, pilot, self.radius, self.patch, tuple(self.limits)
            )
            differences = averages - y1[..., None, :]
            level = jnp.sqrt(jnp.mean(jnp.square(padded - pilot), (-1,), keepdims=True) + 1e-12)
            inputs += [differences.reshape(*y1.shape[:3], -1), level * jnp.log1p(weights) / 4]
        u = ops.unshuffle(jnp.concatenate(inputs, -1), 2)
        h = Conv(self.fine, name="head", bias_free=True)(u)
        for i in range(self.depth):
            h = ResBlock(name=f"block_{i}", bias_free=True)(h)
        y = Conv(4 * c, init=zeros, name="tail", bias_free=True)(h)
        y = (y1 + ops.shuffle(y, 2))[:, : x.shape[1], : x.shape[2]]
        return Output(out.h, out.h, y)
