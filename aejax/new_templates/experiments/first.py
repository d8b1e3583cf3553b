"""One training of my encoder and decoder on the bundled digits.

    aejax check --config experiments/first.py
    aejax train --config experiments/first.py --workdir runs/first

The parts are named "my_package.module:name".
"""

from aejax.config import base, part


def get_config(arg: str = ""):
    """The config; `experiments/first.py:smoke` trains a few steps only."""
    c = base()
    c.data.source = "bundled:digits"  # your own: "folder:PATH", "tfds:NAME", "my_package.data:Set"
    c.corrupt = ({"name": "my_package.corruption:lighting", "strength": (0.0, 0.3)},)
    c.model.latent = 8
    c.model.f_E = part("my_package.encoder:Encoder", width=64)
    c.model.f_D = part("my_package.decoder:Decoder", width=64)
    c.objective.loss = {"mse": 1.0, "my_package.loss:edges": 0.1}
    c.optim.name = "adam"  # or of optax: "optax:adagrad", with its arguments in optim.kwargs
    c.train.length = "4 steps" if arg == "smoke" else "20 epochs"
    c.eval.metrics = ("psnr", "ssim", "my_package.metric:worst_pixel")
    c.eval.best = "-my_package.metric:worst_pixel"  # "-": smaller is better
    return c
