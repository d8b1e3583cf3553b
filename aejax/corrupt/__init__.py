"""Corruptions x -> x_tilde of clean images: noise, blur, masks, JPEG, ...

A corruption is `f(key, x, **params) -> x_tilde` on float32 images `x [b, h, w, c]` in [0, 1]: a
pure function that can be compiled and keeps the shape. The result is *not clipped* unless the
docstring says so, because clipping biases the noise, and the usual protocol of denoising does not
clip. A level (`sigma`, `peak`, `quality`, ...) is a number, a pair (low, high) from which each
example draws its own uniformly, or an array [b].

Standard deviations are given on the 0..255 scale, as usual in the literature; internally, and in
the conditions that `chain` returns, they are in the units of the image (sigma / 255).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from aejax.corrupt.cameras import camera
from aejax.corrupt.filters import blur, halved_chroma, identity, mask, quantise
from aejax.corrupt.jpegs import jpeg
from aejax.corrupt.levels import Images, Level, level
from aejax.corrupt.mixtures import shuffled
from aejax.corrupt.noises import (
    film_grain,
    gaussian,
    poisson,
    poisson_gaussian,
    salt_and_pepper,
    speckle,
)
from aejax.errors import UserError
from aejax.registry import did_you_mean, lookup, parameters

Spec = Mapping[str, Any]  # an entry of config.corrupt: {"name": "gaussian", "sigma": (0, 55)}


def one_of(key: Array, x: Images, choices: Iterable[Spec], weights: Iterable[float]) -> Images:
    """Applies one of several corruptions, chosen at random, to each image.

    Images are processed one after the other, so that only the chosen corruption is computed.

    Args:
      choices: specs as of `chain`, one corruption each.
      weights: relative probabilities.
    """
    corruptions = [chain((spec,)) for spec in choices]
    logits = jnp.log(jnp.asarray(tuple(weights), jnp.float32))
    branches = [lambda k, v, f=f: f(k, v[None])[0][0] for f in corruptions]
    key_index, key_noise = jax.random.split(key)
    index = jax.random.categorical(key_index, logits, shape=(x.shape[0],))
    keys = jax.random.split(key_noise, x.shape[0])
    return jax.lax.map(lambda a: jax.lax.switch(a[0], branches, a[1], a[2]), (index, keys, x))


def chain(
    specs: Iterable[Spec],
) -> Callable[[Array, Images], tuple[Images, dict[str, Array]]]:
    """Composes corruptions, which are applied in the given order.

    Args:
      specs: as in config.corrupt: `({"name": "blur", "sigma": 1.0}, {"name": "gaussian", "sigma":
        (0, 55)})`; a name is one of CORRUPTIONS or "package.module:function".

    Returns:
      A function (key, x) -> (x_tilde, cond). cond["sigma"] [b] is the standard deviation of all
      Gaussian noise, in the units of the image, for models that take the noise level; it is absent
      if no "gaussian" is in the specs.

    Raises:
      UserError: unknown corruption or parameter, or no name.

    >>> corrupt = chain(({"name": "gaussian", "sigma": (5, 50)}, {"name": "mask", "ratio": 0.5}))
    >>> x_tilde, cond = corrupt(jax.random.key(0), images / np.float32(255))
    >>> x_tilde.shape, sorted(cond)
    ((8, 8, 8, 1), ['sigma'])
    """
    steps = []
    for spec in specs:
        params = dict(spec.items())
        name = params.pop("name", None)
        if name is None:
            raise UserError(f'corrupt: {params} has no "name"{did_you_mean("", CORRUPTIONS)}')
        f = lookup(name, CORRUPTIONS, "corruption")
        known = parameters(f)[2:]
        for k, v in params.items():
            if k not in known:
                raise UserError(f'corruption {name} has no parameter "{k}"{did_you_mean(k, known)}')
            params[k] = tuple(v) if isinstance(v, list) else v
        steps.append((f, params))

    def corrupt(key: Array, x: Images) -> tuple[Images, dict[str, Array]]:
        variance = None
        for i, (f, params) in enumerate(steps):
            k = jax.random.fold_in(key, i)
            if f is gaussian:  # its level is drawn here, to be returned
                k, sub = jax.random.split(k)
                sigma = jnp.maximum(level(sub, params.get("sigma", 25.0), x.shape[0]), 0)
                variance = (0.0 if variance is None else variance) + (sigma / 255.0) ** 2
                x = f(k, x, **{**params, "sigma": sigma})
            else:
                x = f(k, x, **params)
        return x, {} if variance is None else {"sigma": jnp.sqrt(variance)}

    return corrupt


def first_level(name: str) -> str:
    """The name of the first parameter of a corruption, its level: "sigma", "quality", ...

    Raises:
      UserError: no such corruption, or one without parameters.
    """
    names = parameters(lookup(name, CORRUPTIONS, "corruption"))[2:]
    if not names or name == "one_of":
        raise UserError(f'corruption "{name}" has no level')
    return names[0]


CORRUPTIONS = {
    f.__name__: f
    for f in (
        identity, gaussian, poisson, poisson_gaussian, speckle, salt_and_pepper, film_grain, jpeg,
        blur, mask, quantise, halved_chroma, camera, shuffled, one_of,
    )
}  # fmt: skip

__all__ = ["CORRUPTIONS", "Images", "Level", "chain", "first_level", "level", *CORRUPTIONS]
