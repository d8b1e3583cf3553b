"""When a run stops early: state that every checkpoint keeps beside the TrainState."""

import dataclasses
from collections.abc import Mapping

from aejax.files import JsonObject
from aejax.result import Metric


@dataclasses.dataclass
class Stopping:
    """How near a run is to stopping early, so that a resumed run stops where an uninterrupted one
    does.

    Attributes:
      by: config.eval.best, the metric that `best` is a score of.
      best: the best score so far, larger is better; None before the first evaluation.
      worse: evaluations since then.
      stopped_by: why the run ended before its length; "" while it goes on.
    """

    by: str = ""
    best: float | None = None
    worse: int = 0
    stopped_by: str = ""

    @classmethod
    def from_json(cls, values: JsonObject) -> "Stopping":
        """The inverse of `to_json`."""
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: v for name, v in values.items() if name in names})

    def to_json(self) -> JsonObject:
        """What a checkpoint keeps."""
        return dataclasses.asdict(self)

    def follow(self, by: str) -> None:
        """Begins anew if another metric decides from now on."""
        if by != self.by:
            self.by, self.best, self.worse, self.stopped_by = by, None, 0, ""

    def lengthened(self) -> None:
        """The run has become longer: whatever ended it is over, and patience begins anew."""
        self.worse, self.stopped_by = 0, ""

    def evaluated(self, metrics: Mapping[str, float], patience: int) -> None:
        """Counts an evaluation; sets `stopped_by` after `patience` (0 = never) without a better
        one."""
        metric = Metric.parse(self.by)
        if not metric.name:
            return
        score = metric.score(metrics[metric.name])
        if self.best is None or score > self.best:
            self.best, self.worse = score, 0
        else:
            self.worse += 1
        if patience and self.worse >= patience:
            self.stopped_by = f"{metric.name} did not improve in {self.worse} evaluations"
