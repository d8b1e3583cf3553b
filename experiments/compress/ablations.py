"""What each part of the codec is worth: short trainings of equal budget, one change each.

    aejax study experiments/compress/ablations.py --directory runs/compress-ablations

with the training photographs given by AEJAX_DATA. Eleven runs of 3,000 steps of four 128x128 crops,
about 25 minutes each on two idle cores. A run's `test/loss` on the held-out photographs, five
qualities from 0 to 100, is (bpp + lambda MSE) over sqrt(lambda): one per cent of it is about one
per cent of bits.

    context       z, four slices of channels, two colours of a chequerboard: what ships
    mean-scale    z alone predicts mean and scale (mbt2018-mean)
    hyperprior    z predicts the scale alone (bmshj2018-hyperprior)
    factorized    fixed scales per channel and quality (bmshj2018-factorized)
    random        linear paths start at random instead of at the KLT
    noise         the decoder is trained on noisy latents instead of rounded ones
    latent-192, latent-256
                  narrower latents
    only-20, only-50, only-80
                  one model for one rate, against `context` at that rate
"""

import pathlib

from aejax.config import load_module
from aejax.study import Study, named

VARIANTS = {
    "context": {},
    "mean-scale": {"model.kwargs.hyper": "mean-scale"},
    "hyperprior": {"model.kwargs.hyper": "scale"},
    "factorized": {"model.kwargs.hyper": "factorized"},
    "random": {"objective.kwargs.klt": False},
    "noise": {"model.kwargs.rounding": "noise"},
    "latent-192": {"model.latent": 192, "model.kwargs.slices": (32, 64, 96)},
    "latent-256": {"model.latent": 256, "model.kwargs.slices": (32, 64, 64, 96)},
    "only-20": {"objective.kwargs.quality": (20.0, 20.0)},
    "only-50": {"objective.kwargs.quality": (50.0, 50.0)},
    "only-80": {"objective.kwargs.quality": (80.0, 80.0)},
}


def get_config(arg: str = ""):
    """The codec's own config, shorter."""
    c = load_module(str(pathlib.Path(__file__).parent / "codec.py")).get_config(arg)
    # What the variants change has to be there to be changed.
    c.model.kwargs.hyper, c.model.kwargs.rounding = "context", "straight-through"
    c.objective.kwargs = {"klt": True, "quality": (0.0, 100.0)}
    if "smoke" not in arg:
        c.model.kwargs.slices = (32, 64, 96, 128)
        c.train.length = "3000 steps"
    return c


def get_study(arg: str = ""):
    variants = VARIANTS
    if "smoke" in arg:
        variants = {name: v for name, v in VARIANTS.items() if "latent" not in name}
    return Study(
        name="compress-ablations",
        title="What each part of the codec is worth",
        config=lambda: get_config(arg),
        runs=named("variant", variants),
        by="@variant",
        columns=("parameters", "test/loss", "test/bpp", "test/bpp_z", "test/psnr"),
        y="test/loss",
        baselines=(),
    )
