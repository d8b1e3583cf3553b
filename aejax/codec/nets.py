"""The lossy codec's model: g_a = f_E, the bottleneck with its entropy model, g_s = f_D."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.codec.bottleneck import EntropyModel
from aejax.codec.quality import RATES
from aejax.codec.transforms import STRIDE, Analysis, Synthesis
from aejax.errors import UserError
from aejax.nets.blocks import recomputed
from aejax.types import Cond, Output


def padded(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """x with its last row and column repeated until its sides are multiples of STRIDE."""
    pad = [(0, 0), *((0, -n % STRIDE) for n in x.shape[1:3]), (0, 0)]
    return jnp.pad(x, pad, mode="edge") if any(p for _, p in pad) else x


class Codec(nn.Module):
    """A mean-scale hyperprior with slices and checkerboard context, one model for all rates.

        x [b, H, W, 3] --g_a--> h [b, H/16, W/16, latent] --gain(q)--> y
        y --h_a--> z [b, H/32, W/32, z] --Q--> z_hat --h_s--> features [b, H/16, W/16, features]
        features, y_hat of earlier passes --ContextModel--> mu, level of the next pass
        y, mu --Q(y - mu) + mu--> y_hat --ungain(q)--> h_hat --g_s--> x_hat [b, H, W, 3]

    Q rounds to integers, which are the symbols of a file; a level selects their probability table.
    g_a: transforms.Analysis, g_s: transforms.Synthesis, the rest: bottleneck.EntropyModel. After
    Balle et al. 2018 (arXiv 1802.01436), Minnen et al. 2018 (arXiv 1809.02736), Minnen and Singh
    2020 (arXiv 2007.08739), He et al. 2021 (arXiv 2103.15306).

    x is in [0, 1], of any size; its last row and column are repeated up to multiples of 16.
    cond["quality"] [b] is 0 to 100, by default 50.

    Attributes:
      latent: channels of h.
      width: channels of g_a and g_s at 1/8 and at 1/16 of the resolution.
      encoder, decoder: blocks of g_a and of g_s at 1/8 and at 1/16.
      context: `width` of EntropyModel.
      slices, z, features, hyper, rounding, frozen, rates: see EntropyModel.
      remat: store only the inputs of g_a and g_s for the backward pass.

    Raises:
      UserError: the slices do not sum to `latent`.
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

    stride = 2 * STRIDE  # not a field: images whose sides are multiples of it need no padding

    def setup(self):
        if sum(self.slices) != self.latent:
            raise UserError(f"slices of {self.slices} channels do not add up to {self.latent}")
        f_E, f_D = (recomputed(c) if self.remat else c for c in (Analysis, Synthesis))
        self.f_E = f_E(self.latent, self.width, self.encoder, dtype=self.dtype)
        self.bottleneck = EntropyModel(
            self.latent, self.slices, self.z, self.features, self.context, self.hyper,
            self.rounding, self.frozen, self.rates,
        )  # fmt: skip
        self.f_D = f_D(self.latent, self.width, self.decoder, dtype=self.dtype)

    def __call__(self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False):
        """x -> Output with h, h_hat, y = x_hat and the terms "bits_y", "bits_z" [b]. With
        train=True, give the rng "bottleneck"."""
        cond = cond or {"quality": jnp.full(x.shape[0], 50.0)}
        h = self.f_E(padded(x), cond, train)
        h_hat, terms = self.bottleneck(h, cond, train)
        y = self.f_D(h_hat, cond, train)
        return Output(h, h_hat, y[:, : x.shape[1], : x.shape[2]], terms)

    def encode(self, x: Float[Array, "b h w c"], cond: Cond = None):
        """x -> h_hat [b, H/16, W/16, latent]."""
        cond = cond or {"quality": jnp.full(x.shape[0], 50.0)}
        return self.bottleneck(self.f_E(padded(x), cond, False), cond, False)[0]

    def decode(self, h_hat: Float[Array, "b h w k"], cond: Cond = None):
        """h_hat -> x_hat [b, 16 h, 16 w, 3], not clipped."""
        cond = cond or {"quality": jnp.full(h_hat.shape[0], 50.0)}
        return self.f_D(h_hat, cond, False)
