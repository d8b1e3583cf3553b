"""Trains the shipped gray denoiser: a UNetDenoiser for white noise of sigma 0 to 55.

    aejax train --config experiments/denoise/gray.py --workdir runs/denoise_gray

Data: folder:train/photos of the data folder (693 photographs), every 20th held out; gray is the
luma of the decoded RGB. Crops of 80 pixels, all flips and quarter turns, white Gaussian noise of
sigma drawn from 0 to 55 per crop (one in 15 stays clean), mean absolute error weighted by level,
Muon. The model gets the noise level of 3 in 10 crops, and works with and without it. The run can be
stopped at any time; the same command resumes it. Then a second round from the shipped weights:

    aejax train --config experiments/denoise/gray.py:more --workdir runs/denoise_gray_more

Cost: 16,000 steps took 1.5 h on 2 Xeon cores, 13,500 steps of the second round 1.9 h on one core of
an AMD EPYC; 3.4 M parameters, 120 kMAC/pixel. Result: README.md beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags


def get_config(arg: str = "", channels: int = 1) -> ConfigDict:
    """`arg` "more" goes on from the shipped weights, "smoke" shrinks it to seconds on the bundled
    photos."""
    asked = flags(arg, "more", "smoke")
    c = base()
    c.task = "denoise"
    c.data.source = "folder:train/photos"
    c.data.holdout = 20
    c.data.channels = channels
    c.data.crop = 80
    c.data.flip = c.data.rotate = True
    c.data.batch = 8
    c.data.cache = "memmap"

    c.corrupt = ({"name": "gaussian", "sigma": (-4.0, 55.0)},)
    c.model.name = "aejax.denoising.models:UNetDenoiser"
    c.model.kwargs = ConfigDict(
        {"widths": (64, 128, 256), "blocks": (1, 1, 2, 1, 1), "told": "sometimes"}
    )
    c.objective.name = "aejax.denoising.objective:Supervised"
    c.objective.loss = ConfigDict({"mae": 1.0})
    c.objective.kwargs = ConfigDict({"tell": ("sigma",), "balance": 0.7})

    c.optim.name = "aejax.denoising.optim:muon"
    c.optim.lr = 2e-3
    c.optim.schedule = "cosine"
    c.optim.warmup = "200 steps"
    c.optim.final_lr = 0.005
    c.optim.clip = 1.0
    c.optim.ema = 0.999

    c.train.length = "16000 steps"
    c.eval.every = "1000 steps"
    c.eval.batch = 7
    c.eval.metrics = ("psnr", "mse")
    c.eval.pictures = 6
    c.checkpoint.every = "300 seconds"
    c.log.every = "20 seconds"

    if "more" in asked:
        c.model.start = "colour" if channels == 3 else "gray"
        c.data.crop = 96  # fewer pixels beside a border, which tell the least
        c.optim.lr = 1e-3
        c.train.length = "13500 steps"
        c.eval.every = "2000 steps"
    if "smoke" in asked:
        c.data.source, c.data.holdout, c.data.cache = "bundled:photos", 0, "auto"
        c.data.crop, c.data.batch, c.eval.batch = 32, 8, 4
        c.model.kwargs.widths, c.model.kwargs.blocks = (16, 32), (1, 1, 1)
        c.optim.warmup, c.train.length = "2 steps", "6 steps"
        c.eval.every, c.eval.examples, c.eval.pictures, c.eval.crop = "", 4, 2, 64
    return c
