"""A frozen model: weights, probability tables, and the id by which files refer to it."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from aejax.codec import nets
from aejax.codec.entropy import Tables
from aejax.files import JsonObject
from aejax.weights import Metadata

if TYPE_CHECKING:
    from aejax.trained import Trained

Params = dict[str, PyTree]  # nested dicts of arrays
Fields = JsonObject  # attributes of a module, with lists for tuples


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A model that can code files: its exact layers are integers times powers of two.

    Attributes:
      params: of nets.Codec(frozen=True).
      tables: probability tables of the 64 levels.
      fields: attributes of the Codec.
      meta: where the weights come from.
    """

    params: Params
    tables: Tables
    fields: Fields
    meta: Metadata = dataclasses.field(default_factory=Metadata)

    @functools.cached_property
    def id(self) -> bytes:
        """The model id in the header of files, 4 bytes: a hash of fields, weights and tables."""
        digest = digest_of(self.fields, self.params)
        digest.update(self.tables.frequencies.astype("<u4").tobytes())
        return digest.digest()[:4]

    @functools.cached_property
    def model(self) -> nets.Codec:
        """The Flax module."""
        return nets.Codec(**as_fields(self.fields), frozen=True)

    @property
    def slices(self) -> tuple[int, ...]:
        """Channels of each slice of y."""
        return tuple(self.model.slices)


def metadata_of_run(workdir: str, trained: "Trained", data: str) -> Metadata:
    """Metadata of a model that is frozen now, from the run in `workdir`.

    Args:
      data: a description of the training data.
    """
    from aejax.config import to_json

    extra = {"frozen": time.strftime("%Y-%m-%d %H:%M"), "data": data}
    provenance = pathlib.Path(workdir) / "provenance.json"
    if provenance.exists():
        text = provenance.read_text().replace(str(workdir), f"runs/{pathlib.Path(workdir).name}")
        extra["training"] = json.loads(text)
    return Metadata(json.loads(to_json(trained.config)), step=trained.step, extra=extra)


def as_fields(fields: Fields) -> Fields:
    """Fields with tuples for lists: attributes of a Flax module must be hashable."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def flat(params: Params) -> Params:
    """Nested dicts -> {"a/b/c": leaf}.

    >>> flat({"a": {"b": 1, "c": 2}})
    {'a/b': 1, 'a/c': 2}
    """
    return flatten_dict(params, sep="/")


def nested(leaves: Mapping[str, PyTree]) -> Params:
    """The inverse of `flat`."""
    return unflatten_dict(leaves, sep="/")


def digest_of(fields: Fields, params: Params) -> "hashlib._Hash":
    """SHA-256 of a model's fields and all its weights, from which its id is taken."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for path, leaf in sorted(flat(params).items()):
        value = np.asarray(leaf, np.float32) + np.float32(0)  # no negative zeros
        digest.update(path.encode() + value.tobytes())
    return digest
