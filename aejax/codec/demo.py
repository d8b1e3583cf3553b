"""The quickstart's example of compression: a photograph as JPEG and as .aej of the same size."""

import io
import pathlib

import numpy as np


def compressed_photo(directory: str | pathlib.Path, quality: int = 15) -> dict[str, str]:
    """A section for a study's report: {"title", "text", "picture": file in `directory`}.

    The photograph is a 256x256 crop of scikit-image's astronaut.

    Args:
      quality: of the JPEG (Pillow, 4:2:0), whose file size is the target size of the .aej file.
    """
    from PIL import Image
    from skimage.data import astronaut

    from aejax.codec import api as codec
    from aejax.codec.evaluation.measure import psnr_of
    from aejax.pictures import rows_sheet, save

    x = np.ascontiguousarray(astronaut()[0:256, 96:352])
    out = io.BytesIO()
    Image.fromarray(x).save(out, "JPEG", quality=quality)
    jpeg = out.getvalue()
    ours = codec.encode(x, size=len(jpeg))
    with Image.open(io.BytesIO(jpeg)) as image:
        shown = [x, np.asarray(image), codec.decode(ours)]
    path = pathlib.Path(directory) / "compress.png"
    save(path, rows_sheet([("", "", shown)]))
    psnr = [psnr_of(x, y) for y in shown[1:]]
    return {
        "title": "A photograph at the size of a JPEG",
        "text": (
            f"From left to right: the photograph, 256x256 pixels; JPEG of quality {quality}, "
            f"{len(jpeg):,} bytes, {psnr[0]:.2f} dB; aejax, {len(ours):,} bytes, {psnr[1]:.2f} dB: "
            f"{psnr[1] - psnr[0]:+.2f} dB. Lossless: {lossless_sizes(x)}. Whole files are counted."
        ),
        "picture": path.name,
    }


def lossless_sizes(x: np.ndarray) -> str:
    """Sizes of lossless files of uint8 [h, w, 3]: "PNG 120,000 bytes, WebP 90,000, aejax ..."."""
    from aejax.codec.lossless.evaluation import contenders

    codecs = contenders()
    names = {"png": "PNG", "webp": "WebP", "aejax": "aejax"}
    sizes = [(names[k], len(codecs[k][0](x))) for k in names if k in codecs]
    (first, size), *others = sizes
    return ", ".join([f"{first} {size:,} bytes", *(f"{name} {n:,}" for name, n in others)])
