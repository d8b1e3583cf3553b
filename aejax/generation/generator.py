"""Trained generators: sample, interpolate, edit, extend, inpaint.

Pictures are uint8 [n, h, w, c]. z is the standardised latent of a `LatentModel`; all functions but
`sample` need one. Results depend only on the arguments and the seed.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from aejax import weights
from aejax.config import plain
from aejax.contracts import Generative
from aejax.errors import UserError
from aejax.generation.latent import LatentModel, fit_prior
from aejax.generation.priors import FlowMatching
from aejax.loading import load
from aejax.nets.applied import Applies, applied
from aejax.registry import did_you_mean
from aejax.types import Label, Variables

Pictures = UInt8[np.ndarray, "n h w c"]


class GenerativeModel(Generative, Applies, Protocol):
    """A module that generates pictures of `shape` (h, w, c)."""

    @property
    def shape(self) -> Sequence[int]: ...


@dataclasses.dataclass(frozen=True)
class Generator:
    """A generative model with its variables.

    Attributes:
      model: fulfils `contracts.Generative` (LatentModel, HierarchicalVAE, VampAutoEncoder, GAN).
      name: for captions.
      class_names: of the labels, if known.
    """

    model: GenerativeModel
    variables: Variables
    name: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of the pictures."""
        h, w, c = self.model.shape
        return h, w, c

    @property
    def classes(self) -> int:
        """Number of classes that can be sampled; 0 = unconditional."""
        return getattr(self.model, "classes", 0)

    @functools.cached_property
    def _prior(self):
        if not isinstance(self.model, LatentModel):
            return None
        return self.model.unbound_prior()

    @functools.cached_property
    def _density(self):
        return {"params": self.variables["params"].get("density", {})}

    @functools.cached_property
    def _draw(self):
        def run(v, key, label, n, options):
            y = self.model.draw(v, key, n, label, **dict(options))
            return jnp.round(y * 255.0).astype(jnp.uint8)

        return jax.jit(run, static_argnums=(3, 4))

    @functools.cached_property
    def _decode(self):
        def run(v, z):
            h = applied(self.model, v, z, method="to_h")
            y = jnp.clip(applied(self.model, v, h, method="decode"), 0.0, 1.0)
            return jnp.round(y * 255.0).astype(jnp.uint8)

        return jax.jit(run)

    @functools.cached_property
    def _encode(self):
        return jax.jit(lambda v, x: applied(self.model, v, x / 255.0, method="to_z"))

    def _label(self, label: int | None, n: int) -> Label:
        if label is None:
            return None
        if not 0 <= label < self.classes:
            known = f"0 to {self.classes - 1}" if self.classes else "no classes"
            raise UserError(f"class {label}: this generator has {known}")
        return jnp.full(n, label)

    def _check_continuous(self, what: str) -> None:
        """Raises UserError if the model has no continuous latents."""
        if self._prior is None or self._prior.discrete:
            has = "codes" if self._prior else "no prior over latents"
            raise UserError(f"{what} needs continuous latents; this model has {has}")

    def encode(self, pictures: Pictures) -> np.ndarray:
        """Pictures [n, h, w, c] -> z [n, *s], standardised latents, or codes.

        Raises:
          UserError: pictures of another shape than the generator's.
        """
        pictures = np.asarray(pictures)
        if pictures.shape[1:] != self.shape:
            raise UserError(f"pictures of {pictures.shape[1:]}; this generator has {self.shape}")
        return np.asarray(self._encode(self.variables, pictures.astype(np.float32)))

    def decode(self, z: Float[np.ndarray, " n *s"]) -> Pictures:
        """z [n, *s] -> pictures."""
        return np.asarray(self._decode(self.variables, jnp.asarray(z)))

    def sample(
        self, n: int, seed: int = 0, label: int | None = None, batch: int = 500, **options
    ) -> Pictures:
        """n new pictures, drawn in batches.

        Args:
          label: class of all pictures; None = random classes.
          batch: pictures per call of the compiled function; it changes the result, like the seed.
          options: of the prior (guidance, steps, temperature, ...).

        Raises:
          UserError: an unknown class, or an option that the prior does not have.

        >>> from aejax.generation.generator import load_generator
        >>> load_generator("fashion-mnist").sample(2, seed=1, label=3, steps=2).shape
        (2, 28, 28, 1)
        """
        _check(n=n, batch=batch)
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{name} {value}: give a finite number")
        batch, static_options = min(batch, n), tuple(sorted(options.items()))
        key, labels, pictures = jax.random.key(seed), self._label(label, batch), []
        try:
            for i in range(-(-n // batch)):
                key_batch = jax.random.fold_in(key, i)
                y = self._draw(self.variables, key_batch, labels, batch, static_options)
                pictures.append(np.asarray(y))
        except TypeError as e:
            if "unexpected keyword" not in str(e):
                raise
            option = str(e).rpartition("'")[0].rpartition("'")[2]
            part = self._prior or self.model
            raise UserError(f'{type(part).__name__} has no "{option}"') from e
        return np.concatenate(pictures)[:n]

    def interpolate(self, a: np.ndarray, b: np.ndarray, steps: int = 10) -> Pictures:
        """`steps` pictures from a to b [h, w, c], by spherical interpolation of their z (White
        2016, arXiv 1609.04468). A straight line would pass through z of small norm, which are
        unlikely under a normal prior in many dimensions.

        Raises:
          UserError: a model without continuous latents, pictures of another shape, or steps < 1.
        """
        self._check_continuous("interpolate")
        _check(steps=steps)
        za, zb = self.encode(np.stack([a, b]))
        t = np.linspace(0.0, 1.0, steps).reshape(-1, *(1,) * za.ndim)
        na, nb = np.linalg.norm(za), np.linalg.norm(zb)
        cosine = np.clip((za * zb).sum() / max(na * nb, 1e-9), -1.0, 1.0)
        angle = np.arccos(cosine)
        if angle < 1e-3 or np.pi - angle < 1e-3:
            return self.decode((1.0 - t) * za + t * zb)
        ua, ub = za / na, zb / nb
        path = (np.sin((1.0 - t) * angle) * ua + np.sin(t * angle) * ub) / np.sin(angle)
        return self.decode(path * ((1.0 - t) * na + t * nb))

    def edit(
        self, picture: np.ndarray, count: int = 8, reach: float = 3.0, steps: int = 9
    ) -> tuple[Pictures, Int[np.ndarray, " count"]]:
        """Varies one coordinate of z at a time, for the `count` coordinates that change the picture
        most.

        Args:
          picture: [h, w, c].
          reach: a coordinate goes from -reach to +reach standard deviations.
          steps: values of each coordinate.

        Returns:
          (pictures [count * steps, h, w, c], indices of the coordinates).

        Raises:
          UserError: a model without continuous latents, or invalid arguments.
        """
        self._check_continuous("edit")
        _check(count=count, steps=steps)
        if not math.isfinite(reach):
            raise UserError(f"reach {reach}: give a finite number of standard deviations")
        z = self.encode(picture[None])
        flat, d = z.reshape(-1), z.size
        changed = self.decode((flat + 2.0 * np.eye(d)).reshape(d, *z.shape[1:]).astype(np.float32))
        effect = np.abs(changed.astype(float) - self.decode(z)).reshape(d, -1).mean(1)
        chosen = np.argsort(-effect)[:count]
        walks = np.repeat(flat[None, None], steps, axis=1).repeat(len(chosen), axis=0)
        walks[np.arange(len(chosen)), :, chosen] = np.linspace(-reach, reach, steps)
        walks = walks.reshape(-1, *z.shape[1:]).astype(np.float32)
        return self.decode(walks), chosen

    def extend(
        self,
        pictures: Pictures,
        n: int = 8,
        strength: float = 0.5,
        labels: Int[np.ndarray, " b"] | None = None,
        seed: int = 0,
        steps: int = 16,
    ) -> Pictures:
        """n variants of each picture, [b * n, h, w, c]; those of one picture are consecutive.

        With a flow prior, z is mixed with noise to the state at t = 1 - strength, and the ODE is
        solved from there to t = 1, for the picture's class if given (after SDEdit, Meng et al.
        2022, arXiv 2108.01073). With other priors, noise of `strength` standard deviations is added
        to z.

        Args:
          pictures: [b, h, w, c].
          strength: 0 = the reconstruction, 1 = a new sample of the class.
          labels: class of each picture, [b].
          steps: of the ODE solver.

        Raises:
          UserError: a model without continuous latents, or invalid arguments.
        """
        self._check_continuous("extend")
        _check(n=n, steps=steps)
        if not 0.0 <= strength <= 1.0:
            raise UserError(f"strength {strength}: give 0 (the same picture) to 1 (a new one)")
        z = np.repeat(self.encode(pictures), n, axis=0)
        label = None if labels is None or not self.classes else np.repeat(labels, n)
        noise = jax.random.normal(jax.random.key(seed), z.shape)
        prior, density = self._prior, self._density
        if not isinstance(prior, FlowMatching):
            return self.decode(z + strength * noise)
        begin, variants = 1.0 - strength, []

        @jax.jit
        def solve(z, label):
            velocity = prior.guided_velocity(density, len(z), label)

            def body(z, i):
                t, h = begin + strength * i / steps, strength / steps
                v = velocity(z, t)
                return z + 0.5 * h * (v + velocity(z + h * v, t + h)), None

            return jax.lax.scan(body, z, jnp.arange(steps, dtype=jnp.float32))[0]

        mixed = strength * noise + begin * z
        for i in range(0, len(z), 500):
            part = None if label is None else jnp.asarray(label[i : i + 500])
            variants.append(self.decode(solve(mixed[i : i + 500], part)))
        return np.concatenate(variants)

    def inpaint(
        self,
        picture: np.ndarray,
        mask: np.ndarray,
        n: int = 1,
        label: int | None = None,
        seed: int = 0,
        steps: int = 48,
        inner: int = 4,
    ) -> Pictures:
        """n pictures [n, h, w, c] in which the region where mask [h, w] is true is filled.

        At each step of the ODE solver, the predicted latent at t = 1 is moved by `inner` gradient
        steps towards one that decodes to the known pixels; the predicted noise stays the same
        (after DPS, Chung et al. 2023, arXiv 2209.14687).

        Args:
          picture: [h, w, c]; pixels outside the mask are kept.
          label: class of the pictures; None = the prior is used without a class.
          steps: of the ODE solver.

        Raises:
          UserError: another prior than flow_matching; a mask of another shape, or all true or all
            false.
        """
        prior = self._prior
        if not isinstance(prior, FlowMatching):
            raise UserError("inpaint needs a generator with a flow_matching prior")
        _check(n=n, steps=steps)
        mask = np.asarray(mask, bool)
        if mask.shape != self.shape[:2]:
            raise UserError(f"a mask of {mask.shape}; the pictures are {self.shape[:2]}")
        if mask.all() or not mask.any():
            raise UserError("the mask is all true or all false; it must be true where to fill only")
        known = jnp.asarray(~mask, jnp.float32)[..., None]
        x = jnp.asarray(picture, jnp.float32) / 255.0
        labels = self._label(label, n)

        def misfit(z):
            h = applied(self.model, self.variables, z, method="to_h")
            y = applied(self.model, self.variables, h, method="decode")
            return jnp.sum(jnp.square((y - x) * known))

        @jax.jit
        def run(noise):
            velocity = prior.guided_velocity(self._density, n, labels)

            def body(z, i):
                t, t_next = i / steps, (i + 1.0) / steps
                v = velocity(z, t)
                end, epsilon = z + (1.0 - t) * v, z - t * v  # predictions for t = 1 and t = 0

                def descend(_, end):
                    g = jax.grad(misfit)(end)
                    axes = tuple(range(1, g.ndim))
                    size = jnp.sqrt(jnp.mean(jnp.square(g), axis=axes, keepdims=True))
                    return end - 0.15 * (1.0 - 0.7 * t) * g / (size + 1e-6)

                end = jax.lax.fori_loop(0, inner, descend, end)
                return (1.0 - t_next) * epsilon + t_next * end, None

            return jax.lax.scan(body, noise, jnp.arange(steps, dtype=jnp.float32))[0]

        noise = jax.random.normal(jax.random.key(seed), (n, *prior.shape))
        filled = self.decode(run(noise))
        return np.where(mask[None, ..., None], filled, np.asarray(picture)[None])


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} = {count} is below 1")


def load_generator(
    model: str = "", workdir: str = "", prior: str = "", data_dir: str | None = None, **arguments
) -> Generator:
    """Loads a shipped generator, or that of a run.

    Args:
      model: name of shipped weights.
      workdir: folder of a run of a generative model or of a plain autoencoder.
      prior: for a plain autoencoder: "normal", or "mixture", which is fitted to the latents of its
        training set now.
      arguments: of the prior ("mixture": components).

    Raises:
      UserError: neither or both of model and workdir; no such generator; a plain autoencoder
        without `prior`, or `prior` for a model that has its own.
    """
    if bool(model) == bool(workdir):
        raise UserError("give either --model NAME or --workdir DIR")
    has_own_prior = f"{model or workdir} has its own prior; leave --prior out"
    if model:
        if prior:
            raise UserError(has_own_prior)
        return _shipped(model)
    trained = load(workdir, data_dir=data_dir)
    if isinstance(trained.model, Generative):
        if prior:
            raise UserError(has_own_prior)
        name = pathlib.Path(workdir).name
        return Generator(trained.model, trained.variables, name, trained.class_names)
    if prior not in ("normal", "mixture"):
        raise UserError(
            f"{workdir} holds an autoencoder without a prior; give --prior mixture (or normal), "
            "or train one: experiments/generate/generator.py"
        )
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source

    data = trained.config.data
    train = decoded(open_source(data.source, data.split, data_dir=data_dir))
    shape = train.source.shape
    if shape is None:
        raise UserError(f"{data.source}: its images have several sizes; a prior needs one size")
    images = np.asarray(train.data).reshape(-1, *shape)
    latent_model = LatentModel(
        shape=shape,
        autoencoder=plain(trained.config.model),
        prior={"name": prior, **arguments},
    )
    variables = {name: {"ae": tree} for name, tree in trained.variables.items()}
    name = f"{pathlib.Path(workdir).name} + {prior}"
    # pyrefly: ignore [bad-argument-type]
    return Generator(latent_model, fit_prior(latent_model, variables, images), name)


def names() -> list[str]:
    """The names of the shipped generators."""
    generators = []
    for name in weights.names():
        model = weights.metadata(name).config.get("model", {})
        if str(model.get("name", "")).endswith(":LatentModel"):
            generators.append(name)
    return generators


def _shipped(name: str) -> Generator:
    known = names()
    name = weights.ALIASES.get(name, name)
    if name not in known and "/" not in name:
        raise UserError(f'no generator "{name}"{did_you_mean(name, known)}')
    trained = load(name)
    if not isinstance(trained.model, Generative):
        raise UserError(f'"{name}" is not a generator{did_you_mean(name, known)}')
    return Generator(trained.model, trained.variables, name, trained.class_names)
