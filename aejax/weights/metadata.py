"""What NAME.json says of NAME.safetensors."""

import dataclasses

from aejax.files import JsonObject


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What weights are, and where they came from. What is not known is None, "" or {}, and is not
    in the file.

    Attributes:
      config: of the run, as JSON.
      shape: (h, w, c) of the images; class_names: of the labels.
      step: of the checkpoint.
      parameters: how many numbers are trained; storage: how they are stored, in words.
      sha256: of the .safetensors.
      fields, id, base: of a codec: its attributes, what its streams carry, and {"weights", "id"} of
        the codec to which it is stored as a difference.
      model, feature_scale: of a classifier: the arguments of its class, and the number that its
        features are divided by.
      score: of a generator: its metrics, see `aejax.generation.score`.
      extra: all other keys of the file: command, versions, machine, date, seconds, data, and what
        else describes the training.

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
        """How long they were trained; 0 if nobody wrote it down. A record of a run has "steps"."""
        return self.step or int(self.extra.get("steps") or 0)

    def to_dict(self) -> JsonObject:
        """The content of the .json."""
        values = dataclasses.asdict(self)
        extra = values.pop("extra")
        known = {k: v for k, v in values.items() if v is not None and v not in ("", {})}
        return extra | {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}

    @classmethod
    def from_dict(cls, values: JsonObject) -> "Metadata":
        """The inverse of `to_dict`; names that are no field, and null, go to `extra`."""
        names = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        known = {k: v for k, v in values.items() if k in names and v is not None}
        for name in {"shape", "class_names"} & set(known):
            known[name] = tuple(known[name])
        return cls(**known, extra={k: v for k, v in values.items() if k not in known})
