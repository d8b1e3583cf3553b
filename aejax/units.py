"""Durations in configs: "500 steps", "20 epochs", "60000 examples", "5 minutes"."""

import dataclasses
import re

from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Clock:
    """Converts durations to steps.

    Attributes:
      batch: examples per step.
      examples: examples per epoch, the size of the training set.

    >>> Clock(batch=64, examples=1000).steps("2 epochs", "train.length")
    31
    """

    batch: int
    examples: int

    def steps(self, duration: str | int, what: str) -> int:
        """The number of steps of "20 epochs", "60000 examples", "500 steps" or 500.

        Args:
          what: the key or option with this duration, for the error.

        Raises:
          UserError: not a duration, or one in seconds.
        """
        number, unit = duration_of(duration, what)
        if unit == "epoch":
            return max(1, round(number * self.examples / self.batch))
        if unit == "example":
            return max(1, round(number / self.batch))
        if unit == "step":
            return int(number)
        raise UserError(f'{what} = "{duration}": give steps, epochs or examples here')


def duration_of(duration: str | int, what: str) -> tuple[float, str]:
    """(number, unit) of a duration; the unit is step, epoch, example or second.

    Args:
      what: the key or option with this duration, for the error.

    Raises:
      UserError: not a duration.

    >>> duration_of("2 minutes", "log.every")
    (120.0, 'second')
    """
    match = re.fullmatch(
        r"\s*([0-9.e+]+)\s*(?:(step|epoch|example|second|minute|hour)s?)?\s*", str(duration)
    )
    try:
        number = float(match[1]) if match else None
    except ValueError:  # such as "1.2.3"
        number = None
    if match is None or number is None:
        raise UserError(
            f'{what} = "{duration}" is not a duration; examples: "500 steps", "20 epochs", '
            '"60000 examples"'
        )
    unit = match[2] or "step"
    scale = {"minute": 60, "hour": 3600}.get(unit, 1)
    return number * scale, "second" if scale > 1 else unit
