"""The functions of a trained model that can be exported, with their inputs.

    autoencoder  x -> y         the whole model; of a denoising model it is called denoiser
    f_E          x -> h_hat     the code that f_D takes, without noise
    f_D          h_hat -> y
    h, h_hat     x -> h         before and after the bottleneck: a codec's analysis transform, or
                                the features and the logits of a classifier
    sampler      key -> y       new pictures of a generator, one per key

The conditions that the model was trained with (sigma, quality, label) are further inputs after x,
in alphabetical order. Functions are traced in the plain forms of `ops`, which all platforms
support.
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
    "sigma": ("standard deviation of the noise where white is 1 (25/255 = 0.098); "
              "0: not known, a blind model estimates it", 0.0, 1.0),
    "quality": ("0 (fewest bits) to 100", 0.0, 100.0),
    "label": ("number of the class, from 0", 0.0, None),
    "key": ("two random numbers for each picture", 0.0, 2.0**32 - 1),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Input:
    """One argument of an exported function.

    Attributes:
      shape: sizes: a number if it is fixed, a text such as "b" or "8*h" if it is free.
      dtype: "float32", "int32" or "uint32".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    def describe(self) -> JsonObject:
        """Its entry in the JSON file beside an export: name, shape, dtype, meaning and range."""
        meaning, low, high = MEANINGS.get(self.name, ("a condition of the model", None, None))
        limits = {} if low is None else {"range": [low, high]}
        shape = list(self.shape)
        return {"name": self.name, "shape": shape, "dtype": self.dtype, "meaning": meaning} | limits

    def example(self, sizes: dict[str, int], seed: int = 0) -> np.ndarray:
        """Random values in its range; `sizes` has the values of b, h and w.

        Example:
          >>> Input("x", ("b", "8*h", "8*w", 3)).example({"b": 2, "h": 1, "w": 2}).shape
          (2, 8, 16, 3)
        """
        shape = [n if isinstance(n, int) else _value(n, sizes) for n in self.shape]
        rng = np.random.default_rng(seed)
        _, low, high = MEANINGS.get(self.name, ("", 0.0, 1.0))
        if self.name == "h":
            return rng.standard_normal(shape, np.float32)
        if self.dtype != "float32":
            return rng.integers(0, 1 << 31 if self.name == "key" else 1, shape).astype(self.dtype)
        return (rng.random(shape, np.float32) * ((high or 1.0) - (low or 0.0))).astype(np.float32)


def _value(size: str, sizes: dict[str, int]) -> int:
    """The number that a free size stands for: "8*h" with h = 4 is 32."""
    factor, _, name = size.rpartition("*")
    return int(factor or 1) * sizes[name]


@dataclasses.dataclass(frozen=True)
class Part:
    """One function of a model, which holds the model's variables.

    Attributes:
      name: one of NAMES.
      function: takes arrays in the order of `inputs`; in plain forms of `ops`.
      multiple: free sides of x must be multiples of this; 0 = they are fixed.
    """

    name: str
    function: Callable[..., jax.Array]
    inputs: tuple[Input, ...]
    multiple: int

    def without(self, unused: Sequence[str]) -> "Part":
        """The same part without the inputs `unused`, on which its output does not depend."""
        inputs = tuple(i for i in self.inputs if i.name not in unused)

        def function(*values):
            by_name = dict(zip((i.name for i in inputs), values, strict=True))
            placeholder = jnp.zeros(values[0].shape[:1])
            return self.function(*(by_name.get(i.name, placeholder) for i in self.inputs))

        return dataclasses.replace(self, function=function, inputs=inputs)


def stride_of(model: nn.Module) -> int:
    """The stride of a model: it takes images of any size whose sides are multiples of it; 0 = the
    model takes one size only."""
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
      size: fixed height and width of x in pixels; None = free, if the model takes any size.
      pad_inside: whether the function pads x to a multiple of the model's stride and crops its
        output, for a `size` that is no multiple; otherwise the caller has to.

    Raises:
      UserError: there is no such part, the model does not have it, or does not take that size.
    """
    whole = "denoiser" if trained.config.task == "denoise" else "autoencoder"
    name = name or whole
    if name not in NAMES:
        raise UserError(f'no part "{name}"{did_you_mean(name, NAMES)}')
    if name == "sampler":
        return _sampler(trained)
    if name in ("autoencoder", "denoiser") and name != whole:
        raise UserError(f'the whole model "{trained.name}" is a {whole}; leave out --part')
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


# What each part computes: (model bound to its variables, x or h, cond) -> array. Only what is
# returned is computed, so that a file holds no more weights than its function needs.


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
    """(height, width and channels of x; the multiple of which free sides are, or 0 if fixed)."""
    stride = stride_of(trained.model)
    channels = trained.shape[-1] if trained.shape else trained.config.data.channels or 3
    if size is None and pad_inside:
        raise UserError("--pad inside needs a fixed size, such as --size 480x640")
    if size is None:
        if stride:
            free = (n if stride == 1 else f"{stride}*{n}" for n in ("h", "w"))
            return (*free, channels), stride
        if not trained.shape:
            raise UserError(f'"{trained.name}" does not record the size of its images; give --size')
        return tuple(trained.shape), 0
    if not stride and trained.shape and tuple(size) != tuple(trained.shape[:2]):
        own = "x".join(map(str, trained.shape[:2]))
        raise UserError(f'"{trained.name}" takes only images of {own}; leave out --size')
    if stride and not pad_inside and any(n % stride for n in size):
        raise UserError(
            f"--size {size[0]}x{size[1]}: the sides must be multiples of {stride}; with --pad "
            "inside the function pads them"
        )
    return (*size, channels), 0


def _conditions(trained: Trained) -> tuple[Input, ...]:
    """The conditions that the model takes besides x, as its objective names them."""
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
    """The shape of h for images of `shape`; a spatial h has free sides if the image has."""
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
    """The sampler of a generator: each picture depends on its own key (and class) only."""
    model = trained.model
    if not isinstance(model, Generative):
        raise UserError(f'"{trained.name}" is no generator, so it has no sampler')
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
