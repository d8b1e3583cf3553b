"""Trains the lossless codec: interlaced prediction by exact integer networks.

    aejax train --config experiments/compress/lossless.py --workdir runs/lossless
    python -m aejax.codec.lossless.freeze runs/lossless -o aejax/weights/lossless.safetensors

AEJAX_DATA is the folder of the data sets with the training photographs. Cost: the last 14,000 steps
of the shipped weights took 64 minutes of one core. How these were trained, in five runs, and their
results: README.md beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags


def get_config(arg: str = "") -> ConfigDict:
    """arg: "smoke" for a run of seconds on bundled photographs."""
    given = flags(arg, "smoke")
    c = base()
    c.task = "compress"
    c.data.source = "folder:train/photos"
    c.data.holdout = 20
    c.data.eval_split = "test"
    c.data.crop = 192
    c.data.flip = True
    c.data.rotate = True
    c.data.channels = 3
    c.data.batch = 4

    c.model.name = "aejax.codec.lossless.nets:Lossless"
    c.model.latent = 3
    c.objective.name = "aejax.codec.lossless.objective:BitsPerSample"
    c.objective.loss = {}

    c.optim.lr = 4e-4
    c.optim.schedule = "cosine"
    c.optim.warmup = "300 steps"
    c.optim.final_lr = 0.01
    c.optim.clip = 1.0
    c.optim.ema = 0.999

    c.train.length = "30000 steps"
    c.eval.every = "500 steps"
    c.eval.metrics = ()
    c.eval.crop, c.eval.batch = 320, 5
    c.eval.best = "-loss"
    c.eval.pictures = 4
    c.checkpoint.every = "300 seconds"
    c.log.every = "30 seconds"

    if "smoke" in given:
        c.data.source = "bundled:photos"
        c.data.crop, c.data.batch = 64, 2
        c.eval.crop = 64
        c.model.kwargs = {"width": 16, "blocks": (True,), "hidden": 16, "head": 8, "levels": 2}
        c.objective.kwargs = {"out": 32}
        c.train.length = "3 steps"
        c.optim.warmup = "0 steps"
    return c
