"""Early stopping: its state is saved in every checkpoint beside the TrainState."""

import dataclasses
from collections.abc import Mapping

from aejax.files import JsonObject
from aejax.result import Metric


@dataclasses.dataclass
class Stopping:
    """State of early stopping. It is saved, so that a resumed run stops at the same step as an
    uninterrupted one.

    Attributes:
      by: config.eval.best, the metric that `best` is a score of.
      best: the best score so far, larger is better; None before the first evaluation.
      worse: evaluations since the best one.
      stopped_by: why the run ended before train.length; "" while it is running.
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
        """The fields as a checkpoint stores them."""
        return dataclasses.asdict(self)

    def follow(self, by: str) -> None:
        """Resets the count if config.eval.best has changed."""
        if by != self.by:
            self.by, self.best, self.worse, self.stopped_by = by, None, 0, ""

    def lengthened(self) -> None:
        """Clears `stopped_by` and the count: train.length has grown, so the run is resumed."""
        self.worse, self.stopped_by = 0, ""

    def evaluated(self, metrics: Mapping[str, float], patience: int) -> None:
        """Counts an evaluation; sets `stopped_by` after `patience` evaluations without a new best
        (0 = never)."""
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
