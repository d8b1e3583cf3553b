"""The one error of reading a stream."""

from aejax.errors import UserError


class CodecError(UserError):
    """A stream that cannot be decoded, or an image that cannot be encoded; names the fault."""
