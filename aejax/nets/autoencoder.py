"""y = f_D(bottleneck(f_E(x))): the one model that every task is a filling of."""

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
    """f_E, a bottleneck and f_D.

        x [b, H, W, c] --f_E--> h --bottleneck--> h_hat, terms
        h_hat --f_D--> y [b, H, W, c]

    h is a vector [b, k] or a map [b, h, w, k]. A y of whole strides is cut to the size of x.
    """

    f_E: nn.Module
    bottleneck: nn.Module
    f_D: nn.Module

    def __call__(
        self, x: Float[Array, "b h w c"], cond: Cond = None, train: bool = False
    ) -> Output:
        """The whole equation. With train=True or a bottleneck that samples, give the rng
        "bottleneck"."""
        h = self.f_E(x, cond, train)
        is_code = hasattr(h, "shape") and h.ndim > 1 and h.shape[0] == x.shape[0]
        check_result(is_code, "f_E", self.f_E, h, x)
        passed = self.bottleneck(h, cond, train)
        is_pair = isinstance(passed, tuple) and len(passed) == 2 and isinstance(passed[1], dict)
        check_result(is_pair, "bottleneck", self.bottleneck, passed, h)
        h_hat, terms = passed
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
        """h_hat of x: the code that `decode` takes, without noise."""
        return self.bottleneck(self.f_E(x, cond, False), cond, False)[0]

    def decode(self, h: Float[Array, "b *h k"], cond: Cond = None) -> Float[Array, "b h w c"]:
        """The image of a code, in whole strides."""
        y = self.f_D(h, cond, False)
        return y["y"] if isinstance(y, dict) else y


def build_model(config: Config, shape: Sequence[int]) -> nn.Module:
    """The model that a `config.model` describes for images of `shape` (h, w, c).

    Raises:
      UserError: an unknown part or argument, or an impossible size.
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
    remat = bool(config.get("remat"))  # of 0.1: no such key
    common = {"latent": latent, "dtype": jnp.dtype(dtype), "shape": tuple(shape), "remat": remat}
    if config["name"]:
        cls = lookup(config["name"], {}, "model")
        if remat and "remat" not in _fitting(cls, common):
            raise UserError(f'model.remat: "{config["name"]}" has no field "remat"')
        return build(cls, _fitting(cls, common) | dict(config["kwargs"]), config["name"])

    def part(slot, table):
        arguments = dict(config[slot])
        name = arguments.pop("name")
        cls = lookup(name, table, slot)
        if remat and "remat" not in _fitting(cls, common):
            cls = recomputed(cls)
        return build(cls, _fitting(cls, common) | _tuples(arguments), f'{slot} "{name}"')

    f_E, f_D = part("f_E", F_E), part("f_D", F_D)
    if config["init"] == "pca":
        patch, known = stride_of(f_E), (LinearEncoder, LinearDecoder)
        if not isinstance(f_E, LinearEncoder):
            f_E = ResidualEncoder(linear=LinearEncoder(latent, patch), net=f_E)
        if not isinstance(f_D, known):
            f_D = ResidualDecoder(linear=LinearDecoder(tuple(shape), patch), net=f_D)
    elif config["init"] != "random":
        raise UserError(f'model.init = "{config["init"]}": random or pca')
    return AutoEncoder(f_E=f_E, bottleneck=part("bottleneck", BOTTLENECKS), f_D=f_D)


def _fitting(cls, values: Mapping[str, object]) -> dict[str, object]:
    """Those values that `cls` has a field for."""
    fields = {f.name for f in dataclasses.fields(cls)}
    return {name: v for name, v in values.items() if name in fields}


def _tuples(arguments: Mapping[str, object]) -> dict[str, object]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
