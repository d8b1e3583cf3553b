"""How much a request may ask for, and how one is refused."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Limits:
    """Attributes:
    bytes: of a request's body.
    pixels: of a picture, looked up in its header before it is decoded.
    upload_seconds: for a body to arrive.
    seconds: for the work, waiting included.
    queue: requests that are served or wait at once; the next one is told when to come again.
    batch: requests of one shape that are worked on at once; wait_ms: how long the first one waits
      for others.
    samples: pictures of a request for samples.
    """

    bytes: int = 32 << 20
    pixels: int = 1 << 24
    upload_seconds: float = 30.0
    seconds: float = 120.0
    queue: int = 32
    batch: int = 8
    wait_ms: float = 4.0
    samples: int = 64


class Refused(Exception):
    """A request that is answered with a status and a reason instead.

    Attributes:
      status: of HTTP, 4xx or 503.
      headers: such as Retry-After.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None):
        super().__init__(reason)
        self.status = status
        self.headers = dict(headers or {})


def busy(reason: str, seconds: float) -> Refused:
    """503, with the time after which to try again."""
    return Refused(503, reason, {"Retry-After": str(max(1, round(seconds)))})
