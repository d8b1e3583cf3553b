"""How does the test error on Fashion-MNIST depend on the size of h, 2 to 128 numbers? 3 seeds.

    aejax study experiments/reconstruct/latent_sweep.py --data-dir DATA

PCA, linear, dense and convolutional autoencoders. The linear one starts at random and can at best
reach PCA (Baldi and Hornik, 1989); the others are initialised with PCA (`init = "pca"`) and trained
for 4 epochs.

Cost: 27 s (dense) and 135 s (conv) of one core per run. Results: README.md beside this file.
"""

from aejax.config import base, flags, part
from aejax.study import Study, grid, named, product, seeds

SIZES = (2, 4, 8, 16, 32, 64, 128)
MODELS = {
    "linear": {
        "model.f_E": part("linear"),
        "model.f_D": part("linear"),
        "model.init": "random",
        "optim.lr": 1e-2,
        "train.length": "16 epochs",
    },
    "dense": {
        "model.f_E": part("dense", hidden=(512, 256)),
        "model.f_D": part("dense", hidden=(256, 512)),
    },
    "conv": {
        "model.f_E": part("conv", widths=(16, 32)),
        "model.f_D": part("conv", widths=(16, 32)),
    },
}


def get_config(arg: str = ""):
    c = base()
    c.data.source = "tfds:fashion_mnist"
    c.data.batch = 256
    c.model.init = "pca"
    c.optim.lr = 2e-3
    c.train.length = "4 epochs"
    c.train.steps_per_dispatch = 4
    c.eval.batch = 500
    if "smoke" in flags(arg, "smoke"):
        c.data.source = "bundled:digits"
        c.data.batch = 64
        c.train.length = "8 steps"
    return c


def get_study(arg: str = ""):
    smoke = "smoke" in flags(arg, "smoke")
    sizes = grid({"model.latent": (2, 8) if smoke else SIZES})
    return Study(
        name="latent_sweep",
        title="Reconstruction of Fashion-MNIST against the size of h",
        config=lambda: get_config(arg),
        runs=product(seeds(1 if smoke else 3), named("model", MODELS), sizes),
        y="test/mse",
    )
