"""Result: what `aejax.train` returns and result.json stores of a finished run. Metric: what runs
and checkpoints are ranked by."""

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
    """A metric by which checkpoints, images or runs are ranked.

    Attributes:
      name: such as "psnr", or "my_package.metric:worst_pixel" for one of your own.
      larger_is_better: False for errors.

    >>> Metric.parse("-mse").score(0.25)
    -0.25
    """

    name: str
    larger_is_better: bool = True

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """Parses config.eval.best: a name, with "-" before it if smaller is better."""
        return cls(text.removeprefix("-"), not text.startswith("-"))

    def score(self, value: Number) -> Number:
        """`value`, a number or an array, negated if smaller is better: larger scores are better."""
        return value if self.larger_is_better else -value


@dataclasses.dataclass
class Result:
    """The result of a finished run.

    Attributes:
      id: name of the run's folder.
      task: config.task.
      metrics: "test/psnr", ... -> mean over the evaluation split.
      examples: number of evaluated examples.
      steps: number of training steps.
      stopped_by: "length", or why the run ended earlier.
      parameters: number of trained parameters.
      latent_size: number of elements of h of one image; 0 if the model has no h.
      input_size: number of elements of one image.
      best_step: step of the checkpoint that is best by config.eval.best; None if none was
        evaluated.
      examples_per_sec: training throughput, without the first dispatch.
      seconds: time by activity, and "total".
      cost: FLOPs of a step and memory of a device in bytes, as counted by the compiler.
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
        """The content of result.json, with the items of `extra` as keys of their own."""
        values = dataclasses.asdict(self)
        return values | values.pop("extra")

    def to_json(self) -> str:
        """`to_dict` as the text of result.json."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_dict(cls, values: JsonObject) -> "Result":
        """The inverse of `to_dict`; keys that are no attribute go to `extra`."""
        names = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        extra = {k: v for k, v in values.items() if k not in names}
        return cls(**{k: v for k, v in values.items() if k in names}, extra=extra)


def read_result(workdir: str | os.PathLike) -> Result | None:
    """The result of the run in `workdir`; None if it has no result.json yet.

    Raises:
      ValueError: result.json is not valid JSON.
    """
    file = pathlib.Path(workdir) / "result.json"
    try:
        return Result.from_dict(json.loads(file.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
