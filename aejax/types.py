"""Types that the parts of the package exchange. Their symbols:

    x        an image, float32 [b, h, w, c] in [0, 1]
    x_tilde  the corrupted image, input of f_E
    h        f_E(x_tilde): the code, [b, k] or [b, h', w', k]
    h_hat    h after the bottleneck: noisy, quantised or sampled
    y        f_D(h_hat): the reconstruction, of the shape of x

docs/reference/glossary.md has further ones.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

Config = ConfigDict | Mapping[str, Any]  # a config or a group of one, such as config.model
Shape = tuple[int, int, int]  # (height, width, channels) of an example
Variables = dict[str, PyTree]  # Flax collections: {"params": ..., "bottleneck": ..., ...}
Cond = dict[str, Array] | None  # inputs per example beside x: quality, sigma, label
Label = Int[Array, " b"] | None  # the class of each example, from 0
Batch = dict[str, Array]  # {"image": Float[Array, "b h w c"], "label": Int[Array, " b"]}


@flax.struct.dataclass
class Output:
    """The result of a model.

    Attributes:
      h, h_hat: the code before and after the bottleneck.
      y: the output image, [b, h, w, c].
      terms: penalties per example, in nats (kl), bits (rate) or another unit.
      extra: other outputs of f_D, such as parameters of a likelihood.
    """

    h: PyTree
    h_hat: PyTree
    y: Float[Array, "b h w c"]
    terms: dict[str, Float[Array, " b"]] = flax.struct.field(default_factory=dict)
    extra: dict[str, Array] = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class Aux:
    """The result of an objective beside its loss.

    Attributes:
      metrics: values to log, per example.
      collections: updated variable collections of the model, such as running statistics.
      pictures: images of an evaluation: "x", "y" and others.
    """

    metrics: dict[str, Float[Array, " b"]] = flax.struct.field(default_factory=dict)
    collections: Variables = flax.struct.field(default_factory=dict)
    pictures: dict[str, Float[Array, "b h w c"]] = flax.struct.field(default_factory=dict)
