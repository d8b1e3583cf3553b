"""The range coder of `constriction` (Bamler 2022, arXiv 2201.01741), as both kinds of files use it:
32-bit words, 24-bit probabilities, 64-bit state."""

import constriction
import numpy as np

_queue = constriction.stream.queue


class CorruptStream(ValueError):
    """The data cannot have come from an encoder."""


def new_encoder() -> _queue.RangeEncoder:
    """An encoder that has coded nothing yet."""
    return _queue.RangeEncoder()


def encoded(encoder: _queue.RangeEncoder) -> bytes:
    """What was coded. Trailing zero bytes are omitted: a decoder reads zeros after the end."""
    return encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


def new_decoder(data: bytes) -> _queue.RangeDecoder:
    """A decoder of what `encoded` returned."""
    # Two more words of zeros than the data of any valid chunk needs.
    padded = data + bytes(-len(data) % 4 + 8)
    return _queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))
