"""How much does each part of the codec contribute? Short trainings that differ in one part each.

    aejax study experiments/compress/ablations.py --directory runs/compress-ablations

AEJAX_DATA is the folder of the data sets with the training photographs. Eleven runs of 1,200 steps
on four 128x128 crops, with a model of a fifth of the computation. Cost: two and a half minutes per
run on one idle core. `test/loss` is (bpp + lambda MSE) / sqrt(lambda), averaged over centre crops
of the held-out photographs and five qualities from 0 to 100; one per cent of it is about one per
cent of bits. `loss_20`, `loss_50` and `loss_80` are the loss at that quality, to compare with the
models of one rate.

    context       z, three slices of channels, two colours of a checkerboard: as in the shipped
                  model, which has four slices
    mean-scale    mean and scale are predicted from z only (mbt2018-mean)
    hyperprior    the scale is predicted from z, the mean is zero (bmshj2018-hyperprior)
    factorized    fixed scales per channel and quality (bmshj2018-factorized)
    random        random initialisation of the linear paths instead of the KLT
    noise         the decoder is trained on noisy latents instead of rounded ones
    latent-96, latent-320
                  96 or 320 latent channels instead of 192
    only-20, only-50, only-80
                  trained for this quality only, against `context` at that quality

Results: README.md beside this file.
"""

import pathlib

from aejax.config import flags, load_module
from aejax.study import Study, named

VARIANTS = {
    "context": {},
    "mean-scale": {"model.kwargs.hyper": "mean-scale"},
    "hyperprior": {"model.kwargs.hyper": "scale"},
    "factorized": {"model.kwargs.hyper": "factorized"},
    "random": {"objective.kwargs.klt": False},
    "noise": {"model.kwargs.rounding": "noise"},
    "latent-96": {"model.latent": 96, "model.kwargs.slices": (16, 32, 48)},
    "latent-320": {"model.latent": 320, "model.kwargs.slices": (64, 96, 160)},
    "only-20": {"objective.kwargs.quality": (20.0, 20.0)},
    "only-50": {"objective.kwargs.quality": (50.0, 50.0)},
    "only-80": {"objective.kwargs.quality": (80.0, 80.0)},
}


def get_config(arg: str = ""):
    """The config of codec.py with a smaller model and a shorter training."""
    c = load_module(str(pathlib.Path(__file__).parent / "codec.py")).get_config(arg)
    # Overrides need existing keys: set the defaults of what the variants change.
    c.model.kwargs.hyper, c.model.kwargs.rounding = "context", "straight-through"
    c.objective.kwargs = {"klt": True, "quality": (0.0, 100.0), "judged": (20, 50, 80)}
    if "smoke" in flags(arg, "smoke"):
        c.objective.kwargs.judged = ()
    else:
        c.model.latent = 192
        c.model.kwargs.width, c.model.kwargs.encoder, c.model.kwargs.decoder = (
            (96, 128),
            (3, 2),
            (2, 1),
        )
        c.model.kwargs.slices, c.model.kwargs.features, c.model.kwargs.context = (
            (32, 64, 96),
            64,
            96,
        )
        c.train.length = "1200 steps"
    return c


def get_study(arg: str = ""):
    """The study; arg: "smoke" for the small form of the config."""
    variants = VARIANTS
    if "smoke" in flags(arg, "smoke"):
        variants = {name: v for name, v in VARIANTS.items() if "latent" not in name}
    return Study(
        name="compress-ablations",
        title="What each part of the codec is worth",
        config=lambda: get_config(arg),
        runs=named("variant", variants),
        by="@variant",
        columns=(
            "parameters",
            "test/loss",
            "test/loss_20",
            "test/loss_50",
            "test/loss_80",
            "test/bpp",
            "test/bpp_z",
            "test/psnr",
        ),  # fmt: skip
        y="test/loss",
        baselines=(),
    )
