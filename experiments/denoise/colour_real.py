"""Trains the shipped denoiser for photographs: camera noise, JPEG artefacts and white noise, blind.

    python experiments/denoise/clean_photos.py $AEJAX_DATA/train/photos photos_clean
    aejax train --config experiments/denoise/colour_real.py --workdir runs/denoise_colour_real \\
        --config.data.source=folder:photos_clean

It starts from the shipped colour weights, with one more coarse level for noise of 8 to 16 pixels.
The learning rate is constant, so that the run can be stopped and resumed at any time; "finish"
decays it, from the weights of a run:

    aejax train --config experiments/denoise/colour_real.py:finish --workdir runs/finish \\
        --config.model.start=runs/denoise_colour_real

"cameras" continues from that with less white noise, for which there are separate weights, and more
camera noise:

    aejax train --config experiments/denoise/colour_real.py:cameras --workdir runs/cameras \\
        --config.data.source=folder:photos_soft --config.model.start=runs/finish

Cost on one core of an AMD EPYC with AVX-512 BF16: 2 hours for 5,225 steps at the constant rate
(beside other work), "finish" 70 minutes, "cameras" 48 minutes (0.6 s per step).
"""

from gray import get_config as gray
from ml_collections import ConfigDict

from aejax.config import flags

WHITE = {"name": "gaussian", "sigma": (-4.0, 55.0)}
CAMERA = {"name": "camera", "rms": (0.7, 20.0)}
JPEG = {"name": "jpeg", "quality": (5.0, 95.0)}


def get_config(arg: str = "") -> ConfigDict:
    """`arg` "smoke": seconds on the bundled photos; "flat": the architecture of the white-noise
    weights; "finish", "cameras": see above."""
    words = flags(arg, "smoke", "flat", "finish", "cameras")
    c = gray("smoke" if "smoke" in words else "", channels=3)
    c.corrupt = (
        {"name": "one_of", "choices": (WHITE, CAMERA, JPEG), "weights": (0.35, 0.5, 0.15)},
    )
    c.objective.kwargs = ConfigDict({"balance": 0.7, "measured": True})
    if "smoke" in words:
        c.model.kwargs.told = "never"
        return c
    c.data.source, c.data.holdout = "folder:photos_clean", 0
    c.data.crop, c.data.batch = 128, 6
    c.model.kwargs = ConfigDict(
        {"widths": (64, 128, 256, 256), "blocks": (1, 1, 1, 2, 1, 1, 1), "told": "never"}
    )
    c.model.start, c.objective.kwargs.deepen = "colour", 256
    if "flat" in words:
        c.model.kwargs = ConfigDict(
            {"widths": (64, 128, 256), "blocks": (1, 1, 2, 1, 1), "told": "sometimes"}
        )
        c.objective.kwargs.deepen = 0
    c.optim.lr, c.optim.schedule, c.optim.ema = 7e-4, "constant", 0.9995
    c.train.length = "200000 steps"
    c.eval.every = "2000 steps"
    if "finish" in words:
        c.optim.schedule, c.train.length, c.optim.ema = "cosine", "7500 steps", 0.999
        c.optim.warmup = "200 steps"
        c.objective.kwargs.deepen, c.objective.kwargs.gray = 0, 0.12
    if "cameras" in words:
        c.corrupt = (
            {"name": "one_of", "choices": (WHITE, CAMERA, JPEG), "weights": (0.1, 0.7, 0.2)},
        )
        c.optim.lr, c.optim.schedule, c.train.length = 5e-4, "cosine", "4000 steps"
        c.optim.warmup, c.optim.ema = "200 steps", 0.999
        c.objective.kwargs.deepen, c.objective.kwargs.gray = 0, 0.2
        c.eval.every = "1000 steps"
    return c
