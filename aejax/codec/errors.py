"""The error that the codec raises."""

from aejax.errors import UserError


class CodecError(UserError):
    """A file cannot be decoded, or an image cannot be encoded; the message says why."""
