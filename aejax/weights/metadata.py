"""The metadata of weights, NAME.json beside NAME.safetensors."""

import dataclasses

from aejax.files import JsonObject


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Description and provenance of weights. Unknown values are None, "" or {}, and are not
    written.

    Attributes:
      config: of the training run, as JSON.
      shape: (h, w, c) of the images.
      class_names: of the labels.
      step: of the checkpoint.
      parameters: number of trained parameters.
      storage: description of how they are stored.
      sha256: of the .safetensors file.
      fields: of a codec: attributes of its model.
      id: of a codec: the model id in the header of its files, in hexadecimal.
      base: of a codec stored as a difference: {"weights", "id"} of the other codec.
      model: of a classifier: the arguments of its class.
      feature_scale: of a classifier: its features are divided by this.
      score: of a generator: its metrics, see `aejax.generation.score`.
      extra: all other keys of the file: command, versions, machine, date, seconds, data, ...

    >>> Metadata.from_dict({"step": 3, "git": "a1b2c3"})  # doctest: +ELLIPSIS
    Metadata(config={}, ..., step=3, ..., extra={'git': 'a1b2c3'})
    """

    config: JsonObject = dataclasses.field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    step: int | None = None
    parameters: int | None = None
    storage: str = ""
    sha256: str = ""
    fields: JsonObject = dataclasses.field(default_factory=dict)
    id: str = ""
    base: dict[str, str] = dataclasses.field(default_factory=dict)
    model: JsonObject = dataclasses.field(default_factory=dict)
    feature_scale: float | None = None
    score: JsonObject = dataclasses.field(default_factory=dict)
    extra: JsonObject = dataclasses.field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of training steps: `step`, else "steps" of `extra`, else 0."""
        return self.step or int(self.extra.get("steps") or 0)

    def to_dict(self) -> JsonObject:
        """The content of the .json file."""
        values = dataclasses.asdict(self)
        extra = values.pop("extra")
        known = {k: v for k, v in values.items() if v is not None and v not in ("", {})}
        return extra | {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}

    @classmethod
    def from_dict(cls, values: JsonObject) -> "Metadata":
        """The inverse of `to_dict`; keys that are no attribute, and null values, go to `extra`."""
        names = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        known = {k: v for k, v in values.items() if k in names and v is not None}
        for name in {"shape", "class_names"} & set(known):
            known[name] = tuple(known[name])
        return cls(**known, extra={k: v for k, v in values.items() if k not in known})
