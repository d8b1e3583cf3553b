"""5-fold cross-validation on Fashion-MNIST: do the models of latent_sweep.py differ significantly?

    aejax study experiments/reconstruct/crossval.py --data-dir DATA

The linear, dense and convolutional autoencoders with 32 latent numbers are trained five times each
on four fifths of the 60,000 training images and evaluated on the last fifth. The table has mean and
standard deviation over folds, and a paired test. The folds are drawn once and stored in runs/.
Three epochs are too few for the linear autoencoder to reach PCA (papers/baldi1989.py does).
Arguments: "smoke".

Cost: about 9 minutes on 2 quiet cores. Results: README.md beside this file.
"""

import os
import pathlib

from aejax.config import flags, load_module
from aejax.data import folds
from aejax.study import Study, named, product

SWEEP = load_module(str(pathlib.Path(__file__).parent / "latent_sweep.py"))


def get_config(arg: str = ""):
    c = SWEEP.get_config(arg)
    c.model.latent = 32
    c.train.length = "3 epochs"
    if "smoke" in flags(arg, "smoke"):
        c.data.split = c.data.eval_split = "all"  # the folds choose the test examples
        c.model.latent = 8
        c.train.length, c.train.devices = "8 steps", 1
    return c


def folds_file(n: int, k: int) -> pathlib.Path:
    """The file with k folds of n examples. If it does not exist, it is written and then renamed, so
    that other processes see a complete file."""
    path = pathlib.Path("runs") / f"folds-{n}-{k}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        folds.write(part, folds.make(n, k))
        part.replace(path)
    return path


def get_study(arg: str = ""):
    smoke = "smoke" in flags(arg, "smoke")
    file = folds_file(1797, 2) if smoke else folds_file(60_000, 5)
    names = ("linear", "dense") if smoke else SWEEP.MODELS
    members = {name: dict(SWEEP.MODELS[name]) for name in names}
    if smoke:
        members["linear"]["train.length"] = "8 steps"
    return Study(
        name="crossval",
        title="5-fold cross-validation on Fashion-MNIST",
        config=lambda: get_config(arg),
        runs=product(named("model", members), folds.overrides(file)),
        y="test/mse",
        reference="dense",
        columns=("latent_size", "parameters", "test/mse", "test/psnr", "test/ssim"),
    )
