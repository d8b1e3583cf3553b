"""Structured pruning: removes whole units and channels of a trained autoencoder.

A group is one width of a model, with all axes of parameters that have this width: to remove unit 5
of a hidden layer is to remove a column of one kernel, an entry of its bias and a row of the next
kernel. Units with the largest weights are kept (Li et al., 2017, arXiv:1608.08710): the squared
norms of the weights of a unit are summed over kernels, after each kernel is scaled to norm 1.

An axis may have every unit m times, for example after `unshuffle` or a `reshape`: it is then [m,
width] flattened, with the channel varying fastest.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from aejax.config import from_json, to_json
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.nets.autoencoder import build_model
from aejax.nets.f_D import ResidualDecoder
from aejax.nets.f_E import ResidualEncoder
from aejax.trained import Trained

Axis = tuple[str, int]  # (path of a parameter, index of an axis)


@dataclasses.dataclass(frozen=True)
class Group:
    """A width that can be reduced.

    Attributes:
      key: of the width in config.model, such as ("latent",) or ("f_E", "hidden", 0).
      width: number of units.
      axes: all axes of parameters that have these units.
    """

    key: tuple[str] | tuple[str, str, int]
    width: int
    axes: tuple[Axis, ...]


@dataclasses.dataclass(frozen=True)
class Side:
    """f_E or f_D of an autoencoder, without the linear part that model.init = "pca" adds.

    Attributes:
      part: the module.
      path: of its parameters: "f_E", or "f_E/net" if it is in a ResidualEncoder.
      latent: axes of the linear part that have the size of h.
    """

    part: Any
    path: str
    latent: tuple[Axis, ...] = ()

    @classmethod
    def of(cls, trained: Trained, name: str) -> "Side":
        """The side "f_E" or "f_D" of a trained AutoEncoder."""
        part = getattr(trained.model, name)
        if isinstance(part, ResidualEncoder):
            axes = (*_dense("f_E/linear/linear", -1), ("f_E/scale", 0))
            return cls(part.net, "f_E/net", axes)
        if isinstance(part, ResidualDecoder):
            return cls(part.net, "f_D/net", _dense("f_D/linear/linear", 0))
        return cls(part, name)


def groups_of(trained: Trained) -> list[Group]:
    """All widths that can be reduced in a dense or convolutional autoencoder.

    Raises:
      UserError: a model of another kind.
    """
    model = trained.config.model
    names = (model.f_E.name, model.f_D.name)
    if model.name or len(set(names)) > 1 or names[0] not in ("dense", "conv"):
        raise UserError(
            f"{trained.name}: channels can be removed from autoencoders with f_E and f_D both "
            '"dense" or both "conv"; of others, prune single weights '
            "(aejax.training.prune:pruned) or distil a smaller one (aejax.small.distil:Distil)"
        )
    f_E, f_D = Side.of(trained, "f_E"), Side.of(trained, "f_D")
    groups = _dense_groups if names[0] == "dense" else _conv_groups
    return groups(f_E, f_D, model.latent)


def _dense(path: str, axis: int) -> tuple[Axis, ...]:
    """An axis of a kernel and, if it is the output axis (-1), of the bias."""
    kernel = (f"{path}/kernel", axis)
    return (kernel, (f"{path}/bias", 0)) if axis == -1 else (kernel,)


def _dense_groups(f_E: Side, f_D: Side, latent: int) -> list[Group]:
    groups = [
        Group(
            (name, "hidden", i),
            width,
            _dense(f"{side.path}/Dense_{i}", -1) + _dense(f"{side.path}/Dense_{i + 1}", 0),
        )
        for name, side in (("f_E", f_E), ("f_D", f_D))
        for i, width in enumerate(side.part.hidden)
    ]
    last = f"{f_E.path}/Dense_{len(f_E.part.hidden)}"
    axes = _dense(last, -1) + _dense(f"{f_D.path}/Dense_0", 0) + f_E.latent + f_D.latent
    return [*groups, Group(("latent",), latent, axes)]


def _blocks(path: str, numbers: range) -> tuple[Axis, ...]:
    """The axes of ResBlocks: input and output channels of both convolutions."""
    return tuple(
        axis
        for n in numbers
        for conv in ("Conv_0", "Conv_1")
        for axis in (
            (f"{path}/ResBlock_{n}/{conv}/kernel", -2),
            *_dense(f"{path}/ResBlock_{n}/{conv}", -1),
        )
    )


def _conv_groups(f_E: Side, f_D: Side, latent: int) -> list[Group]:
    """Groups of ConvEncoder and ConvDecoder. All channels of a level, also those inside a block,
    are one group."""
    groups = []
    for name, side in (("f_E", f_E), ("f_D", f_D)):
        count, depth, path = len(side.part.widths), side.part.depth, side.path
        for level, width in enumerate(side.part.widths):
            is_lowest = level == count - 1
            position = level if name == "f_E" else count - 1 - level  # decoders: reverse order
            axes = _blocks(path, range(position * depth, (position + 1) * depth))
            if name == "f_E":
                axes += _dense(f"{path}/Downsample_{level}/Conv_0", -1)
                next_conv = f"{path}/Downsample_{level + 1}/Conv_0"
                axes += _dense(f"{path}/Dense_0", 0) if is_lowest else _dense(next_conv, -2)
            else:
                previous = "Dense_0" if is_lowest else f"Upsample_{position - 1}/Conv_0"
                axes += _dense(f"{path}/{previous}", -1)
                axes += _dense(f"{path}/Upsample_{position}/Conv_0", -2)
            groups.append(Group((name, "widths", level), width, axes))
    axes = _dense(f"{f_E.path}/Dense_0", -1) + _dense(f"{f_D.path}/Dense_0", 0)
    return [*groups, Group(("latent",), latent, axes + f_E.latent + f_D.latent)]


def kept_units(group: Group, params: Mapping[str, np.ndarray], keep: float) -> np.ndarray:
    """Sorted indices of the units to keep: the fraction `keep` with the largest weights, at least
    one.

    Args:
      params: path -> parameter.
    """
    size = np.zeros(group.width)
    for path, axis in group.axes:
        w = np.asarray(params[path], np.float64)
        if w.ndim < 2:
            continue
        squares = np.square(np.moveaxis(w, axis, 0)).reshape(w.shape[axis], -1).sum(1)
        size += squares.reshape(-1, group.width).sum(0) / max(squares.sum(), 1e-30)
    count = max(1, round(keep * group.width))
    return np.sort(np.argsort(-size, kind="stable")[:count])


def without_channels(
    trained: Trained, keep: float, groups: tuple[str, ...] = ("hidden", "widths")
) -> Trained:
    """A smaller copy of a trained model; fine-tune it afterwards.

    Args:
      keep: fraction of the units of each group that are kept, above 0 and below 1.
      groups: what to reduce: "hidden" (units of dense layers), "widths" (channels of levels),
        "latent" (size of h).

    Raises:
      UserError: an invalid fraction, a model of another kind, or a model without such groups.
    """
    if not 0.0 < keep < 1.0:
        raise UserError(f"--keep {keep:g}: the fraction of channels to keep, above 0 and below 1")
    chosen = [g for g in groups_of(trained) if any(k in groups for k in g.key)]
    if not chosen:
        raise UserError(
            f"{trained.name} has no {' or '.join(groups)} to remove; "
            "--groups latent makes h smaller"
        )
    params = {k: np.asarray(v) for k, v in flatten_dict(
        dict(trained.variables["params"]), sep="/").items()}  # fmt: skip
    stored = json.loads(to_json(trained.config))
    for group in chosen:
        units = kept_units(group, params, keep)
        for path, axis in group.axes:
            repeats = params[path].shape[axis] // group.width
            index = (np.arange(repeats)[:, None] * group.width + units).reshape(-1)
            params[path] = np.take(params[path], index, axis)
        _set_width(stored["model"], group.key, len(units), trained)
    config = from_json(json.dumps(stored))
    model = build_model(config.model, trained.known_shape)
    variables = {**trained.variables, "params": unflatten_dict(params, sep="/")}
    return dataclasses.replace(trained, model=model, variables=variables, config=config)


def _set_width(
    model: JsonObject, key: tuple[str] | tuple[str, str, int], count: int, trained: Trained
) -> None:
    """Sets a width in config.model, which may not contain the default of a part."""
    if len(key) == 1:
        model[key[0]] = count
        return
    side, name, index = key
    widths = list(model[side].get(name) or getattr(Side.of(trained, side).part, name))
    widths[index] = count
    model[side] = copy.copy(model[side]) | {name: widths}
