"""Fine-tunes the shipped denoiser on your own noisy images, without clean ones; one is enough.

    aejax train --config experiments/denoise/one_image.py --workdir runs/mine \\
        --config.data.source=folder:/path/to/noisy
    aejax denoise /path/to/noisy -o clean/ --model runs/mine

Neighbor2Neighbor from the gray weights, 300 steps of 4 crops of 128 pixels with a small learning
rate. For colour: --config.data.channels=3 --config.model.start=colour.

Cost: about 4 minutes on 2 cores. Results: README.md beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags


def get_config(arg: str = ""):
    """`arg` "smoke" shrinks it to seconds, from a random start, on the bundled photos."""
    c = base()
    c.task = "denoise"
    c.data.source = "folder:noisy"
    c.data.split = c.data.eval_split = "all"
    c.data.channels = 1
    c.data.crop = 128
    c.data.flip = c.data.rotate = True
    c.data.batch = 4
    c.model.name = "aejax.denoising.models:UNetDenoiser"
    c.model.kwargs = ConfigDict(
        {"widths": (64, 128, 256), "blocks": (1, 1, 2, 1, 1), "told": "sometimes"}
    )
    c.objective.name = "aejax.denoising.objective:Neighbor2Neighbor"
    c.objective.loss = ConfigDict({"mse": 1.0})
    c.model.start = "gray"
    c.optim.lr = 1e-4
    c.optim.clip = 1.0
    c.optim.ema = 0.98
    c.train.length = "300 steps"
    c.eval.metrics = ("psnr",)
    if "smoke" in flags(arg, "smoke"):
        c.data.source = "bundled:photos"
        c.data.crop, c.data.batch, c.model.start = 32, 8, ""
        c.model.kwargs = ConfigDict({"widths": (16, 32), "blocks": (1, 1, 1)})
        c.train.length, c.eval.examples, c.eval.crop = "4 steps", 4, 64
    return c
