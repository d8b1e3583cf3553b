"""A finished or half-finished run as something to call: encode, decode, apply."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from aejax.config import from_json, with_defaults
from aejax.errors import UserError
from aejax.types import Output, Variables


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its variables (the averaged ones where the run kept an average).

    Images are float in [0, 1] or uint8, [b, h, w, c]; one image [h, w, c] is taken too and gives
    one result.
    """

    model: Any
    variables: Variables
    config: ConfigDict
    step: int

    @functools.cached_property
    def _encode(self):
        return jax.jit(lambda v, x, cond: self.model.apply(v, x, cond, method="encode"))

    @functools.cached_property
    def _decode(self):
        return jax.jit(lambda v, h, cond: self.model.apply(v, h, cond, method="decode"))

    @functools.cached_property
    def _apply(self):
        rngs = {"bottleneck": jax.random.key(0)}
        return jax.jit(lambda v, x, cond: self.model.apply(v, x, cond, train=False, rngs=rngs))

    def encode(self, x: Float[Array, "b h w c"], cond: Any = None) -> Float[Array, "b *h k"]:
        """h of images."""
        x, one = _images(x)
        h = self._encode(self.variables, x, cond)
        return h[0] if one else h

    def decode(self, h: Float[Array, "b *h k"], cond: Any = None) -> Float[Array, "b h w c"]:
        """Images of codes [b, ...], as float in about [0, 1]."""
        return self._decode(self.variables, jnp.asarray(h), cond)

    def apply(self, x: Float[Array, "b h w c"], cond: Any = None) -> Output:
        """Everything between x and y."""
        return self._apply(self.variables, _images(x)[0], cond)


def _images(x) -> tuple[Float[Array, "b h w c"], bool]:
    x = jnp.asarray(x)
    if x.ndim not in (3, 4):
        raise UserError(f"images are [b, h, w, c] or [h, w, c]; got shape {x.shape}")
    x = x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x.astype(jnp.float32)
    return (x[None], True) if x.ndim == 3 else (x, False)


def read_config(workdir: str | pathlib.Path) -> ConfigDict:
    """The config that a workdir was made with.

    Raises:
      UserError: there is none.
    """
    file = pathlib.Path(workdir) / "config.json"
    if not file.is_file():
        raise UserError(
            f"{workdir} holds no run (no config.json); give the --workdir of a training"
        )
    return from_json(json.dumps(with_defaults(json.loads(file.read_text()))))


def load(workdir: str | pathlib.Path, which: str = "last", data_dir: str | None = None) -> Trained:
    """The model of a workdir with its checkpoint `which`: "last", "best" or a step.

    Raises:
      UserError: no run, or no checkpoint of that kind.
    """
    from aejax.training.checkpoint import Checkpoints
    from aejax.training.run import build
    from aejax.training.sharding import Sharding

    config = read_config(workdir)
    parts = build(config, data_dir)
    folder = pathlib.Path(workdir).resolve() / "checkpoints"
    checkpoints = Checkpoints(folder, 1_000_000, config.eval.best)
    sharding = Sharding("jit", devices=jax.local_devices()[:1])
    step = {"last": None, "best": checkpoints.best_step()}.get(str(which), which)
    if which == "best" and step is None:
        raise UserError(f"{workdir} has no evaluated checkpoint yet; load the last one")
    state = checkpoints.restore(parts.abstract(), sharding, None if step is None else int(step))
    if state is None:
        raise UserError(f"{workdir} has no checkpoint; train it first")
    parts.pipeline.close()
    return Trained(parts.model, state.best_variables, config, int(state.step))


def check_start(
    found: Variables,
    wanted: Variables,
    start: str,
    key: str = "start",
    remedy: str = "give the config that model's kwargs and data.channels",
) -> None:
    """That the variables `found` in `start`, which objective.kwargs.`key` names, fit a model whose
    own are `wanted`.

    Raises:
      UserError: they do not; the first that differs is named.
    """
    have, want = (flatten_dict(dict(v), sep="/") for v in (found, wanted))
    for path in sorted(have.keys() | want.keys()):
        a, b = (tuple(v[path].shape) if path in v else None for v in (have, want))
        if a != b:
            raise UserError(
                f"objective.kwargs.{key}: {start} is of another model, its {path} is {a}, not {b}; "
                + remedy
            )
