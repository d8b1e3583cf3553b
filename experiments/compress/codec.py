"""The codec that ships: one model for all rates, mean squared error.

    aejax train --config experiments/compress/codec.py --workdir runs/codec

with the folder of training photographs given by AEJAX_DATA: 28,000 steps of four 128x128 crops,
18 GFLOP each with the backward pass: 0.27 s on one core of an AMD EPYC, 2.1 hours in all. Then
`python -m aejax.codec.freeze runs/codec -o aejax/weights/codec.safetensors`. `codec.py:more`
goes on from what ships, another 25,000 steps (1.9 hours). The one for MS-SSIM goes on from it too,
with 192x192 crops, which have all five scales:

    aejax train --config experiments/compress/codec.py:ms-ssim --workdir runs/codec-ms-ssim
    python -m aejax.codec.freeze runs/codec-ms-ssim --base codec \\
        -o aejax/weights/codec-ms-ssim.safetensors

6,000 steps, 23 minutes of one core. On from those weights: `codec.py:ms-ssim,more`, another 15,000;
`codec.py:ms-ssim,little`, 4,000 of all but the large kernels, which is what ships. Results:
README.md beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags


def get_config(arg: str = "") -> ConfigDict:
    """arg: "smoke" for a run of seconds on bundled pictures, "more" to go on from what ships,
    "ms-ssim" for the second model ("ms-ssim,more" and "ms-ssim,little": on from its weights)."""
    asked = flags(arg, "smoke", "more", "ms-ssim", "little")
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
    c.eval.crop, c.eval.batch = 256, 5  # one shape to compile, and five qualities in each batch
    c.eval.best = "-loss"
    c.checkpoint.every = "300 seconds"
    c.log.every = "30 seconds"

    if "more" in asked or "ms-ssim" in asked:
        c.model.start = "codec"
        c.model.init = "random"  # what is started from replaces it
        c.model.kwargs = {"rates": (0.0002, 0.6)}  # its dial: a quality means one lambda in both
    if "more" in asked:
        c.optim.lr = 1e-3
        c.train.length = "25000 steps"
    if "ms-ssim" in asked:
        c.objective.kwargs = {"metric": "ms-ssim"}
        c.data.crop, c.data.batch = 192, 2
        c.optim.lr = 5e-4
        c.train.length = "6000 steps"
    if "ms-ssim" in asked and "more" in asked:
        c.model.start = "codec-ms-ssim"
        c.train.length = "15000 steps"
    if "ms-ssim" in asked and "little" in asked:
        # All but the large kernels, so that the new file differs from the old in few bytes.
        c.model.start = "codec-ms-ssim"
        c.optim.only = "bias|norm|depthwise|quality|gain|base|z_mean|colour|weigh"
        c.optim.lr = 1e-3
        c.train.length = "4000 steps"

    if "smoke" in asked:
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
