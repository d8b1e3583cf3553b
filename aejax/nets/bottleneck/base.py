"""The identity bottleneck, and helpers of the discrete bottlenecks."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

Terms = dict[str, Float[Array, " b"]]  # named penalties, one number per example


class Identity(nn.Module):
    """h_hat = h: the deterministic autoencoder."""

    latent: int = 0

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *s k"], cond: dict | None = None, train: bool = False
    ) -> tuple[Float[Array, "b *s k"], Terms]:
        """h [b, ..., k] -> (h, no terms)."""
        return h, {}


def straight_through(value: Float[Array, "..."], through: Float[Array, "..."]):
    """The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): `value` in the forward
    pass, the gradient of `through` in the backward pass. Both have the same shape.

    >>> float(jax.grad(lambda x: straight_through(jnp.round(x), x))(0.7))
    1.0
    """
    return through + jax.lax.stop_gradient(value - through)


def perplexity(codes: Int[Array, " b *s"], size: int) -> Float[Array, " b"]:
    """exp(entropy) of the frequencies of `size` codes in the batch: the effective number of codes
    in use, from 1 to `size`. The same number for every example.

    >>> perplexity(jnp.array([[0, 1], [2, 3]]), 8).round(3).tolist()
    [4.0, 4.0]
    """
    frequency = jnp.mean(jax.nn.one_hot(codes.reshape(-1), size), axis=0)
    value = jnp.exp(-jnp.sum(frequency * jnp.log(frequency + 1e-10)))
    return jnp.full(codes.shape[0], value)


def per_example(x: Float[Array, " b *s"]) -> Float[Array, " b"]:
    """The sum over all axes but the first."""
    return jnp.sum(x.reshape(x.shape[0], -1), axis=-1)
