"""Adversarial losses: a GAN as a baseline, and a patch discriminator for autoencoders.

Generator and discriminator are one module, trained with one objective by the package's train step.
The loss is the sum of both losses, with a stop_gradient wherever one must not change the other's
parameters. Adam normalises each gradient separately, so no second optimiser is needed.
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import leaky_relu, softplus
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.config import plain
from aejax.nets.applied import applied
from aejax.nets.autoencoder import build_model
from aejax.nets.blocks import Conv, Dense, Downsample
from aejax.nets.f_D import ConvDecoder
from aejax.types import Aux, Batch, Cond, Config, Label, Output, Variables


class Discriminator(nn.Module):
    """A discriminator: logits of x being real.

        x -> one 3x3 convolution of stride 2 for each width -> 3x3 -> 1x1 -> [b, i, j, 1]  (patches)
                                                           -> Dense, Dense -> [b, 1]

    Attributes:
      widths: channels of the convolutions.
      patches: one logit per patch (Isola et al. 2017, arXiv 1611.07004); False: one per image.
    """

    widths: Sequence[int] = (32, 64)
    patches: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b *p 1"]:
        """Images in [0, 1] -> logits of being real."""
        u = 2.0 * x - 1.0
        for width in self.widths:
            pad = (-u.shape[1] % 2, -u.shape[2] % 2)
            u = jnp.pad(u, ((0, 0), (0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
            u = leaky_relu(Downsample(width, kernel=3)(u), 0.2)
        if self.patches:
            return Dense(1)(leaky_relu(Conv(self.widths[-1])(u), 0.2))
        return Dense(1)(leaky_relu(Dense(128)(u.reshape(u.shape[0], -1)), 0.2))


def _mean(logits):
    return jnp.mean(logits.reshape(logits.shape[0], -1), axis=1)


def discriminator_loss(real: Array, fake: Array) -> Float[Array, " b"]:
    """softplus(-D(x)) + softplus(D(y)) from logits [b, ...], mean over patches, in nats (Goodfellow
    et al. 2014, arXiv 1406.2661).

    >>> aejax.generation.adversarial.discriminator_loss(np.zeros((2, 1)), np.zeros((2, 1))).shape
    (2,)
    """
    return _mean(softplus(-real)) + _mean(softplus(fake))


def generator_loss(fake: Array) -> Float[Array, " b"]:
    """The non-saturating loss softplus(-D(y)), mean over patches, in nats (Goodfellow et al.
    2014)."""
    return _mean(softplus(-fake))


def r1(discriminate: Callable[[Array], Array], x: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """The R1 penalty |dD(x)/dx|^2 at real images, per example (Mescheder et al. 2018, arXiv
    1801.04406)."""
    grad = jax.grad(lambda x: jnp.sum(_mean(discriminate(x))))(x)
    return jnp.sum(jnp.square(grad), axis=(1, 2, 3))


def frozen(variables: Variables, part: str) -> Variables:
    """The variables, with a stop_gradient on the parameters of the submodule `part`."""
    params = dict(variables["params"])
    params[part] = jax.lax.stop_gradient(params[part])
    return {**variables, "params": params}


# The baseline -------------------------------------------------------------------------------------


class GAN(nn.Module):
    """A generator and its discriminator (Goodfellow et al. 2014, arXiv 1406.2661).

        z ~ N(0, I) [b, latent] -> generator -> y [b, h, w, c] -> discriminator -> logit [b, 1]
                                                x ------------------^

    Attributes:
      shape: (h, w, c) of the images.
      latent: number of elements of z.
      widths: channels of both networks.
    """

    shape: Sequence[int]
    latent: int = 64
    widths: Sequence[int] = (32, 64)

    def setup(self):
        self.generator = ConvDecoder(tuple(self.shape), self.widths, output_activation="sigmoid")
        self.discriminator = Discriminator(self.widths, patches=False)

    def generate(self, z: Float[Array, "b k"]) -> Float[Array, "b h w c"]:
        """Images in [0, 1]."""
        return self.generator(z)

    def discriminate(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 1"]:
        """Logits of being real."""
        return self.discriminator(x)

    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """b samples y; extra has the logits "real" of x and "fake" of y."""
        key = self.make_rng("bottleneck") if self.has_rng("bottleneck") else jax.random.key(0)
        z = jax.random.normal(key, (x.shape[0], self.latent))
        y = self.generate(z)
        extra = {"real": self.discriminate(x), "fake": self.discriminate(y)}
        return Output(z, z, y, {}, extra)

    @nn.nowrap
    def draw(
        self, variables: Variables, key: PRNGKeyArray, n: int, label: Label = None
    ) -> Float[Array, "n h w c"]:
        """n samples in [0, 1]; the label is not used."""
        z = jax.random.normal(key, (n, self.latent))
        return applied(self, variables, z, method="generate")


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """The sum of the losses of generator and discriminator, and the R1 penalty.

    Args:
      r1: weight of the penalty: 0.5 * r1 * |dD(x)/dx|^2 is added.
    """

    r1: float = 1.0

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        """Loss in nats; metrics "discriminator", "generator", "r1"; pictures: x and samples."""
        x = batch["image"]
        z = jax.random.normal(key, (x.shape[0], model.latent))
        y = applied(model, variables, z, method="generate")

        def discriminate(v, x):
            return applied(model, v, x, method="discriminate")

        penalty = r1(lambda x: discriminate(variables, x), x) if self.r1 else jnp.zeros(len(x))
        fake = discriminate(variables, jax.lax.stop_gradient(y))
        discriminator = discriminator_loss(discriminate(variables, x), fake)
        generator = generator_loss(discriminate(frozen(variables, "discriminator"), y))
        loss = discriminator + 0.5 * self.r1 * penalty + generator
        metrics = {"loss": loss, "discriminator": discriminator}
        metrics |= {"generator": generator, "r1": penalty}
        return loss, Aux(metrics, {}, {"x": x, "y": y})


# An option of autoencoders ------------------------------------------------------------------------


class AutoEncoderWithOpponent(nn.Module):
    """An autoencoder and a patch discriminator, as in VQGAN (Esser et al. 2021, arXiv 2012.09841);
    the objective is `tokenizer.Tokenize`.

        x -> autoencoder -> y -> discriminator -> logits [b, i, j, 1]
        x ---------------------------^

    Attributes:
      shape: (h, w, c) of the images.
      autoencoder: the `config.model` of the autoencoder.
      widths: channels of the discriminator.
      remat: of the autoencoder, if its own config does not ask for it.
    """

    shape: Sequence[int]
    autoencoder: Config
    widths: Sequence[int] = (32, 64)
    remat: bool = False

    def setup(self):
        config = plain(self.autoencoder)
        config["remat"] = self.remat or config.get("remat", False)
        self.ae = build_model(config, tuple(self.shape))
        self.discriminator = Discriminator(self.widths)
        self.steps = self.variable("adversarial", "steps", lambda: jnp.zeros(()))

    def encode(self, x: Float[Array, "b h w c"], cond: Cond = None) -> Float[Array, "b *s k"]:
        """As the autoencoder's."""
        return self.ae.encode(x, cond)

    def decode(self, h: Float[Array, "b *s k"], cond: Cond = None) -> Float[Array, "b h w c"]:
        """As the autoencoder's."""
        return self.ae.decode(h, cond)

    def discriminate(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j 1"]:
        """Logits of each patch being real."""
        return self.discriminator(x)

    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """The autoencoder's output."""
        if self.is_initializing():
            self.discriminator(x)
        elif train and self.is_mutable_collection("adversarial"):
            self.steps.value = self.steps.value + 1.0
        return self.ae(x, cond, train)
