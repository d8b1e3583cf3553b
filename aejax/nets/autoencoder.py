"""The autoencoder y = f_D(bottleneck(f_E(x))), and building it from a config."""

import dataclasses
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from aejax.contracts import check_result
from aejax.errors import UserError
from aejax.nets.blocks import recomputed
from aejax.nets.bottleneck import BOTTLENECKS
from aejax.nets.f_D import F_D, LinearDecoder, ResidualDecoder
from aejax.nets.f_E import F_E, LinearEncoder, ResidualEncoder, stride_of
from aejax.nets.quantise import quantised
from aejax.registry import build, lookup
from aejax.types import Cond, Config, Output


class AutoEncoder(nn.Module):
    """Encoder, bottleneck and decoder.

                   ┌─────┐       ┌────────────┐           ┌─────┐
        x ────────►│ f_E ├──►h──►│ bottleneck ├──►h_hat──►│ f_D ├──►y
        [b,H,W,c]  └─────┘       └─────┬──────┘           └─────┘   [b,H,W,c]
                                       └──►terms {name: [b]}

    h is a vector [b, k] or a map [b, H/s, W/s, k] with stride s. If H or W is not a multiple of s,
    the output of f_D is larger than x and is cropped at the bottom and right.

    >>> from aejax.config import base
    >>> model = build_model(base().model, (8, 8, 1))
    >>> out, _ = model.init_with_output(jax.random.key(0), images / 255)
    >>> out.h.shape, out.y.shape
    ((8, 16), (8, 8, 8, 1))
    """

    f_E: nn.Module
    bottleneck: nn.Module
    f_D: nn.Module

    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """x -> Output. Bottlenecks that draw random numbers (with train=True or `sample`) need the
        rng "bottleneck".

        Args:
          x: in [0, 1].
          cond: inputs per example beside x, such as {"sigma": [b]}; None = none.
          train: whether dropout and noise are on and running statistics are updated.

        Raises:
          UserError: a part returns a wrong shape or type.
        """
        h = self.f_E(x, cond, train)
        is_code = hasattr(h, "shape") and h.ndim > 1 and h.shape[0] == x.shape[0]
        check_result(is_code, "f_E", self.f_E, h, x)
        result = self.bottleneck(h, cond, train)
        is_pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        check_result(is_pair, "bottleneck", self.bottleneck, result, h)
        h_hat, terms = result
        y = self.f_D(h_hat, cond, train)
        extra = {}
        if isinstance(y, dict):
            extra = {name: v for name, v in y.items() if name != "y"}
            y = y["y"]
        is_image = hasattr(y, "shape") and y.ndim == 4 and y.shape[::3] == x.shape[::3]
        is_image = is_image and y.shape[1] >= x.shape[1] and y.shape[2] >= x.shape[2]
        check_result(is_image, "f_D", self.f_D, y, x)
        return Output(h, h_hat, y[:, : x.shape[1], : x.shape[2]], terms, extra)

    def encode(self, x: Float[Array, "b h w c"], cond: Cond = None) -> Float[Array, "b *h k"]:
        """h_hat of x with train=False: the code that `decode` takes."""
        return self.bottleneck(self.f_E(x, cond, False), cond, False)[0]

    def decode(self, h: Float[Array, "b *h k"], cond: Cond = None) -> Float[Array, "b h w c"]:
        """The image of a code h_hat, not cropped to the size of an x."""
        y = self.f_D(h, cond, False)
        return y["y"] if isinstance(y, dict) else y


def build_model(config: Config, shape: Sequence[int]) -> nn.Module:
    """Builds the model of a config for images of `shape` (h, w, c).

    Args:
      config: `model` of a run's config, as ConfigDict or dict.

    Raises:
      UserError: an unknown part or argument, or an invalid size.
    """
    return quantised(_float_model(config, shape), config.get("quantise") or {})


def _float_model(config: Config, shape: Sequence[int]) -> nn.Module:
    if min(shape) < 1:
        raise UserError(f"images of {'x'.join(map(str, shape))} have no pixels")
    latent = config["latent"]
    if not isinstance(latent, int) or latent < 1:
        raise UserError(f"model.latent = {latent!r}: the size of h is a whole number from 1")
    dtype = config["dtype"]
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f'model.dtype = "{dtype}": float32 or bfloat16')
    remat = bool(config.get("remat"))  # configs of aejax 0.1 have no such key
    common = {"latent": latent, "dtype": jnp.dtype(dtype), "shape": tuple(shape), "remat": remat}
    if config["name"]:
        cls = lookup(config["name"], {}, "model")
        values = _fitting(cls, common)
        if remat and "remat" not in values:
            raise UserError(f'model.remat: "{config["name"]}" has no field "remat"')
        return build(cls, values | dict(config["kwargs"]), config["name"])

    def part(slot, table):
        arguments = dict(config[slot])
        name = arguments.pop("name")
        cls = lookup(name, table, slot)
        values = _fitting(cls, common)
        if remat and "remat" not in values:
            cls = recomputed(cls)
        return build(cls, values | _tuples(arguments), f'{slot} "{name}"')

    f_E, f_D = part("f_E", F_E), part("f_D", F_D)
    if config["init"] == "pca":
        patch = stride_of(f_E)
        if not isinstance(f_E, LinearEncoder):
            f_E = ResidualEncoder(linear=LinearEncoder(latent, patch), net=f_E)
        if not isinstance(f_D, LinearDecoder):
            f_D = ResidualDecoder(linear=LinearDecoder(tuple(shape), patch), net=f_D)
    elif config["init"] != "random":
        raise UserError(f'model.init = "{config["init"]}": random or pca')
    return AutoEncoder(f_E=f_E, bottleneck=part("bottleneck", BOTTLENECKS), f_D=f_D)


def _fitting(cls, values: Mapping[str, object]) -> dict[str, object]:
    """The values that `cls` has a field for."""
    fields = {f.name for f in dataclasses.fields(cls)}
    return {name: v for name, v in values.items() if name in fields}


def _tuples(arguments: Mapping[str, object]) -> dict[str, object]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
