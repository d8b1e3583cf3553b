"""An autoencoder and a prior over its latents as one model, so that one weights file is a
generator.

The prior is trained on images by the package's training loop; the autoencoder is frozen and encodes
each batch inside the step. So there is no cache of latents to write or invalidate, and the prior
sees augmented images too.
"""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from aejax.config import plain
from aejax.contracts import Codes, FittedPrior
from aejax.errors import UserError
from aejax.generation.features.batches import Images, padded_batches
from aejax.generation.priors import PRIORS, Prior
from aejax.nets.applied import applied
from aejax.nets.autoencoder import build_model
from aejax.registry import build, lookup
from aejax.training.start import check_fit
from aejax.types import Cond, Config, Label, Output, Variables

Shape = tuple[int, ...]


@functools.lru_cache(16)
def _latent_shapes(config: str, shape: Shape) -> tuple[Shape, Shape | None]:
    """(shape of one example's h, shape of its codes or None if the bottleneck has none)."""
    model = build_model(json.loads(config), shape)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    key = jax.random.key(0)

    def run(x, method):
        return model.init_with_output({"params": key, "bottleneck": key}, x, method=method)[0]

    h = jax.eval_shape(functools.partial(run, method="encode"), x)
    if not isinstance(model.bottleneck, Codes):
        return h.shape[1:], None
    codes = jax.eval_shape(functools.partial(run, method=_codes_of), x)
    return h.shape[1:], codes.shape[1:]


def _codes_of(model, x):
    return model.bottleneck.codes(model.f_E(x, None, False))


class LatentModel(nn.Module):
    """A frozen autoencoder and a prior over its latents.

        training   x -> f_E -> bottleneck -> h -> z = (h - mean) / std -> prior -> loss
        sampling   prior -> z -> h = mean + std z -> f_D -> y

    For a prior over codes, z are the codes of the bottleneck; there is no mean and std.

    Attributes:
      shape: (h, w, c) of the images.
      autoencoder: the `config.model` of the autoencoder.
      prior: {"name": one of PRIORS, its arguments}.
      classes: number of classes that the prior is conditioned on; 0 = unconditional.
      statistics_steps: training steps over which mean and std of h per channel are measured; they
        are stored with the weights.
      joint: train the autoencoder too, with "kl" against this prior instead of N(0, I); the prior
        must have an exact density.

    Terms: "prior", the prior's loss; if joint, also those of the bottleneck.

    Raises:
      UserError: a prior over codes for a bottleneck without codes; joint with a prior without an
        exact density.
    """

    shape: tuple[int, ...]
    autoencoder: Config
    prior: Config
    classes: int = 0
    statistics_steps: int = 200
    joint: bool = False

    def setup(self):
        config = plain(self.autoencoder)
        self.ae = build_model(config, self.shape)
        self.density = self.make_prior()
        if not self.density.discrete:
            k = self.latent_shape[-1]
            self.mean = self.variable("latent", "mean", jnp.zeros, k)
            self.square = self.variable("latent", "square", jnp.ones, k)
            self.count = self.variable("latent", "count", jnp.zeros, ())

    @property
    def _shapes(self):
        return _latent_shapes(json.dumps(plain(self.autoencoder)), tuple(self.shape))

    @property
    def latent_shape(self) -> Shape:
        """The shape of one example's h."""
        return self._shapes[0]

    @nn.nowrap
    def make_prior(self) -> Prior:
        """The prior as a module; called in `setup` it is a submodule."""
        arguments = dict(plain(self.prior))
        cls = lookup(arguments.pop("name"), PRIORS, "prior")
        shape, codes = self._shapes
        arguments |= {"classes": self.classes, "shape": shape}
        if cls.discrete:
            if codes is None:
                raise UserError(
                    f'prior "{self.prior["name"]}" needs codes, which the bottleneck does not '
                    "have: use vq, residual_vq, fsq or lfq, or another prior"
                )
            bottleneck = build_model(plain(self.autoencoder), self.shape).clone(parent=None)
            arguments |= {"shape": codes, "vocabulary": bottleneck.bottleneck.vocabulary}
        return build(cls, arguments, f'prior "{self.prior["name"]}"')

    @nn.nowrap
    def unbound_prior(self) -> Prior:
        """The prior as an unbound module, to be used with `apply`."""
        return self.make_prior().clone(parent=None, name=None)

    @property
    def std(self) -> Float[Array, " k"]:
        """Standard deviation of h per channel, from the running statistics."""
        return jnp.sqrt(jnp.maximum(self.square.value - self.mean.value**2, 1e-8))

    def to_z(self, x: Float[Array, "b h w c"]) -> Array:
        """Images -> z: standardised h, or codes."""
        if self.density.discrete:
            return _codes_of(self.ae, x)
        return (self.ae.encode(x) - self.mean.value) / self.std

    def to_h(self, z: Array) -> Float[Array, "b *s k"]:
        """z -> h."""
        if self.density.discrete:
            return self.ae.bottleneck.lookup(z)
        return z * self.std + self.mean.value

    def encode(self, x: Float[Array, "b h w c"], cond: Cond = None) -> Float[Array, "b *s k"]:
        """h of images."""
        return self.ae.encode(x)

    def decode(self, h: Float[Array, "b *s k"], cond: Cond = None) -> Float[Array, "b h w c"]:
        """Images of h, cropped to `shape`."""
        return self.ae.decode(h)[:, : self.shape[0], : self.shape[1]]

    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """Output of h, z, the reconstruction y, and the terms. If train and not joint, y is x
        itself, which saves running the decoder."""
        label = (cond or {}).get("label")
        if self.joint:
            return self._jointly(x, label, train)
        if self.density.discrete:
            h = z = _codes_of(self.ae, x)
        else:
            h = jax.lax.stop_gradient(self.ae.encode(x))
            self._update_statistics(h, train)
            z = (h - self.mean.value) / self.std
        loss = self.density(z, label, train)
        if self.is_initializing():
            self.ae(x)  # the decoder has parameters too
        y = x if train else self.decode(self.to_h(z))
        return Output(h, z, y, {"prior": loss})

    def _jointly(self, x, label, train):
        out = self.ae(x, None, train)
        if self.density.discrete or not self.density.exact:
            raise UserError("model.kwargs.joint needs a prior with an exact density: coupling")
        nll = self.density(out.h_hat, label, train)
        terms = dict(out.terms) | {"prior": nll}
        if "log_q" in terms:
            terms |= {"kl": terms["log_q"] + nll, "log_p": -nll}
        return Output(out.h, out.h_hat, out.y, terms, out.extra)

    def _update_statistics(self, h, train):
        """Running means of h and h^2 per channel, over the first `statistics_steps` steps."""
        if not train or self.is_initializing() or not self.is_mutable_collection("latent"):
            return
        count = self.count.value
        rate = jnp.where(count < self.statistics_steps, 1.0 / (count + 1.0), 0.0)
        flat = h.reshape(-1, h.shape[-1]).astype(jnp.float32)
        for running, batch_mean in (
            (self.mean, flat.mean(0)),
            (self.square, jnp.square(flat).mean(0)),
        ):
            running.value = running.value + rate * (batch_mean - running.value)
        self.count.value = count + 1.0

    @nn.nowrap
    def draw_z(
        self, variables: Variables, key: PRNGKeyArray, n: int, label: Label = None, **options: Any
    ) -> Array:
        """n samples of the prior, z [n, *s]; options are those of its `draw` (guidance, ...)."""
        prior = self.unbound_prior()
        params = variables["params"].get("density", {})
        return prior.draw({"params": params}, key, n, label, **options)

    @nn.nowrap
    def draw(
        self,
        variables: Variables,
        key: PRNGKeyArray,
        n: int,
        label: Label = None,
        **options: Any,
    ) -> Float[Array, "n h w c"]:
        """n new images in [0, 1]; options are those of the prior's `draw`."""
        z = self.draw_z(variables, key, n, label, **options)
        h = applied(self, variables, z, method="to_h")
        return jnp.clip(applied(self, variables, h, method="decode"), 0.0, 1.0)


