"""What each part of the codec is worth: short trainings of equal budget, one change each.

    aejax study experiments/compress/ablations.py --directory runs/compress-ablations

with the training photographs given by AEJAX_DATA. Eleven runs of 1,200 steps of four 128x128 crops
of a model with a fifth of the work. Cost: two and a half minutes each on one idle core. A run's
`test/loss` on the middles of the held-out photographs, five qualities from 0 to 100, is
(bpp + lambda MSE) over sqrt(lambda): one per cent of it is about one per cent of bits. `loss_20`,
`loss_50`, `loss_80` are that of one quality alone, for the models of one rate.

    context       z, three slices of channels, two colours of a chequerboard: as in what ships
    mean-scale    z alone predicts mean and scale (mbt2018-mean)
    hyperprior    z predicts the scale alone (bmshj2018-hyperprior)
    factorized    fixed scales per channel and quality (bmshj2018-factorized)
    random        linear paths start at random instead of at the KLT
    noise         the decoder is trained on noisy latents instead of rounded ones
    latent-96, latent-320
                  narrower and wider latents than 192
    only-20, only-50, only-80
                  one model for one rate, against `context` at that rate

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
    """The codec's own config, smaller and shorter."""
    c = load_module(str(pathlib.Path(__file__).parent / "codec.py")).get_config(arg)
    # What the variants change has to be there to be changed.
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
