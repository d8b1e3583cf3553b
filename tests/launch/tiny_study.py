"""Four runs of seconds, for launching."""

from aejax.config import base, part
from aejax.study import Study, grid


def get_config(arg: str = ""):
    config = base()
    config.data.source = "bundled:digits"
    config.data.batch = 64
    config.model.f_E = part("dense", hidden=(32,))
    config.model.f_D = part("dense", hidden=(32,))
    config.train.length = "20 steps" if "smoke" in arg else "3000 steps"
    config.optim.lr = 3e-3
    config.eval.pictures = 0
    config.checkpoint.every = "1000 seconds"  # only what a signal asks for
    config.log.every = "0.3 seconds"
    return config


def get_study(arg: str = "") -> Study:
    return Study(
        name="Tiny study",
        config=get_config(arg),
        runs=grid({"model.latent": (2, 4), "seed": (0, 1)}),
        baselines=(),
    )