def latents(
    model: LatentModel, variables: Variables, images: Images, batch: int = 500
) -> np.ndarray:
    """z [n, *s] of uint8 images [n, h, w, c], computed in batches."""
    run = jax.jit(lambda v, x: model.apply(v, x.astype(jnp.float32) / 255.0, method="to_z"))
    z = [np.asarray(run(variables, x))[:count] for x, count in padded_batches(images, batch)]
    return np.concatenate(z)


def with_autoencoder(variables: Variables, trained: Variables, start: str) -> Variables:
    """The variables of a LatentModel, with those of the autoencoder replaced by `trained`.

    Args:
      start: where `trained` comes from, for the error message.

    Raises:
      UserError: `trained` is of another architecture.
    """
    current = {name: tree["ae"] for name, tree in variables.items() if "ae" in tree}
    common = {name: tree for name, tree in trained.items() if name in current}
    remedy = "model.kwargs.autoencoder must be the config.model it was trained with"
    check_fit(common, current, f"objective.kwargs.autoencoder: {start}", remedy)
    replaced = {n: {**variables.get(n, {}), "ae": tree} for n, tree in trained.items()}
    return {**variables, **jax.tree.map(jnp.asarray, replaced)}


def measure_statistics(model: LatentModel, variables: Variables, images: Images) -> Variables:
    """The variables with mean and std of h over uint8 images [n, h, w, c], for priors that are
    fitted without training."""
    if model.unbound_prior().discrete:
        return variables
    k = model.latent_shape[-1]
    identity = {"mean": jnp.zeros(k), "square": jnp.ones(k), "count": jnp.zeros(())}
    variables = dict(variables) | {"latent": identity}
    run = jax.jit(lambda v, x: model.apply(v, x.astype(jnp.float32) / 255.0, method="encode"))
    sums, squares, n = 0.0, 0.0, 0
    for i in range(0, len(images) - len(images) % 500 or len(images), 500):
        h = np.asarray(run(variables, images[i : i + 500]), np.float64)
        h = h.reshape(-1, h.shape[-1])
        sums, squares, n = sums + h.sum(0), squares + np.square(h).sum(0), n + len(h)
    statistics = {"mean": sums / n, "square": squares / n, "count": np.float64(1e6)}
    return variables | {"latent": {k: jnp.asarray(v, jnp.float32) for k, v in statistics.items()}}


def fit_prior(
    model: LatentModel,
    variables: Variables,
    images: Images,
    labels: np.ndarray | None = None,
    seed: int = 0,
) -> Variables:
    """Fits a prior without training steps.

    Args:
      images: uint8 [n, h, w, c].
      labels: class of each image, [n], for a prior with classes.
      seed: of the fit.

    Returns:
      The variables with the statistics of h over the images and, if the prior is a
      `contracts.FittedPrior`, its fitted parameters.
    """
    variables = measure_statistics(model, variables, images)
    prior = model.unbound_prior()
    if isinstance(prior, FittedPrior):
        fitted = prior.fit(latents(model, variables, images), labels, seed)["params"]
        params = dict(variables["params"]) | {"density": fitted}
        variables = dict(variables) | {"params": params}
    return variables
