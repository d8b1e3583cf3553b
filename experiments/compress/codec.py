"""Trains the lossy codec: one model for all rates, for mean squared error or MS-SSIM.

    aejax train --config experiments/compress/codec.py --workdir runs/codec
    python -m aejax.codec.freeze runs/codec -o aejax/weights/codec.safetensors

AEJAX_DATA is the folder of the data sets with the training photographs. Cost: 28,000 steps on four
128x128 crops, 18 GFLOP each with the backward pass; 0.27 s per step on one core of an AMD EPYC, 2.1
hours in all. Variants:

    codec.py:more           from the shipped weights, 25,000 steps (1.9 hours)
    codec.py:ms-ssim        from the shipped weights, for MS-SSIM, 11,500 steps on 192x192 crops,
                            which are large enough for its five scales (0.35 s of CPU per step)
    codec.py:ms-ssim,more   from the shipped MS-SSIM weights, 15,000 steps

The MS-SSIM weights are stored as a difference to the others:

    python -m aejax.codec.freeze runs/codec-ms-ssim --base codec \\
        -o aejax/weights/codec-ms-ssim.safetensors

Results: README.md beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags


def get_config(arg: str = "") -> ConfigDict:
    """arg: "smoke" for a run of seconds on bundled photographs, or a variant above."""
    variant = flags(arg, "smoke", "more", "ms-ssim")
    c = base()
    c.task = "compress"
    c.data.source = "folder:train/photos"
    c.data.holdout = 20
    c.data.eval_split = "test"
    c.data.crop = 128
    c.data.flip = True
    c.data.channels = 3
    c.data.batch = 4

    c.model.name = "aejax.codec.nets:Codec"
    c.model.latent = 320
    c.model.init = "pca"
    c.objective.name = "aejax.codec.objective:RateDistortion"
    c.objective.loss = {}

    c.optim.lr = 2e-3
    c.optim.schedule = "cosine"
    c.optim.warmup = "200 steps"
    c.optim.final_lr = 0.01
    c.optim.clip = 1.0
    c.optim.b2 = 0.99
    c.optim.ema = 0.999

    c.train.length = "28000 steps"
    c.eval.metrics = ("psnr",)
    c.eval.crop, c.eval.batch = 256, 5  # one shape to compile; five qualities per batch
    c.eval.best = "-loss"
    c.checkpoint.every = "300 seconds"
    c.log.every = "30 seconds"

    if "more" in variant or "ms-ssim" in variant:
        c.model.start = "codec"
        c.model.init = "random"  # replaced by the weights that it starts from
        c.model.kwargs = {"rates": (0.0002, 0.6)}  # lambdas of quality 0 and 100 in those weights
    if "more" in variant:
        c.optim.lr = 1e-3
        c.train.length = "25000 steps"
    if "ms-ssim" in variant:
        c.objective.kwargs = {"metric": "ms-ssim"}
        c.data.crop, c.data.batch = 192, 2
        c.optim.lr = 7e-4
        c.train.length = "11500 steps"
    if "ms-ssim" in variant and "more" in variant:
        c.model.start = "codec-ms-ssim"
        c.optim.lr = 5e-4
        c.train.length = "15000 steps"

    if "smoke" in variant:
        c.model.start = ""
        c.data.source = "bundled:photos"
        c.data.crop, c.data.batch = 64, 2
        c.eval.crop = 64
        c.model.latent = 32
        c.model.kwargs = {
            "width": (16, 16), "encoder": (1, 1), "decoder": (1, 1), "slices": (16, 16),
            "z": 8, "features": 8, "context": 16,
        }  # fmt: skip
        c.train.length = "3 steps"
        c.optim.warmup = "0 steps"
    return c
