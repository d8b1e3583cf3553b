"""Work that needs no model, so that what is around it can be tested in milliseconds."""

import threading
import time

import numpy as np

from aejax.errors import UserError
from aejax.serve.work import Compared, Denoised, file_of, finite_psnr, jpeg_within


class StandIn:
    """Denoising halves the contrast; a coded file is "aej" and a PNG."""

    def __init__(self, seconds=0.0):
        self.seconds, self.batches, self.release = seconds, [], threading.Event()
        self.release.set()

    def _pause(self, items):
        self.batches.append(len(items))
        time.sleep(self.seconds)
        self.release.wait(20)

    def info(self):
        return {"denoiser": "none", "generator": "noise", "classes": ["cat", "dog"], "guided": True,
                "encoder": "mean", "latents_of": [8, 8, 3]}  # fmt: skip

    def denoise(self, items):
        self._pause(items)
        if any(x[0, 0, 0] == 13 for x, _ in items):
            raise UserError("unlucky picture")
        return [Denoised((x // 2 + 64).astype(np.uint8), 12.5 * s) for x, s in items]

    def encode(self, items):
        self._pause(items)
        return [b"aej" + file_of(x, "PNG") for x, _ in items]

    def decode(self, items):
        from aejax.data.images import read_image

        for data, _ in items:
            if data[:3] != b"aej":
                raise UserError("not an .aej file")
        return [read_image(data[3:])[0] for data, _ in items]

    def compare(self, items):
        out = []
        for x, _ in items:
            quality, file = jpeg_within(x, x.size // 10)
            y = (x // 4 * 4).astype(np.uint8)
            out.append(Compared(y, x.size // 10, finite_psnr(x, y), y, len(file), 30.0, quality))
        return out

    def latents(self, items):
        return [x.mean((0, 1)) / 255 for x in items]

    def sample(self, n, label, guidance, seed):
        if label is not None and label > 1:
            raise UserError(f"class {label}: this generator has 0 to 1")
        return np.random.default_rng(seed).integers(0, 256, (64, 16 * n, 3), np.uint8)
