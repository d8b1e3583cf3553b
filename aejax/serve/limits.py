"""Limits of requests, and the exception for a request that is refused."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that a request may take.

    Attributes:
      bytes: of its body.
      pixels: of its picture, read from the header before the picture is decoded.
      upload_seconds: for the body to arrive.
      seconds: for the answer, waiting included.
      queue: requests that are served or wait at the same time; further ones get 503.
      batch: requests for pictures of one shape that are run together.
      wait_ms: how long the first request of a batch waits for others, in milliseconds.
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
    """Raised to answer a request with an error: {"error": reason}.

    Attributes:
      status: HTTP status, 4xx or 503.
      headers: of the response, such as Retry-After.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None):
        super().__init__(reason)
        self.status = status
        self.headers = dict(headers or {})


def busy(reason: str, seconds: float) -> Refused:
    """Status 503, with the seconds after which to try again in Retry-After."""
    return Refused(503, reason, {"Retry-After": str(max(1, round(seconds)))})
