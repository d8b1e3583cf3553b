"""Bottlenecks h -> h_hat: what may pass between encoder f_E and decoder f_D.

Every bottleneck is a Linen module `__call__(h, cond, train) -> (h_hat, terms)`. h is a vector
[b, k] or a map [b, i, j, k]; h_hat has the same shape. `terms` holds named per-example penalties
[b], summed over the latent (nats for "kl"), which the objective weighs; none is applied here.
Randomness comes from the stream "bottleneck", drawn only if train or if `sample` is set.
"""

from flax import linen as nn
from jaxtyping import Array, Float

Terms = dict[str, Float[Array, "b"]]


class Identity(nn.Module):
    """h_hat = h: the deterministic autoencoder."""

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h, no terms)."""
        return h, {}


BOTTLENECKS = {"identity": Identity}
