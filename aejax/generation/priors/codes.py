"""Priors over codes: transformers that predict codes from other codes."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PRNGKeyArray

from aejax.generation import samplers
from aejax.generation.nets import Cache, Condition, Transformer
from aejax.generation.priors.base import Prior
from aejax.nets.applied import applied
from aejax.types import Label, Variables


class CodePrior(Prior):
    """Base class of priors over codes: an embedding and a transformer.

    Attributes:
      vocabulary: number of values of a code; code `vocabulary` stands for "begin" or "masked".
      width, depth, heads: size of the transformer.
    """

    vocabulary: int = 512
    width: int = 128
    depth: int = 4
    heads: int = 4

    discrete: ClassVar[bool] = True

    def setup(self):
        self.embed = nn.Embed(self.vocabulary + 1, self.width)
        self.condition = Condition(self.width, self.classes)
        self.field = Transformer(**self.transformer)

    @property
    def transformer(self) -> dict[str, Any]:
        """Arguments of the transformer."""
        return {
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "length": self.size,
            "outputs": self.vocabulary,
        }

    @staticmethod
    def nll_of_codes(
        logits: Float[Array, "b l v"], codes: Int[Array, "b l"]
    ) -> Float[Array, "b l"]:
        """-log p of each code, in nats."""
        log_p = jax.nn.log_softmax(logits, axis=-1)
        return -jnp.take_along_axis(log_p, codes[..., None], axis=-1)[..., 0]


class Autoregressive(CodePrior):
    """Autoregressive prior: a causal transformer predicts each code from all before it (as van den
    Oord et al. 2017, arXiv 1711.00937, with a PixelCNN).

        begin, code 1, ..., code l-1 -> embedding -> causal transformer -> logits of code 1, ..., l
                                                          + label
    """

    exact: ClassVar[bool] = True

    def logits(self, codes: Int[Array, "b l"], label: Label = None) -> Float[Array, "b l v"]:
        """Logits of every code given those before it."""
        begin = jnp.full((codes.shape[0], 1), self.vocabulary)
        x = self.embed(jnp.concatenate([begin, codes[:, :-1]], axis=1))
        return self.field(x, self.condition(len(codes), None, label), causal=True)

    def step(
        self, code: Int[Array, " b"], position: Int[Array, ""], cache: Cache, label: Label = None
    ) -> tuple[Float[Array, "b v"], Cache]:
        """(logits [b, v] of the code at `position`, new cache), from the code before it and the
        cache of the others."""
        x, c = self.embed(code)[:, None], self.condition(len(code), None, label)
        out, cache = self.field.step(x, c, cache, position)
        return out[:, 0], cache

    def __call__(
        self, z: Int[Array, " b *s"], label: Label = None, train: bool = False
    ) -> Float[Array, " b"]:
        """-log p(codes) in nats."""
        codes = self.flat(z)
        logits = self.logits(codes, self.training_labels(label, train))
        return jnp.sum(self.nll_of_codes(logits, codes), axis=-1)

    @nn.nowrap
    def draw(
        self,
        variables: Variables,
        key: PRNGKeyArray,
        n: int,
        label: Label = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
    ) -> Int[Array, " n *s"]:
        """n samples, code by code; keys and values of earlier codes are cached.

        Args:
          label: classes [n]; None = random classes.
          guidance: as of `samplers.guided`; other values than 1 cost two passes per code.
          temperature: divides the logits; below 1, likely codes are preferred.
        """
        key, label = self.drawing_labels(key, n, label)
        guided = guidance != 1.0 and label is not None
        if guided:  # each sample twice: with its label, and with "any class"
            label = jnp.concatenate([label, jnp.full(n, self.classes)])
        rows = 2 * n if guided else n
        net = Transformer(**self.transformer, parent=None)

        def body(carry, position):
            code, cache, key = carry
            key, key_code = jax.random.split(key)
            doubled = jnp.concatenate([code, code]) if guided else code
            logits, cache = applied(self, variables, doubled, position, cache, label, method="step")
            if guided:
                logits = logits[n:] + guidance * (logits[:n] - logits[n:])
            code = jax.random.categorical(key_code, logits / max(temperature, 1e-4))
            return (code, cache, key), code

        start = (jnp.full(n, self.vocabulary), net.empty_cache(rows), key)
        codes = jax.lax.scan(body, start, jnp.arange(self.size))[1]
        return codes.T.reshape(n, *self.shape)


class MaskGIT(CodePrior):
    """A bidirectional transformer predicts masked codes; samples are unmasked in a few steps
    (MaskGIT, Chang et al. 2022, arXiv 2202.04200).

        partly masked codes -> embedding -> transformer -> logits of the masked codes
                                               + label

    The loss is the mean of -log p over the masked codes, times the number of codes in z. It has the
    unit of -log p(z), but is no bound of it.
    """

    def logits(self, codes: Int[Array, "b l"], label: Label = None) -> Float[Array, "b l v"]:
        """Logits of every code, given those that are not masked (code `vocabulary`)."""
        return self.field(self.embed(codes), self.condition(len(codes), None, label))

    def __call__(
        self, z: Int[Array, " b *s"], label: Label = None, train: bool = False
    ) -> Float[Array, " b"]:
        """Mean of -log p over the masked codes, times the number of codes; nats."""
        codes = self.flat(z)
        key = self.make_rng("bottleneck") if self.has_rng("bottleneck") else jax.random.key(0)
        k1, k2 = jax.random.split(key)
        ratio = jnp.cos(jnp.pi / 2.0 * jax.random.uniform(k1, (len(codes), 1)))
        u = jax.random.uniform(k2, codes.shape)
        # the lowest u of each row is always masked, so that there is at least one
        is_masked = (u < ratio) | (u == u.min(axis=1, keepdims=True))
        masked_codes = jnp.where(is_masked, self.vocabulary, codes)
        logits = self.logits(masked_codes, self.training_labels(label, train))
        nll = self.nll_of_codes(logits, codes)
        return jnp.sum(nll * is_masked, axis=-1) / jnp.sum(is_masked, axis=-1) * codes.shape[1]

    @nn.nowrap
    def draw(
        self,
        variables: Variables,
        key: PRNGKeyArray,
        n: int,
        label: Label = None,
        guidance: float = 1.0,
        steps: int = 12,
        temperature: float = 1.0,
        choice_temperature: float = 4.0,
    ) -> Int[Array, " n *s"]:
        """n samples by iterative unmasking.

        Args:
          label: classes [n]; None = random classes.
          guidance: as of `samplers.guided`.
          steps, choice_temperature: as of `samplers.unmask`.
          temperature: divides the logits; below 1, likely codes are preferred.
        """
        key, label = self.drawing_labels(key, n, label)

        def logits(codes, _, c):
            return applied(self, variables, codes, c, method="logits")

        guided = samplers.guided(logits, label, self.classes, guidance)
        codes = samplers.unmask(
            lambda codes: guided(codes, jnp.zeros(())) / max(temperature, 1e-4),
            key, n, self.size, self.vocabulary, steps, choice_temperature,
        )  # fmt: skip
        return codes.reshape(n, *self.shape)
