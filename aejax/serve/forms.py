"""Reads the file of a multipart form as the form arrives; it is kept in memory only."""

from collections.abc import AsyncIterable

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from aejax.serve.limits import Refused

FIELD = "file"
MAX_PARTS = 9


class FileField:
    """The callbacks of a multipart parser. They keep the bytes of the part "file" and skip all
    other parts; names and types of files are ignored.

    Attributes:
      data: the bytes so far; None if the part has not begun.
      is_complete: whether the form has ended.
    """

    def __init__(self) -> None:
        self.data: bytearray | None = None
        self.is_complete = False
        self._parts = 0
        self._name, self._value, self._disposition = bytearray(), bytearray(), ""
        self._is_inside = False

    def on_part_begin(self) -> None:
        """Called at the beginning of a part."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Refused(400, f"the form has more than {MAX_PARTS} parts")
        self._disposition = ""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Called with a piece of a header's name."""
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Called with a piece of a header's value."""
        self._value += data[start:end]

    def on_header_end(self) -> None:
        """Called after each header."""
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        self._name, self._value = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        """Called before the data of a part."""
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise Refused(400, "the form is damaged: one of its parts has no name")
        self._is_inside = options[b"name"] == FIELD.encode() and b"filename" in options
        if self._is_inside:
            if self.data is not None:
                raise Refused(400, f'the form has more than one file in the field "{FIELD}"')
            self.data = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Called with a piece of the part's data."""
        if self._is_inside and self.data is not None:
            self.data += data[start:end]

    def on_end(self) -> None:
        """Called at the last boundary."""
        self.is_complete = True


async def file_of_form(content_type: str, chunks: AsyncIterable[bytes]) -> bytes:
    """The bytes of the field "file" of a form.

    Args:
      content_type: the request's header of this name, which has the boundary.
      chunks: the body, whose size the caller has to limit.

    Raises:
      Refused: the form is damaged or incomplete, or has no file in that field.
    """
    field = FileField()
    names = ("on_part_begin", "on_header_field", "on_header_value", "on_header_end",
             "on_headers_finished", "on_part_data", "on_end")  # fmt: skip
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refused(400, "the form is damaged: its header names no boundary")
    try:
        # pyrefly: ignore [bad-argument-type]  (a TypedDict with these names)
        parser = MultipartParser(boundary, {name: getattr(field, name) for name in names})
        async for chunk in chunks:
            parser.write(chunk)
    except (FormParserError, UnicodeError) as e:
        raise Refused(400, "the form is damaged") from e
    if not field.is_complete:
        raise Refused(400, "the form is damaged: it ends before its last boundary")
    if field.data is None:
        raise Refused(400, f'the form has no file in a field "{FIELD}"')
    return bytes(field.data)
