"""A stranger's studies of their own experiment: over seeds, and over folds."""

from first import get_config

from aejax.data import folds
from aejax.study import Study, seeds


def get_study(arg=""):
    c = get_config("smoke")
    c.data.split = "all"
    if arg == "folds":
        folds.write("folds.json", folds.make(1797, 2))
        return Study("folds", c, folds.overrides("folds.json"), columns=("test/psnr",))
    c.data.split = "train"
    return Study("seeds", c, seeds(2), columns=("test/psnr",))
