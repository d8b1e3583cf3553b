"""Structured pruning: whole units and channels are removed, and the network is really smaller.

A group is a width of a model and every axis of a parameter that has that width: removing unit 5 of
a hidden layer is removing its column of one kernel, its bias and its row of the next kernel. Units
are kept by the size of what belongs to them (Li et al., 2017, arXiv:1608.08710): the root of the
sum of the squared norms of their weights in each kernel, each kernel scaled to norm 1.

An axis may hold each unit several times, as the pixels that a convolution after `unshuffle` or a
dense layer after a `reshape` sees: [m, width] flattened, the channel last and fastest.
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

Axis = tuple[str, int]  # the path of a parameter, and one of its axes


@dataclasses.dataclass(frozen=True)
class Group:
    """A width that can be made smaller.

    Attributes:
      key: where it is in config.model: ("latent",), or ("f_E", "hidden", 0).
      width: how many units there are.
      axes: every axis of a parameter that has them.
    """

    key: tuple[str] | tuple[str, str, int]
    width: int
    axes: tuple[Axis, ...]


@dataclasses.dataclass(frozen=True)
class Side:
    """f_E or f_D of an autoencoder: the network itself, and where its parameters are.

    Attributes:
      path: "f_E", or "f_E/net" of one that starts at PCA (nets.f_E.ResidualEncoder).
      latent: the axes of h that are beside the network then.
    """

    part: Any
    path: str
    latent: tuple[Axis, ...] = ()

    @classmethod
    def of(cls, trained: Trained, name: str) -> "Side":
        """That side of an AutoEncoder."""
        part = getattr(trained.model, name)
        if isinstance(part, ResidualEncoder):
            axes = (*_dense("f_E/linear/linear", -1), ("f_E/scale", 0))
            return cls(part.net, "f_E/net", axes)
        if isinstance(part, ResidualDecoder):
            return cls(part.net, "f_D/net", _dense("f_D/linear/linear", 0))
        return cls(part, name)


def groups_of(trained: Trained) -> list[Group]:
    """The groups of a dense or convolutional autoencoder.

    Raises:
      UserError: it is a model of another kind.
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
    """An axis of a kernel, and of its bias if it is the one of the outputs."""
    is_output = axis == -1
    return ((f"{path}/kernel", axis), (f"{path}/bias", 0)) if is_output else (
        (f"{path}/kernel", axis),
    )  # fmt: skip


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
    """The axes of residual blocks: both convolutions read and write their width."""
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
    """Levels of ConvEncoder and ConvDecoder; the inner channels of a block go with its outer."""
    groups = []
    for name, side in (("f_E", f_E), ("f_D", f_D)):
        count, depth, path = len(side.part.widths), side.part.depth, side.path
        for level, width in enumerate(side.part.widths):
            lowest = level == count - 1
            place = level if name == "f_E" else count - 1 - level  # decoders go the other way
            axes = _blocks(path, range(place * depth, (place + 1) * depth))
            if name == "f_E":
                axes += _dense(f"{path}/Downsample_{level}/Conv_0", -1)
                axes += _dense(f"{path}/Dense_0", 0) if lowest else (
                    (f"{path}/Downsample_{level + 1}/Conv_0/kernel", -2),
                )  # fmt: skip
            else:
                above = f"{path}/Dense_0" if lowest else f"{path}/Upsample_{place - 1}/Conv_0"
                axes += (*_dense(above, -1), (f"{path}/Upsample_{place}/Conv_0/kernel", -2))
            groups.append(Group((name, "widths", level), width, axes))
    axes = _dense(f"{f_E.path}/Dense_0", -1) + _dense(f"{f_D.path}/Dense_0", 0)
    return [*groups, Group(("latent",), latent, axes + f_E.latent + f_D.latent)]


def kept_units(group: Group, params: Mapping[str, np.ndarray], keep: float) -> np.ndarray:
    """Sorted indices of the units that stay: the share `keep` of the largest, at least one."""
    size = np.zeros(group.width)
    for path, axis in group.axes:
        w = np.asarray(params[path], np.float64)
        if w.ndim < 2:
            continue
        per_entry = np.square(np.moveaxis(w, axis, 0)).reshape(w.shape[axis], -1).sum(1)
        size += per_entry.reshape(-1, group.width).sum(0) / max(per_entry.sum(), 1e-30)
    count = max(1, round(keep * group.width))
    return np.sort(np.argsort(-size, kind="stable")[:count])


def without_channels(
    trained: Trained, keep: float, groups: tuple[str, ...] = ("hidden", "widths")
) -> Trained:
    """A smaller network: of each group the share `keep` of its units stays.

    Args:
      groups: "hidden" (units of dense layers), "widths" (channels of levels), "latent".

    Raises:
      UserError: a share outside (0, 1), a model of another kind, or nothing to remove.
    """
    if not 0.0 < keep < 1.0:
        raise UserError(f"--keep {keep:g}: the share of channels that stay, above 0 and below 1")
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
            times = params[path].shape[axis] // group.width
            index = (np.arange(times)[:, None] * group.width + units).reshape(-1)
            params[path] = np.take(params[path], index, axis)
        _set_width(stored["model"], group.key, len(units), trained)
    config = from_json(json.dumps(stored))
    model = build_model(config.model, trained.known_shape)
    variables = {**trained.variables, "params": unflatten_dict(params, sep="/")}
    return dataclasses.replace(trained, model=model, variables=variables, config=config)


def _set_width(
    model: JsonObject, key: tuple[str] | tuple[str, str, int], count: int, trained: Trained
) -> None:
    """Writes a width into config.model, where a part's default may not be written out."""
    if len(key) == 1:
        model[key[0]] = count
        return
    side, name, place = key
    widths = list(model[side].get(name) or getattr(Side.of(trained, side).part, name))
    widths[place] = count
    model[side] = copy.copy(model[side]) | {name: widths}
