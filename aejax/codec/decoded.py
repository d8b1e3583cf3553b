"""The result of decoding a file, lossy or lossless."""

import dataclasses

import numpy as np

from aejax.codec.container import Header


class CutFile(UserWarning):
    """The file was truncated; the image is coarser than the original."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded file.

    Attributes:
      image: uint8 or uint16 [h, w] or [h, w, 2 to 4], with the dtype and channels of the original.
      complete: False if the file was truncated; the image is then coarser.
      scans, of_scans: number of scans decoded (of the tile with the fewest) out of how many.
      metadata: "icc_profile", "exif", "xmp" -> bytes.
      header: of the file.
    """

    image: np.ndarray
    complete: bool
    scans: int
    metadata: dict[str, bytes]
    header: Header
    of_scans: int
