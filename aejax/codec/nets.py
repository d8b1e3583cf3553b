"""The model of the codec: g_a = f_E, the bottleneck with its entropy model, g_s = f_D."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.codec.bottleneck import Entropy
from aejax.codec.quality import RATES
from aejax.codec.transforms import STRIDE, Analysis, Synthesis
from aejax.errors import UserError
from aejax.nets.blocks import recomputed
from aejax.types import Cond, Output


def whole(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """x with its last row and column repeated up to whole strides."""
    pad = [(0, 0), *((0, -n % STRIDE) for n in x.shape[1:3]), (0, 0)]
    return jnp.pad(x, pad, mode="edge") if any(p for _, p in pad) else x


class Codec(nn.Module):
    """The whole model, with the methods of an AutoEncoder.

        x [b, H, W, 3] --g_a--> h [b, H/16, W/16, latent] --gain--> y --round(y - mu) + mu--> y_hat
        y --h_a--> z [b, H/32, W/32, z] --round--> z_hat --h_s--> features
        features, y_hat of earlier slices and of the other colour of the chequerboard --> mu, level
        y_hat --1/gain--> h_hat --g_s--> x_hat [b, H, W, 3]

    x is in [0, 1], of any size: its last row and column are repeated up to whole strides of 16.
    cond["quality"] [b] is 0 to 100; without it, 50.

    Attributes:
      latent: channels of h.
      width: channels at 1/8 and 1/16. encoder, decoder: blocks at each of the two.
      slices, z, features, context, hyper, rounding, frozen: see Entropy (context: its `width`).
      rates: lambda at quality 0 and at quality 100.
      remat: keep only the inputs of g_a and g_s for the backward pass.
    """

    latent: int = 320
    width: Sequence[int] = (192, 256)
    encoder: Sequence[int] = (5, 3)
    decoder: Sequence[int] = (3, 2)
    slices: Sequence[int] = (32, 64, 96, 128)
    z: int = 16
    features: int = 128
    context: int = 192
    hyper: str = "context"
    rounding: str = "straight-through"
    frozen: bool = False
    rates: Sequence[float] = RATES
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    stride = 2 * STRIDE  # not a field: sides that are multiples of it are padded nowhere

    def setup(self):
        if sum(self.slices) != self.latent:
            raise UserError(f"slices of {self.slices} channels do not add up to {self.latent}")
        f_E, f_D = (recomputed(c) if self.remat else c for c in (Analysis, Synthesis))
        self.f_E = f_E(self.latent, self.width, self.encoder, dtype=self.dtype)
        self.bottleneck = Entropy(
            self.latent, self.slices, self.z, self.features, self.context, self.hyper,
            self.rounding, self.frozen, self.rates,
        )  # fmt: skip
        self.f_D = f_D(self.latent, self.width, self.decoder, dtype=self.dtype)

    def __call__(self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False):
        """x -> Output: h, h_hat, y and the terms "bits_y", "bits_z" [b]."""
        cond = cond or {"quality": jnp.full(x.shape[0], 50.0)}
        h = self.f_E(whole(x), cond, train)
        h_hat, terms = self.bottleneck(h, cond, train)
        y = self.f_D(h_hat, cond, train)
        return Output(h, h_hat, y[:, : x.shape[1], : x.shape[2]], terms)

    def encode(self, x: Float[Array, "b h w c"], cond: Cond = None):
        """x -> h_hat [b, H/16, W/16, latent]."""
        cond = cond or {"quality": jnp.full(x.shape[0], 50.0)}
        return self.bottleneck(self.f_E(whole(x), cond, False), cond, False)[0]

    def decode(self, h_hat: Float[Array, "b h w k"], cond: Cond = None):
        """h_hat -> x_hat [b, 16 h, 16 w, 3], not clipped."""
        cond = cond or {"quality": jnp.full(h_hat.shape[0], 50.0)}
        return self.f_D(h_hat, cond, False)
