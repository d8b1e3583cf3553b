"""The functions of a trained model that can leave it, with what each takes.

    autoencoder  x -> y         the whole equation (denoiser: the same of a denoising model)
    f_E          x -> h_hat     the code that f_D takes, without noise
    f_D          h_hat -> y
    h, h_hat     x -> h         before and after the bottleneck: a codec's analysis transform, the
                                features and the logits of a classifier
    sampler      key -> y       new pictures of a generator, one per key

Conditions that the model was trained with (sigma, quality, label) follow x in the order of their
names. Everything is traced in the plain forms of `ops`, which every platform has.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax.contracts import Conditions, Decodes, Encodes, Generative, Model
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.nets import f_E, ops
from aejax.nets.applied import applied
from aejax.nets.autoencoder import AutoEncoder
from aejax.objective import build_objective
from aejax.registry import did_you_mean
from aejax.trained import Trained
from aejax.types import Cond

NAMES = ("autoencoder", "denoiser", "f_E", "f_D", "h", "h_hat", "sampler")
MEANINGS = {
    "x": ("images: float, black 0, white 1", 0.0, 1.0),
    "h": ("code: what f_E returns", None, None),
    "sigma": ("standard deviation of the noise as a share of white (25/255 = 0.098); "
              "0: the model judges by itself", 0.0, 1.0),
    "quality": ("0 (fewest bits) to 100", 0.0, 100.0),
    "label": ("the class, from 0", 0.0, None),
    "key": ("two random numbers for each picture", 0.0, 2.0**32 - 1),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Input:
    """One argument of an exported function.

    Attributes:
      shape: numbers, or sizes that are free: "b", "8*h".
      dtype: "float32", "int32" or "uint32".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    def describe(self) -> JsonObject:
        """As the sidecar holds it: name, shape, dtype, what it means and its range."""
        meaning, low, high = MEANINGS.get(self.name, ("a condition of the model", None, None))
        limits = {} if low is None else {"range": [low, high]}
        shape = list(self.shape)
        return {"name": self.name, "shape": shape, "dtype": self.dtype, "meaning": meaning} | limits

    def example(self, sizes: dict[str, int], seed: int = 0) -> np.ndarray:
        """Random numbers of its range, with b, h and w as in `sizes`."""
        shape = [n if isinstance(n, int) else _value(n, sizes) for n in self.shape]
        rng = np.random.default_rng(seed)
        _, low, high = MEANINGS.get(self.name, ("", 0.0, 1.0))
        if self.name == "h":
            return rng.standard_normal(shape, np.float32)
        if self.dtype != "float32":
            return rng.integers(0, 1 << 31 if self.name == "key" else 1, shape).astype(self.dtype)
        return (rng.random(shape, np.float32) * ((high or 1.0) - (low or 0.0))).astype(np.float32)


def _value(size: str, sizes: dict[str, int]) -> int:
    """ "8*h" with h = 4 -> 32."""
    times, _, name = size.rpartition("*")
    return int(times or 1) * sizes[name]


@dataclasses.dataclass(frozen=True)
class Part:
    """One function of a model, with its variables in it.

    Attributes:
      name: one of NAMES.
      function: of arrays in the order of `inputs`; plain forms of `ops`.
      multiple: what the sides of x are multiples of, if they are free; 0 = they are fixed.
    """

    name: str
    function: Callable[..., jax.Array]
    inputs: tuple[Input, ...]
    multiple: int

    def without(self, unused: Sequence[str]) -> "Part":
        """The same function without conditions that nothing in it depends on."""
        kept = tuple(i for i in self.inputs if i.name not in unused)

        def function(*values):
            given = dict(zip((i.name for i in kept), values, strict=True))
            some = jnp.zeros(values[0].shape[:1])
            return self.function(*(given.get(i.name, some) for i in self.inputs))

        return dataclasses.replace(self, function=function, inputs=kept)


def stride_of(model: nn.Module) -> int:
    """The multiple of whose sides a model takes pictures of any size; 0: it has one size."""
    if not isinstance(model, AutoEncoder):
        return getattr(model, "stride", 0)
    encoder = model.f_E.linear if isinstance(model.f_E, f_E.ResidualEncoder) else model.f_E
    return 0 if isinstance(encoder, f_E.ViTEncoder) else f_E.stride_of(encoder)


def part_of(
    trained: Trained, name: str = "", size: tuple[int, int] | None = None, pad_inside: bool = False
) -> Part:
    """A function of a trained model.

    Args:
      name: one of NAMES; "" = the whole model.
      size: fixed height and width of x; None = free ones where the model takes any.
      pad_inside: `size` need be no multiple of the model's stride: the function pads and cuts.

    Raises:
      UserError: no such part, the model does not have it, or it does not take that size.
    """
    whole = "denoiser" if trained.config.task == "denoise" else "autoencoder"
    name = name or whole
    if name not in NAMES:
        raise UserError(f'no part "{name}"{did_you_mean(name, NAMES)}')
    if name == "sampler":
        return _sampler(trained)
    if name in ("autoencoder", "denoiser") and name != whole:
        raise UserError(f'the whole of "{trained.name}" is called {whole}; leave --part out')
    contract = {"f_E": Encodes, "f_D": Decodes}.get(name)
    if contract and not isinstance(trained.model, contract):
        raise UserError(f'"{trained.name}" has no {name}; it has {whole}, h and h_hat')
    shape, multiple = _image_shape(trained, size, pad_inside)
    conditions = _conditions(trained)
    first = Input("x", ("b", *shape))
    if name == "f_D":
        first = Input("h", _code_shape(trained, shape, multiple))
    names = [i.name for i in conditions]
    method = METHODS[name]
    if (
        name == "autoencoder"
        and isinstance(trained.model, Encodes)
        and isinstance(trained.model, Decodes)
    ):
        method = _decoded

    def function(x, *values):
        cond = dict(zip(names, values, strict=True)) or None
        rngs = {"bottleneck": jax.random.key(0)}
        with ops.forms(all="plain"):
            return applied(trained.model, trained.variables, x, cond, rngs=rngs, method=method)

    return Part(name, function, (first, *conditions), multiple)


