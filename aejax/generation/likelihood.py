"""Likelihoods log p(x | z) in nats, summed over the pixels of each image.

    normal     y with a fixed sigma, or (sigma = 0) the optimal one of the batch: the sigma-VAE
    gaussian   y and a log variance per pixel, or one for all pixels: density of x in [0, 1]
    bernoulli  logits; for x in {0, 1} (x in [0, 1] is accepted, but then it is no likelihood)
    mixture    discretised logistics over 256 (`levels`) values: probability of 8-bit images

All but the first need parameters from the decoder: `LikelihoodDecoder` wraps any f_D, gives it the
output channels that the likelihood needs, and returns the parameters and the mean y.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import log_sigmoid, logsumexp, softplus
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.nets.f_D import F_D
from aejax.nets.normal import log_normal
from aejax.registry import build, lookup, parameters
from aejax.types import Cond, Output

Images = Float[Array, "b h w c"]
PerImage = Float[Array, " b"]


def _sum(v):
    return jnp.sum(v, axis=(1, 2, 3))


def normal(x: Images, y: Images, sigma: float = 0.0) -> PerImage:
    """log N(x; y, sigma^2). With sigma = 0, sigma is the maximum-likelihood value of the batch,
    with a gradient through it, so that there is no beta to tune (Rybkin et al. 2021, arXiv
    2006.13202).

    >>> x = images / np.float32(255)
    >>> aejax.generation.likelihood.normal(x, x + np.float32(0.1)).shape
    (8,)
    """
    if sigma:
        logvar = 2.0 * math.log(sigma)
    else:
        logvar = jnp.log(jnp.mean(jnp.square(x - y)) + 1e-6)
    return _sum(log_normal(x, y, logvar))


def gaussian(x: Images, y: Images, logvar: Float[Array, "..."]) -> PerImage:
    """log N(x; y, exp(logvar)), with logvar of any shape that broadcasts to x."""
    return _sum(log_normal(x, y, logvar))


def bernoulli(x: Images, logits: Images) -> PerImage:
    """x log p + (1 - x) log(1 - p) with p = sigmoid(logits), exact in the tails."""
    return _sum(x * log_sigmoid(logits) + (1.0 - x) * log_sigmoid(-logits))


def mixture_parameters(channels: int, mixtures: int) -> int:
    """Parameters per pixel of a mixture: weights, means, log scales, and coefficients between
    channels.

    >>> aejax.generation.likelihood.mixture_parameters(3, 5)
    50
    """
    return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def _mixture(params: Float[Array, "b h w p"], c: int, m: int):
    """(log weights [.., m], means, log scales [.., m, c], coefficients [.., m, c(c-1)/2])."""
    weights, means, scales, coefs = jnp.split(params, [m, m + m * c, m + 2 * m * c], axis=-1)
    shape = params.shape[:-1]
    return (
        jax.nn.log_softmax(weights, axis=-1),
        means.reshape(*shape, m, c),
        jnp.clip(scales.reshape(*shape, m, c), -7.0, 7.0),
        jnp.tanh(coefs.reshape(*shape, m, -1)),
    )


def _means_given(means, coefs, v):
    """Means of each channel given the values v [.., c] in [-1, 1] of the channels before it."""
    columns, next_coef = [], 0
    for i in range(means.shape[-1]):
        mean = means[..., i]
        for j in range(i):
            mean = mean + coefs[..., next_coef] * v[..., None, j]
            next_coef += 1
        columns.append(mean)
    return jnp.stack(columns, axis=-1)


def logistic_mixture(
    x: Images, params: Float[Array, "b h w p"], mixtures: int = 5, levels: int = 256
) -> PerImage:
    """Discretised mixture of logistics with linear dependence between channels (PixelCNN++,
    Salimans et al. 2017, arXiv 1701.05517).

    log(F(b) - F(a)) of the logistic distribution F is computed as -softplus(a) - softplus(-b) +
    log(1 - exp(a - b)), which is accurate in the tails without a lower bound.

    Args:
      x: images in [0, 1], rounded to `levels` values.
      params: p = `mixture_parameters(c, mixtures)` numbers per pixel.
    """
    v = jnp.round(x * (levels - 1)) / (levels - 1) * 2.0 - 1.0
    weights, means, scales, coefs = _mixture(params, x.shape[-1], mixtures)
    means = _means_given(means, coefs, v)
    centred, sharp = v[..., None, :] - means, jnp.exp(-scales)
    low, high = (sharp * (centred + s / (levels - 1)) for s in (-1.0, 1.0))
    width = 2.0 * sharp / (levels - 1)
    inside = -softplus(low) - softplus(-high) + jnp.log(-jnp.expm1(-width))
    first = v[..., None, :] < -1.0 + 0.5 / (levels - 1)
    last = v[..., None, :] > 1.0 - 0.5 / (levels - 1)
    log_p = jnp.where(first, log_sigmoid(high), jnp.where(last, log_sigmoid(-low), inside))
    return jnp.sum(logsumexp(weights + jnp.sum(log_p, axis=-1), axis=-1), axis=(1, 2))


class LikelihoodDecoder(nn.Module):
    """Any f_D, whose output are the parameters of a likelihood.

        h -> f_D with more output channels -> logits | y, logvar | mixture -> y, the mean

    Attributes:
      latent, shape, dtype: filled from the config, as for every f_D.
      decoder: name in F_D.
      arguments: of that decoder.
      likelihood: "bernoulli", "gaussian" (log variance per pixel), "gaussian_shared" (one learned
        log variance) or "mixture" (of `mixtures` logistics).

    Returns a dict with "y" (the mean, in [0, 1] except for "gaussian...") and "logits", "logvar" or
    "mixture".
    """

    latent: int
    shape: tuple[int, ...]
    decoder: str = "conv"
    likelihood: str = "bernoulli"
    mixtures: int = 5
    arguments: Mapping[str, object] | None = None
    dtype: DTypeLike = jnp.float32

    def setup(self):
        c = self.shape[-1]
        sizes = {
            "bernoulli": c,
            "gaussian": 2 * c,
            "gaussian_shared": c,
            "mixture": mixture_parameters(c, self.mixtures),
        }
        width = lookup(self.likelihood, sizes, "likelihood")
        cls = lookup(self.decoder, F_D, "f_D")
        filled = {"latent": self.latent, "shape": (*self.shape[:-1], width), "dtype": self.dtype}
        filled = {k: v for k, v in filled.items() if k in parameters(cls)}
        self.net = build(cls, filled | dict(self.arguments or {}), f'f_D "{self.decoder}"')
        if self.likelihood == "gaussian_shared":
            self.shared = self.param("logvar", nn.initializers.constant(-3.0), ())

    def __call__(
        self, h: Float[Array, "b *s k"], cond: Cond = None, train: bool = False
    ) -> dict[str, Array]:
        """h -> {"y": [b, h, w, c], parameters}."""
        out = self.net(h, cond, train).astype(jnp.float32)
        c = self.shape[-1]
        if self.likelihood == "bernoulli":
            return {"y": jax.nn.sigmoid(out), "logits": out}
        if self.likelihood == "gaussian_shared":
            return {"y": out, "logvar": jnp.broadcast_to(self.shared, (out.shape[0], 1, 1, 1))}
        if self.likelihood == "gaussian":  # within e^-7 .. e^1: sigma of 0.03 to 1.6
            return {"y": out[..., :c], "logvar": 4.0 * jnp.tanh(out[..., c:] / 4.0) - 3.0}
        weights, means, _, coefs = _mixture(out, c, self.mixtures)
        # the mean of each channel, conditioned on the means of the channels before it
        v = jnp.zeros(out.shape[:-1] + (c,))
        for i in range(c):
            conditional = _means_given(means, coefs, v)[..., i]
            v = v.at[..., i].set(jnp.sum(jnp.exp(weights) * conditional, axis=-1))
        return {"y": jnp.clip(v / 2.0 + 0.5, 0.0, 1.0), "mixture": out}


def log_likelihood(name: str, x: Images, out: Output, **kwargs) -> PerImage:
    """log p(x | out) in nats per image.

    Args:
      name: one of LIKELIHOODS.
      out: output of a model whose f_D gives the parameters (`LikelihoodDecoder`).
      kwargs: of the likelihood.

    Raises:
      UserError: unknown name, or a decoder that does not return this likelihood's parameters.
    """
    function, needs = lookup(name, LIKELIHOODS, "likelihood")
    if needs is None:
        return function(x, out.y, **kwargs)
    if needs not in out.extra:
        raise UserError(
            f'likelihood "{name}" needs "{needs}" from f_D; set model.f_D.name = '
            f'"aejax.generation.likelihood:LikelihoodDecoder", model.f_D.likelihood = "{name}"'
        )
    if name == "gaussian":
        return function(x, out.y, out.extra[needs])
    return function(x, out.extra[needs], **kwargs)


def log_weight(name: str, x: Images, out: Output, **kwargs) -> PerImage:
    """The log importance weight log p(x | z) + log p(z) - log q(z | x) of a sampled z, in nats per
    image (Burda et al. 2016, arXiv 1509.00519). Arguments as of `log_likelihood`.

    Raises:
      UserError: the model samples no latents; or as `log_likelihood`.
    """
    if "log_q" not in out.terms:
        raise UserError("this model samples no latents; the likelihood needs a gaussian bottleneck")
    return log_likelihood(name, x, out, **kwargs) + out.terms["log_p"] - out.terms["log_q"]


LIKELIHOODS = {
    "normal": (normal, None),
    "gaussian": (gaussian, "logvar"),
    "bernoulli": (bernoulli, "logits"),
    "mixture": (logistic_mixture, "mixture"),
}
