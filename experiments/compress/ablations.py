"""What each part of the codec is worth: short trainings of equal budget, one change each.

    aejax study experiments/compress/ablations.py --directory runs/compress-ablations

with the training photographs given by AEJAX_DATA. Eleven runs of 3,000 steps of four 128x128 crops,
about 25 minutes each on two idle cores. A run's `loss` on the held-out photographs, five qualities
from 0 to 100, is (bpp + lambda MSE) over sqrt(lambda): one per cent of it is about one per cent of
bits.

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

from ml_collections import ConfigDict

from aejax.config import load_module


def variants() -> dict[str, dict]:
    """name -> dotted keys that differ from the codec that ships."""
    return {
        "context": {},
        "mean-scale": {"model.kwargs.hyper": "mean-scale"},
        "hyperprior": {"model.kwargs.hyper": "scale"},
        "factorized": {"model.kwargs.hyper": "factorized"},
        "random": {"objective.kwargs.klt": False},
        "noise": {"model.kwargs.rounding": "noise"},
        "latent-192": {"model.latent": 192, "model.kwargs.slices": (32, 64, 96)},
        "latent-256": {"model.latent": 256, "model.kwargs.slices": (32, 64, 64, 96)},
        **{f"only-{q}": {"objective.kwargs.quality": (q, q)} for q in (20, 50, 80)},
    }


def get_config(arg: str = "context") -> ConfigDict:
    """arg: the name of a variant, "smoke" besides for a run of seconds."""
    import pathlib

    words = [w for w in arg.split(",") if w] or ["context"]
    name = next((w for w in words if w != "smoke"), "context")
    codec = load_module(str(pathlib.Path(__file__).parent / "codec.py"))
    smoke = "smoke" in words
    c = codec.get_config("smoke" if smoke else "")
    c.train.length = "3 steps" if smoke else "3000 steps"
    for key, value in variants()[name].items():
        *folders, last = key.split(".")
        at = c
        for folder in folders:
            at = at[folder]
        if smoke and last in ("latent", "slices"):
            continue
        with at.unlocked():
            at[last] = value
    return c
