"""How large should h be in a denoising autoencoder? Dense and convolutional ones on Fashion-MNIST.

    aejax study experiments/denoise/fashion.py --data-dir DATA

Images have Gaussian noise of sigma 50, targets are clean (Vincent et al. 2010). PCA beside them
encodes clean images, without noise to remove: it shows how much a linear code of that size can
represent, and is no competitor.

Cost: 43 minutes on one core of an AMD EPYC without AVX-512, part of them beside other work.
Results: README.md beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags, part
from aejax.study import Study, grid, named, product

SIZES = (4, 8, 16, 32, 64, 128)
MODELS = {
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
    """`arg` "smoke" shrinks it to seconds on the bundled digits."""
    c = base()
    c.task = "denoise"
    c.data.source = "tfds:fashion_mnist"
    c.data.batch = 256
    c.corrupt = ({"name": "gaussian", "sigma": 50.0},)
    c.objective.loss = ConfigDict({"mse": 1.0})
    c.model.init = "pca"
    c.optim.lr = 2e-3
    c.train.length = "6 epochs"
    c.train.steps_per_dispatch = 4
    c.eval.batch = 500
    if "smoke" in flags(arg, "smoke"):
        c.data.source = "bundled:digits"
        c.data.batch = 64
        c.train.length = "8 steps"
    return c


def get_study(arg: str = ""):
    """Sizes of h, dense and convolutional."""
    sizes = grid({"model.latent": (2, 8) if "smoke" in flags(arg, "smoke") else SIZES})
    return Study(
        name="denoise_fashion",
        title="A denoising autoencoder against the size of h",
        config=lambda: get_config(arg),
        runs=product(named("model", MODELS), sizes),
        x="model.latent",
        y="test/psnr",
    )
