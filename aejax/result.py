"""A finished run's Result, which `aejax.train` returns and result.json keeps; what ranks runs."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

from aejax.files import JsonObject

Overrides = Mapping[str, Any]  # dotted keys of a config -> values: {"model.latent": 16, "seed": 0}


class Signed(Protocol):
    """A number, or an array of numbers."""

    def __neg__(self) -> Self: ...


Number = TypeVar("Number", bound=Signed)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number by which checkpoints, images or runs are ranked.

    Attributes:
      name: such as "psnr", or "my_package.metric:worst_pixel".
      larger_is_better: False for errors.

    >>> Metric.parse("-mse").score(0.25)
    -0.25
    """

    name: str
    larger_is_better: bool = True

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """That of config.eval.best: a name, with "-" before it if smaller is better."""
        return cls(text.removeprefix("-"), not text.startswith("-"))

    def score(self, value: Number) -> Number:
        """`value` (or each value of an array) with the sign that makes more better."""
        return value if self.larger_is_better else -value


@dataclasses.dataclass
class Result:
    """A finished, measured run.

    Attributes:
      id: name of the run's folder.
      task: config.task.
      metrics: "test/psnr", ... -> mean over the evaluation split.
      examples: how many of it were measured.
      steps: at which the run ended; stopped_by: "length", or why it ended earlier.
      parameters: numbers that are trained; latent_size: numbers in h of one image (0: no h);
        input_size: numbers in one image.
      best_step: of the checkpoint with the best config.eval.best; None if none was evaluated.
      examples_per_sec: of training, without the first dispatch.
      seconds: where the time went, by name, with "total".
      cost: FLOPs of a step and bytes of a device, as the compiler counts them.
      latent: statistics of h.
      data: name and fingerprint of the training split.
      overrides: what a study or the command line changed in the config.
      config: the whole config as JSON.
      command, versions, machine, date, git: the provenance.
      extra: what a custom trainer added to result.json.
    """

    id: str = ""
    overrides: JsonObject = dataclasses.field(default_factory=dict)
    task: str = ""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    examples: int = 0
    data: dict[str, str] = dataclasses.field(default_factory=dict)
    latent: JsonObject = dataclasses.field(default_factory=dict)
    best_step: int | None = None
    parameters: int = 0
    latent_size: int = 0
    input_size: int = 0
    stopped_by: str = ""
    steps: int = 0
    examples_per_sec: float = 0.0
    cost: JsonObject = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    command: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    machine: str = ""
    date: str = ""
    git: str = ""
    config: JsonObject = dataclasses.field(default_factory=dict)
    extra: JsonObject = dataclasses.field(default_factory=dict)

    def to_dict(self) -> JsonObject:
        """The content of result.json; `extra` stands beside the rest."""
        values = dataclasses.asdict(self)
        return values | values.pop("extra")

    def to_json(self) -> str:
        """The text of result.json."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_dict(cls, values: JsonObject) -> "Result":
        """The inverse of `to_dict`; names that are no field go to `extra`."""
        names = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        extra = {k: v for k, v in values.items() if k not in names}
        return cls(**{k: v for k, v in values.items() if k in names}, extra=extra)


def read_result(workdir: str | os.PathLike) -> Result | None:
    """That of a finished run; None while there is no result.json."""
    file = pathlib.Path(workdir) / "result.json"
    try:
        return Result.from_dict(json.loads(file.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
