"""What decoding a file gives, lossy or lossless."""

import dataclasses

import numpy as np

from aejax.codec.container import Header


class CutFile(UserWarning):
    """The file was cut."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a file holds.

    Attributes:
      image: uint8 or uint16 [h, w] or [h, w, 2 to 4].
      complete: False if the file was cut, and the image is coarser than it was.
      scans: how many of the file's `of_scans` scans were there, of the tile that has fewest.
      metadata: "icc_profile", "exif", "xmp" -> bytes.
    """

    image: np.ndarray
    complete: bool
    scans: int
    metadata: dict[str, bytes]
    header: Header
    of_scans: int
