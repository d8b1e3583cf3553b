"""Writes a test clip for `aejax stream`: a pan over a photograph with white Gaussian noise.

python -m aejax.stream.clip noisy.y4m --size 640x480 --frames 100 --sigma 25
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from aejax.errors import UserError
from aejax.stream.y4m import SITED, SUBSAMPLED, Video, framed

ZOOM = 1.3  # size of the photograph relative to the frame


def photograph() -> np.ndarray:
    """scikit-image's "coffee", uint8 [400, 600, 3]."""
    from aejax.data.source import open_source

    source = open_source("bundled:photos", "test")
    return source.read(source.names.index("coffee.png"))[0]


def pan(
    photo: np.ndarray, video: Video, count: int, sigma: float, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (clean, noisy) frames, float32 [h, w, 3] with black 0 and white 1. The window moves
    from the top left corner to the opposite one and back, by whole pixels.

    Args:
      photo: uint8 [h, w, 3]; enlarged to ZOOM times the frame.
      video: size of the frames.
      count: number of frames.
      sigma: of the noise, on the 0..255 scale; drawn anew for each frame.
    """
    from PIL import Image

    h, w = video.height, video.width
    scale = ZOOM * max(h / photo.shape[0], w / photo.shape[1])
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    large = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS), np.float32)
    rng = np.random.default_rng(seed)
    for i in range(count):
        place = 1 - abs(1 - 2 * i / max(count - 1, 1))  # 0 to 1 and back
        top, left = round(place * (size[1] - h)), round(place * (size[0] - w))
        clean = large[top : top + h, left : left + w] / 255
        noise = rng.standard_normal(clean.shape, np.float32) * np.float32(sigma / 255)
        yield clean, clean + noise


def write(path: str | pathlib.Path, video: Video, count: int, sigma: float, seed: int = 0) -> None:
    """Writes the noisy pan as a Y4M file; arguments as of `pan`."""
    import jax

    from aejax.stream.colour import from_picture

    def planes(x):
        return from_picture(x if video.channels == 3 else x[..., 1:2], video)

    pack = jax.jit(planes)
    with open(path, "wb") as file:
        file.write(video.header(coded=False))
        for _, noisy in pan(photograph(), video, count, sigma, seed):
            file.write(framed(np.asarray(pack(noisy)).tobytes(), video, coded=False))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--sigma", type=float, default=25.0)
    parser.add_argument("--chroma", default="420jpeg", choices=(*SITED, *SUBSAMPLED))
    args = parser.parse_args()
    try:
        width, height = map(int, args.size.split("x"))
        layout = SITED.get(args.chroma, args.chroma)
        video = Video(width, height, layout, ("F25:1", "Ip", "A1:1", f"C{args.chroma}"))
        write(args.out, video, args.frames, args.sigma)
    except UserError as e:
        sys.exit(f"aejax: {e}")


if __name__ == "__main__":
    main()
