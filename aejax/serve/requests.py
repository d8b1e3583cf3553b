"""Reads and checks bodies, pictures and parameters of requests."""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator
from typing import TypeVar

import numpy as np
from starlette.requests import ClientDisconnect, Request

from aejax.data import decode, images
from aejax.errors import UserError
from aejax.serve.forms import FIELD, file_of_form
from aejax.serve.limits import Limits, Refused

MIN_SIDE = 8  # pixels
Default = TypeVar("Default", bound=float | None)


async def read_body(request: Request, limits: Limits) -> bytes:
    """The file that a request carries: its body, or the field "file" of a form.

    Raises:
      Refused: it is too large, takes too long, or is missing; the form is damaged.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > limits.bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            kind, chunks = request.headers.get("content-type", ""), _limited(request, limits)
            async with contextlib.aclosing(chunks):
                if kind.lower().startswith("multipart/"):
                    data = await file_of_form(kind, chunks)
                else:
                    data = b"".join([chunk async for chunk in chunks])
    except TimeoutError:
        reason = f"the body did not arrive within {limits.upload_seconds:g} s"
        raise Refused(408, reason) from None
    except ClientDisconnect:
        raise Refused(400, "the client closed the connection before the end of the body") from None
    if not data:
        raise Refused(400, f'no file: send it as the body, or in the field "{FIELD}" of a form')
    return data


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the body is larger than {limits.bytes:,} bytes")


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The chunks of the body, up to the limit."""
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limits.bytes:
            raise _too_large(limits)
        yield chunk


def picture(data: bytes, limits: Limits, channels: int = 0) -> np.ndarray:
    """Decodes a picture file to uint8 [h, w, 1 or 3]; transparency is blended over white.

    Args:
      channels: 1 or 3 to convert to gray or RGB; 0 keeps those of the file.

    Raises:
      Refused: it is no picture, damaged, too large, or smaller than MIN_SIDE pixels a side.
    """
    try:
        height, width, _ = images.header(data, "the picture")
        if height * width > limits.pixels:
            raise Refused(
                413, f"the picture has {width}x{height} pixels, more than {limits.pixels:,}"
            )
        if min(height, width) < MIN_SIDE:
            raise Refused(
                422, f"the picture has {width}x{height} pixels, less than {MIN_SIDE} a side"
            )
        stored = images.read_image(data, name="the picture")[0]
    except UserError as e:
        raise Refused(422, str(e)) from None
    return decode.flatten(stored, channels)


class Parameters:
    """The query parameters of a request, checked when they are read.

    `Parameters(request, "quality").number("quality", 0, 100, 50.0)` is 50 if there is no "quality".

    Args:
      known: names of the parameters that the route has.

    Raises:
      Refused: a parameter is unknown or given twice.
    """

    def __init__(self, request: Request, *known: str):
        names = [name for name, _ in request.query_params.multi_items()]
        for name in names:
            if name not in known:
                options = ", ".join(known) or "none"
                raise Refused(400, f'no parameter "{name[:40]}"; known: {options}')
            if names.count(name) > 1:
                raise Refused(400, f'the parameter "{name}" is given twice')
        self._query = request.query_params

    def number(self, name: str, low: float, high: float, default: Default) -> float | Default:
        """A number from low to high; the default if it is missing.

        Raises:
          Refused: it is not a number, or out of range.
        """
        value = self._number(name, low, high, default is None)
        return default if value is None else value

    def _number(self, name: str, low: float, high: float, may_be_empty: bool) -> float | None:
        text = self._query.get(name)
        if text is None or text == "" and may_be_empty:
            return None
        try:
            value = float(text[:40])
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise Refused(422, f"{name} must be a number from {low:g} to {high:g}")
        return value

    def whole(self, name: str, low: int, high: int, default: Default) -> int | Default:
        """An integer from low to high; the default if it is missing.

        Raises:
          Refused: it is not an integer, or out of range.
        """
        value = self._number(name, low, high, default is None)
        if value is None:
            return default
        if value != int(value):
            raise Refused(422, f"{name} must be a whole number from {low} to {high}")
        return int(value)

    def choice(self, name: str, *options: str) -> str:
        """One of `options`; the first if it is missing.

        Raises:
          Refused: it is none of them.
        """
        value = self._query.get(name, options[0])
        if value not in options:
            raise Refused(422, f"{name} must be one of {', '.join(options)}")
        return value
