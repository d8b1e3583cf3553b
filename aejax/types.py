"""The symbols of the package, and the structures that its parts exchange.

x        an image, float32 [b, h, w, c] in [0, 1]
x_tilde  the corrupted image that f_E sees
h        f_E(x_tilde): the code, [b, k] or [b, h', w', k]
h_hat    h after the bottleneck: noisy, quantised or sampled
y        f_D(h_hat): the reconstruction, of the shape of x
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

Config = ConfigDict | Mapping[str, Any]  # a whole config or a part of one, such as config.model
Shape = tuple[int, int, int]  # (height, width, channels) of an example
Variables = dict[str, PyTree]  # Flax collections: {"params": ..., perhaps "ema": code books, ...}
Cond = dict[str, Array] | None  # what the model is told of each example: quality, sigma, label
Label = Int[Array, " b"] | None  # the class of each example, from 0
Batch = dict[str, Array]  # {"image": Float[Array, "b h w c"], "label": Int[Array, " b"]}


@flax.struct.dataclass
class Output:
    """What a model returns. `terms`: per example, nats (kl), bits (rate) or a loss's own unit."""

    h: PyTree
    h_hat: PyTree
    y: Float[Array, "b h w c"]
    terms: dict[str, Float[Array, " b"]] = flax.struct.field(default_factory=dict)
    extra: dict[str, Array] = flax.struct.field(default_factory=dict)  # likelihood parameters


@flax.struct.dataclass
class Aux:
    """What an objective reports beside its loss, all per example."""

    metrics: dict[str, Float[Array, " b"]] = flax.struct.field(default_factory=dict)
    collections: Variables = flax.struct.field(default_factory=dict)
    pictures: dict[str, Float[Array, "b h w c"]] = flax.struct.field(default_factory=dict)
