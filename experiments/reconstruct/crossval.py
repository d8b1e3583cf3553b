"""5-fold cross-validation on Fashion-MNIST: are the models of latent_sweep.py told apart?

    aejax study experiments/reconstruct/crossval.py --data-dir DATA

The linear, the dense and the convolutional autoencoder with 32 numbers, each trained five times on
four fifths of the 60,000 training images and measured on the last fifth; the table has the mean and
the spread over folds and a paired test. The folds are drawn once and kept in runs/. Three
epochs are too few for the linear one to reach PCA (papers/baldi1989.py does). Arguments:
"smoke".

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
        c.data.split = c.data.eval_split = "all"  # the folds decide who is tested on
        c.model.latent = 8
        c.train.length, c.train.devices = "8 steps", 1
    return c


def folds_file(n: int, k: int) -> pathlib.Path:
    """The file of k folds of n examples; made if it is not there, whole whoever looks."""
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