# Each is a method of the model, bound to its variables: (model, x or h, cond) -> array. What is not
# returned is not computed, so that a file holds no more weights than its function needs.


def _decoded(model: Any, x: jax.Array, cond: Cond) -> jax.Array:
    y = model.decode(model.encode(x, cond), cond)
    return y[:, : x.shape[1], : x.shape[2]]


def _before_bottleneck(model: Model, x: jax.Array, cond: Cond) -> jax.Array:
    encoder = getattr(model, "f_E", None)
    return model(x, cond, train=False).h if encoder is None else encoder(x, cond, False)


METHODS: dict[str, Callable[..., jax.Array]] = {
    "autoencoder": lambda model, x, cond: model(x, cond, train=False).y,
    "denoiser": lambda model, x, cond: model(x, cond, train=False).y,
    "f_E": lambda model, x, cond: model.encode(x, cond),
    "f_D": lambda model, h, cond: model.decode(h, cond),
    "h": _before_bottleneck,
    "h_hat": lambda model, x, cond: model(x, cond, train=False).h_hat,
}


def _image_shape(
    trained: Trained, size: tuple[int, int] | None, pad_inside: bool
) -> tuple[tuple[int | str, ...], int]:
    """(height, width and channels of x; the multiple of free sides or 0)."""
    stride = stride_of(trained.model)
    channels = trained.shape[-1] if trained.shape else trained.config.data.channels or 3
    if size is None and pad_inside:
        raise UserError("--pad inside is for a fixed size; give it, such as --size 480x640")
    if size is None:
        if stride:
            free = (n if stride == 1 else f"{stride}*{n}" for n in ("h", "w"))
            return (*free, channels), stride
        if not trained.shape:
            raise UserError(f'the size of the images of "{trained.name}" is not known; give --size')
        return tuple(trained.shape), 0
    if not stride and trained.shape and tuple(size) != tuple(trained.shape[:2]):
        own = "x".join(map(str, trained.shape[:2]))
        raise UserError(f'"{trained.name}" takes images of {own} alone; leave --size out')
    if stride and not pad_inside and any(n % stride for n in size):
        raise UserError(
            f"--size {size[0]}x{size[1]}: sides are multiples of {stride}, and padding is the "
            "caller's; --pad inside has the function pad"
        )
    return (*size, channels), 0


def _conditions(trained: Trained) -> tuple[Input, ...]:
    """The conditions that the model takes beside x, as its objective gives them."""
    objective = build_objective(trained.config)
    shape = trained.shape or (8, 8, trained.config.data.channels or 3)
    if not isinstance(objective, Conditions):
        return ()
    batch = {
        "image": jax.ShapeDtypeStruct((1, *shape), jnp.float32),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
    }
    cond = jax.eval_shape(
        lambda batch: objective.conditions(batch, jax.random.key(0), False), batch
    )
    return tuple(
        Input(name, ("b", *cond[name].shape[1:]), cond[name].dtype.name)
        for name in sorted(cond or ())
    )


def _code_shape(
    trained: Trained, shape: tuple[int | str, ...], multiple: int
) -> tuple[int | str, ...]:
    """The shape of h for images of `shape`; a grid of free sides if those of the image are."""
    sides = [n if isinstance(n, int) else 4 * multiple for n in shape]
    x = jax.ShapeDtypeStruct((1, *sides), jnp.float32)
    cond = {i.name: jax.ShapeDtypeStruct((1, *i.shape[1:]), i.dtype)
            for i in _conditions(trained)}  # fmt: skip
    h = jax.eval_shape(
        lambda x, cond: trained.model.apply(trained.variables, x, cond or None, method="encode"),
        x, cond,
    )  # fmt: skip
    if multiple and h.ndim == 4:
        return ("b", "h", "w", h.shape[-1])
    return ("b", *h.shape[1:])


def _sampler(trained: Trained) -> Part:
    """New pictures, each a function of its own key (and class)."""
    model = trained.model
    if not isinstance(model, Generative):
        raise UserError(f'"{trained.name}" is no generator: it has no sampler')
    classes = getattr(model, "classes", 0)

    def one(key, label=None):
        key = jax.random.wrap_key_data(key)
        label = None if label is None else label[None]
        return model.draw(trained.variables, key, 1, label)[0]

    def function(*values):
        with ops.forms(all="plain"):
            return jax.vmap(one)(*values)

    label = (Input("label", ("b",), "int32"),) if classes else ()
    return Part("sampler", function, (Input("key", ("b", 2), "uint32"), *label), 0)
