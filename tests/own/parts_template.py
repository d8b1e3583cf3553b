"""A user's own module with one part of every kind; tests copy it into a folder as my_package."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax.generation.priors import Prior
from aejax.objective import Autoencode
from aejax.training.run import train as usual_train


class Encoder(nn.Module):
    latent: int
    width: int = 16

    @nn.compact
    def __call__(self, x, cond, train):
        h = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        h = nn.Dropout(0.2, deterministic=not train)(h)
        if train:
            h = h + 0.01 * jax.random.normal(self.make_rng("a name of my own"), h.shape)
        return nn.Dense(self.latent)(h)


class Decoder(nn.Module):
    shape: tuple

    @nn.compact
    def __call__(self, h, cond, train):
        return nn.Dense(int(np.prod(self.shape)))(h).reshape(-1, *self.shape)


class Half(nn.Module):
    @nn.compact
    def __call__(self, h, cond, train):
        return h / 2, {"size": jnp.sum(h**2, -1)}


class NoTerms(nn.Module):
    def __call__(self, h, cond, train):
        return h


def cubic(x, y):
    return jnp.mean(jnp.abs(x - y) ** 3, (1, 2, 3))


def worst(x, y):
    return jnp.max(jnp.abs(x - y), (1, 2, 3))


def shift(key, x, by=1):
    return jnp.roll(x, by, 1)


def smaller(key, x):
    return x[:, ::2]


def needs(key, x, level):
    return level * x


def mean_of_all(x, y):
    return jnp.mean((x - y) ** 2)


def one_argument(x):
    return x


def two_arguments(a, b):
    return a


def fails(x, y):
    return x.no_such_attribute


class Pictures:
    class_names = ("a", "b", "c")

    def __init__(self, split, count="48"):
        draw = np.random.default_rng(0 if split == "train" else 1)
        self.images = draw.integers(0, 255, (int(count), 8, 8), np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"image": self.images[i], "label": i % 3}


class FloatPictures(Pictures):
    def __getitem__(self, i):
        return {"image": self.images[i] / 255}


@dataclasses.dataclass(frozen=True)
class Objective(Autoencode):
    factor: float = 1.0

    def __call__(self, model, variables, batch, key, train):
        loss, aux = super().__call__(model, variables, batch, key, train)
        return self.factor * loss, aux


class Scalar:
    def __call__(self, model, variables, batch, key, train):
        return 0.0


def momentum(learning_rate, decay):
    return optax.sgd(learning_rate, decay)


def halving(lr, steps, times):
    return lambda step: lr * 0.5 ** (times * step / steps)


class Laplace(Prior):
    exact = True

    @nn.compact
    def __call__(self, z, label, train):
        scale = jnp.exp(self.param("log_scale", nn.initializers.zeros, ()))
        return jnp.sum(jnp.abs(self.flat(z)) / scale + jnp.log(2 * scale), axis=-1)

    def draw(self, variables, key, n, label=None):
        scale = jnp.exp(variables["params"]["log_scale"])
        return scale * jax.random.laplace(key, (n, *self.shape))


def train(config, workdir, **options):
    result = usual_train(config, workdir, **options)
    result.extra["by"] = "my own train"
    return result


def finish(results, directory):
    (directory / "finished").write_text(str(len(results)))
