"""Trains the shipped denoiser for video: gray and colour in one network, blind, below 15
kMAC/pixel.

    python experiments/denoise/clean_photos.py $AEJAX_DATA/train/photos photos_clean
    aejax train --config experiments/denoise/realtime.py --workdir runs/denoise_realtime \\
        --config.data.source=folder:photos_clean

A UNetDenoiser of two levels with 64 and 96 channels behind an unshuffle of 4: a CPU is fast at 3x3
convolutions of 64 channels and more (docs/fast-on-a-cpu.md). A quarter of each batch is gray, with
three equal channels. For gray images the first and last layer are folded to one channel, with the
same result (`aejax.denoising.distil.in_gray`); this costs 13.2 kMAC per pixel instead of 14.5.

Half of the loss is against the output of the shipped denoisers for the same noisy image
(`distil.Distilled`), half against the clean image. ":plain" trains on train/photos unchanged, every
20th held out.

Cost: 8,000 of its 40,000 steps took 35 minutes on one core of an AMD EPYC; 0.39 M parameters.
Results: README.md beside this file.
"""

from gray import get_config as gray
from ml_collections import ConfigDict

from aejax.config import flags

WHITE = {"name": "gaussian", "sigma": (-4.0, 55.0)}
CAMERA = {"name": "camera", "rms": (0.7, 20.0)}
VIDEO = {"name": "halved_chroma", "share": 0.4}  # 4:2:0: its chroma noise is not white any more


def get_config(arg: str = "") -> ConfigDict:
    """`arg` "smoke" shrinks it to seconds on the bundled photos; "plain" trains on train/photos."""
    words = flags(arg, "smoke", "plain")
    c = gray("smoke" if "smoke" in words else "", channels=3)
    c.corrupt = ({"name": "one_of", "choices": (WHITE, CAMERA), "weights": (0.7, 0.3)}, VIDEO)
    c.objective.name = "aejax.denoising.distil:Distilled"
    c.objective.kwargs = ConfigDict(
        {"balance": 0.7, "measured": True, "share": 0.5, "gray": 0.25,
         "teacher": "colour", "gray_teacher": "gray"}
    )  # fmt: skip
    c.model.kwargs = ConfigDict(
        {"widths": (64, 96), "blocks": (2, 2, 2), "block": "plain", "unshuffle": 4,
         "head_kernel": 1, "told": "never"}
    )  # fmt: skip
    if "smoke" in words:
        c.model.kwargs.widths, c.model.kwargs.blocks = (16, 16), (1, 1, 1)
        return c
    if "plain" not in words:
        c.data.source, c.data.holdout = "folder:photos_clean", 0
    c.data.crop, c.data.batch = 96, 8
    c.optim.ema = 0.9995
    c.train.length = "40000 steps"
    c.eval.every = "2000 steps"
    return c
