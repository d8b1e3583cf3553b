"""Four runs of seconds, for launching."""

from aejax.config import base
from aejax.study import Study, grid


def get_config(arg: str = ""):
    config = base()
    config.data.source = "bundled:digits"
    config.data.batch = 64
    config.train.length = "64 steps"
    config.optim.lr = 3e-3
    config.eval.examples = 64
    config.eval.pictures = 0
    config.checkpoint.every = "1000 seconds"  # only what a signal asks for
    if "slow" in arg:  # long enough to be stopped in the middle
        config.train.length = "1500 steps"
        config.train.steps_per_dispatch = 1
    return config


def get_study(arg: str = "") -> Study:
    return Study(
        name="Tiny study",
        config=get_config(arg),
        runs=grid({"model.latent": (2, 4), "seed": (0, 1)}),
        baselines=(),
    )
