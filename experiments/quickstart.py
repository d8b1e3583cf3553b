"""The quickstart: how much of an image survives in k numbers?

    aejax study experiments/quickstart.py

No download: the digits of scikit-learn (8x8, gray) and the photographs that scikit-image and
scikit-learn carry (32x32 crops of them, colour). Linear, dense and convolutional f_E and f_D at
several sizes of h, each beside PCA of the same size. At most 3 minutes on 2 cores.
"""

from aejax.config import base, part
from aejax.study import Study, grid, named, product

MODELS = {
    "linear": {"model.f_E": part("linear"), "model.f_D": part("linear")},
    "dense": {
        "model.f_E": part("dense", hidden=(256, 128)),
        "model.f_D": part("dense", hidden=(128, 256)),
    },
    "conv": {
        "model.f_E": part("conv", widths=(32, 64)),
        "model.f_D": part("conv", widths=(32, 64)),
    },
}


def get_config(arg: str = ""):
    """One run of it: arg "digits" or "photos", with "smoke" for a few seconds."""
    c = base()
    c.data.batch = 128
    c.optim.lr = 3e-3
    c.model.init = "pca"
    c.train.steps_per_dispatch = 10
    c.eval.metrics = ("psnr", "ssim", "mse")
    if "photos" in arg:
        c.data.source = "bundled:photos"
        c.data.crop = 32
        c.train.length = "600 steps"
        c.data.batch = 32
        c.train.steps_per_dispatch = 1
    else:
        c.data.source = "bundled:digits"
        c.data.holdout = 5
        c.train.length = "60 epochs"
    if "smoke" in arg:
        c.train.length = "4 steps"
        c.train.steps_per_dispatch = 2
        c.data.batch = 16
        c.eval.examples = 32
    return c


def get_study(arg: str = ""):
    sets = {"digits": (2, 4, 8, 16), "photos": (16, 64)}
    runs = []
    for data, sizes in sets.items():
        source = {f"data.{k}": v for k, v in get_config(f"{data} {arg}").data.items()}
        source |= {f"train.{k}": v for k, v in get_config(f"{data} {arg}").train.items()}
        runs += product([source], named("model", MODELS), grid({"model.latent": sizes}))
    return Study(
        name="quickstart",
        title="How much of an image survives in k numbers?",
        config=lambda: get_config(arg),
        runs=runs,
    )
